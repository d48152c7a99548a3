"""An adapter pushed to the hub, with a card that says what it was learned from.

    url = push("you/my-ducks", token, run, base="small", private=True)

The token is used for these requests and nothing else: it is written nowhere, and no error holds it. Imports
nothing heavy until something is pushed.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triplaneturbo.distill.corpora.prompt_list import how_many
from triplaneturbo.errors import UserError
from triplaneturbo.models.adapters import FILE
from triplaneturbo.request import shown

if TYPE_CHECKING:
    from triplaneturbo.finetune.config import FinetuneConfig

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")
# The hub's names, by whether the model is one of the small world.
_LICENCES = {
    True: ("apache-2.0", "the built-in model of triplaneturbo, Apache License 2.0"),
    False: (
        "openrail++",
        "Stable Diffusion 2.1-base, CreativeML Open RAIL++-M, whose restrictions of use hold here, too",
    ),
}
_LEFT_OUT = ("prompts", "held_out", "preview_prompts", "corpus", "embeddings")


def card(order: FinetuneConfig, model: str, world: bool, scores: dict[str, Any] | None = None) -> str:
    """The README.md of an adapter's repository; the prompts themselves are not told.

    Args:
        order: of the run.
        model: what the model is called that it is for.
        world: whether that is one of the small world.
        scores: of the run, as `Run.scores` has them.
    """
    licence, base = _LICENCES[world]
    settings = {name: value for name, value in asdict(order).items() if name not in (*_LEFT_OUT, "name")}
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in settings.items())
    count = how_many(len(order.prompts)) if order.prompts else "a corpus of prompts"
    judged = ""
    if scores is not None:
        figures = [
            f"| {group} | {key} | {before[key]:.3f} | {scores['after'][group][key]:.3f} |"
            for group, before in scores["before"].items()
            if isinstance(before, dict) and isinstance(scores["after"].get(group), dict)
            for key in before
            if isinstance(before[key], float) and isinstance(scores["after"][group].get(key), float)
        ]
        judged = (
            "\n## Scores\n\n| prompts | score | before | after |\n|---|---|---|---|\n"
            + "\n".join(figures)
            + "\n"
        )
    return (
        f"---\nlicense: {licence}\nlibrary_name: triplaneturbo\npipeline_tag: text-to-3d\n"
        f"tags:\n- text-to-3d\n- adapter\n---\n\n# {order.name}\n\n"
        f"An adapter for the model `{model}` of triplaneturbo, fine-tuned on {count} with Progressive"
        f" Rendering Distillation; {len(order.held_out):,} more were held out for judging.\n\n"
        f"Put `{FILE}` into `checkpoints/adapters/{order.name}/` and choose it as the adapter.\n\n"
        f"## Licence\n\nThe base is {base}.\n\n"
        f"## Settings\n\n| setting | value |\n|---|---|\n{rows}\n{judged}"
    )


def push(repository: str, token: str, adapter: Path, readme: str, private: bool = True) -> str:
    """Make a repository, if there is none, and commit an adapter and its card to it; its address.

    Args:
        repository: "owner/name".
        token: of somebody who may write there.
        adapter: the file.
        readme: its card.
        private: whether a new repository is seen by its owner only.

    Raises:
        UserError: a name cannot be, the hub refuses, or it cannot be reached; the sentence has no token.
    """
    repository, token = (repository or "").strip(), (token or "").strip()
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise UserError(f"The repository {shown(repository)} cannot be: name one as you/my-adapter.")
    if not _TOKEN.fullmatch(token):
        raise UserError("Give a token of the hub that may write: one line without blanks.")
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        api = HfApi(token=token, library_name="triplaneturbo")
        made = api.create_repo(repository, private=private, exist_ok=True)
        with adapter.open("rb") as file:
            # An open file goes by plain HTTP, whatever else the hub's client could use: it works anywhere.
            operations = [
                CommitOperationAdd("README.md", readme.encode()),
                CommitOperationAdd(FILE, file),
            ]
            api.create_commit(repository, operations, commit_message=f"{repository.partition('/')[2]}")
        return str(made)
    except Exception as error:  # its transport has errors of its own kinds, which differ between versions
        raise _explained(repository, error) from None


def _explained(repository: str, error: Exception) -> UserError:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return UserError("HF_HUB_OFFLINE is set, so the hub is not asked: unset it.")
    if isinstance(error, errors.HfHubHTTPError):
        code = error.response.status_code
        if code == 401:
            return UserError("The hub does not know this token: make one that may write, and paste it.")
        if code in (403, 404):
            return UserError(f"This token may not write to {repository}: name another or use another token.")
        if code == 409:
            return UserError(f"The hub is changing {repository} just now: try again.")
        return UserError(f"The hub refuses {repository} (HTTP {code}): try again later.")
    if isinstance(error, (errors.HFValidationError, ValueError)):
        return UserError(f"The hub refuses {repository}: choose another name.")
    if isinstance(error, FileNotFoundError):
        return UserError("The adapter is gone: nothing was pushed.")
    return UserError("The hub cannot be reached, or the connection was cut: try again.")


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "all"
    return json.dumps(value) if not isinstance(value, str) else value or "-"
