"""The folder of an ablation, which several processes may share.

ablation.json          model, budget and prompts; the same for everything in the folder
pool/ corpus/          rendered views of the toy world's prompts; a cleaned corpus
runs/NAME/             checkpoints of an unfinished run; cost.json, training.json and result.json
adapters/NAME/         the trained adapters
tables.json table.md   all tables
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.ablation_runs import AblationRun, Budget
from triplaneturbo.evaluate.store import digest
from triplaneturbo.models.adapters import FILE
from triplaneturbo.utils.atomic_files import write_atomically

TRAINING, RESULT = "training.json", "result.json"


@dataclass(frozen=True)
class AblationFolder:
    """The folder of an ablation.

    Attributes:
        folder: the folder.
        model: name of the model.
        budget: what each run may spend.
        prompts: training prompts, or the corpus and its column.
        scored: what is scored, and how.
    """

    folder: Path
    model: str
    budget: Budget
    prompts: tuple[str, ...]
    scored: Mapping[str, Any]

    @property
    def adapters(self) -> Path:
        """The folder of the trained adapters."""
        return self.folder / "adapters"

    def adapter(self, run: AblationRun) -> Path:
        """Return the file of a run's adapter."""
        return self.adapters / run.name / FILE

    def run_folder(self, run: AblationRun) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / run.name

    def read(self, run: AblationRun, name: str) -> dict[str, Any] | None:
        """Return the record `TRAINING` or `RESULT` of a run; None if it is not finished.

        Raises:
            UserError: the file is broken.
        """
        path = self.run_folder(run) / name
        try:
            record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {path} ({error}); delete it, and run the command again.") from None
        return record

    def write(self, run: AblationRun, name: str, record: Mapping[str, Any]) -> None:
        """Write a record of a run.

        Raises:
            UserError: it cannot be written.
        """
        write_atomically(self.run_folder(run) / name, (json.dumps(record, indent=1) + "\n").encode())

    def claim(self) -> None:
        """Record what this ablation is, unless the folder holds it already.

        Raises:
            UserError: the folder holds another ablation, or cannot be written.
        """
        path = self.folder / "ablation.json"
        contents = self._contents()
        try:
            other = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            write_atomically(path, (json.dumps(contents, indent=1) + "\n").encode())
            return
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {path} ({error}); use another folder.") from None
        for key, value in contents.items():
            if other.get(key) != value:
                raise UserError(f"{self.folder} holds an ablation with another {key}; use another --to.")

    @contextlib.contextmanager
    def locked(self, run: AblationRun) -> Iterator[bool]:
        """Hold the lock of a run, which only one process can; yields whether this process holds it."""
        folder = self.run_folder(run)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / "lock", blocking=False)
            lock.acquire()
        except Timeout:
            yield False
            return
        except OSError as error:
            raise UserError(f"Cannot write to {folder}: {error.strerror}; use another --to.") from None
        try:
            yield True
        finally:
            lock.release()

    def _contents(self) -> dict[str, Any]:
        """Return what all runs have in common, by its name in messages, as values of JSON."""
        contents: dict[str, Any] = {
            "model": self.model,
            "budget": asdict(self.budget),
            "list of prompts": digest(prompts=self.prompts),
            "list of scored prompts": dict(self.scored),
        }
        return json.loads(json.dumps(contents))
