"""The folder of an evaluation, which several methods and processes share.

evaluation.json                 protocol and prompts; the same for everything in the folder
meshes/ views/ embeddings/      results of the phases, by key (see store.py)
results/NAME.json               scores of one method by one judge
scores.json  table.md           all of them
sheet-NAME.png                  contact sheet of one method and judge
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from triplaneturbo.errors import UserError
from triplaneturbo.evaluate.judges import JudgeFiles
from triplaneturbo.evaluate.phases import Embeddings, Views
from triplaneturbo.evaluate.protocols import Protocol
from triplaneturbo.utils.atomic_files import write_atomically


@dataclass(frozen=True)
class Evaluation:
    """The folder of an evaluation.

    Attributes:
        folder: the folder.
        protocol: the protocol.
        gallery: all prompts, each once.
    """

    folder: Path
    protocol: Protocol
    gallery: tuple[str, ...]

    @property
    def meshes(self) -> Path:
        """The folder of generated meshes."""
        return self.folder / "meshes"

    @cached_property
    def views(self) -> Views:
        """The views."""
        return Views(self.folder / "views", self.protocol)

    def embeddings(self, judge: JudgeFiles, device: torch.device) -> Embeddings:
        """Return the embeddings by a judge."""
        return Embeddings(self.folder / "embeddings", judge, self.protocol, self.views, device)

    def check(self) -> bool:
        """Return whether the folder holds this evaluation already.

        Raises:
            UserError: it holds another evaluation.
        """
        try:
            other = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            raise UserError(f"Cannot read {self._record} ({error}); use another folder.") from None
        for key, name in (("protocol", "protocol"), ("prompts", "list of prompts")):
            if other.get(key) != self._contents()[key]:
                raise UserError(f"{self.folder} holds an evaluation with another {name}; use another --to.")
        return True

    def claim(self) -> None:
        """Record protocol and prompts in the folder, unless it holds this evaluation already.

        Raises:
            UserError: it holds another evaluation, or cannot be written.
        """
        if not self.check():
            text = json.dumps(self._contents(), indent=1, ensure_ascii=False)
            write_atomically(self._record, f"{text}\n".encode())

    @property
    def _record(self) -> Path:
        return self.folder / "evaluation.json"

    def _contents(self) -> dict[str, Any]:
        """Return what all results in the folder have in common, as values of JSON."""
        protocol = asdict(self.protocol)
        shared = {key: protocol[key] for key in ("name", "views", "prefix", "background")}
        contents: dict[str, Any] = json.loads(json.dumps({"protocol": shared, "prompts": self.gallery}))
        return contents
