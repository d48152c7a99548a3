"""Publishing of an adapter on the Hugging Face Hub, with a model card.

    url = push("you/my-ducks", token, adapter_path, card(config, "small", domain.license), private=True)

The token is used for these requests only: it is never stored and never part of an error message. Imports
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
    from triplaneturbo.domains.domain import License
    from triplaneturbo.finetune.config import FinetuneConfig

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_TOKEN = re.compile(r"[\x21-\x7e]{1,500}")
_LEFT_OUT = ("prompts", "held_out", "preview_prompts", "corpus", "embeddings")


def card(config: FinetuneConfig, model: str, license: License, scores: dict[str, Any] | None = None) -> str:
    """Return the model card of an adapter (README.md); it contains no prompts.

    Args:
        config: options of the run.
        model: name of the model that the adapter belongs to.
        license: licence of the base model, that of its domain.
        scores: see `Run.scores`.
    """
    settings = {name: value for name, value in asdict(config).items() if name not in (*_LEFT_OUT, "name")}
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in settings.items())
    count = how_many(len(config.prompts)) if config.prompts else "a corpus of prompts"
    scores_section = ""
    if scores is not None:
        score_rows = [
            f"| {group} | {key} | {before[key]:.3f} | {scores['after'][group][key]:.3f} |"
            for group, before in scores["before"].items()
            if isinstance(before, dict) and isinstance(scores["after"].get(group), dict)
            for key in before
            if isinstance(before[key], float) and isinstance(scores["after"][group].get(key), float)
        ]
        scores_section = (
            "\n## Scores\n\n| prompts | score | before | after |\n|---|---|---|---|\n"
            + "\n".join(score_rows)
            + "\n"
        )
    return (
        f"---\nlicense: {license.id}\nlibrary_name: triplaneturbo\npipeline_tag: text-to-3d\n"
        f"tags:\n- text-to-3d\n- adapter\n---\n\n# {config.name}\n\n"
        f"An adapter for the model `{model}` of triplaneturbo, fine-tuned on {count} with Progressive"
        f" Rendering Distillation; {len(config.held_out):,} more were held out for evaluation.\n\n"
        f"Put `{FILE}` into `checkpoints/adapters/{config.name}/` and choose it as the adapter.\n\n"
        f"## Licence\n\nThe base is {license.description}.\n\n"
        f"## Settings\n\n| setting | value |\n|---|---|\n{rows}\n{scores_section}"
    )


def push(repository: str, token: str, adapter: Path, readme: str, private: bool = True) -> str:
    """Commit an adapter and its card to a repository, which is created if needed; return its URL.

    Args:
        repository: "owner/name".
        token: access token with write permission.
        adapter: file of the adapter.
        readme: the model card.
        private: visibility of a new repository.

    Raises:
        UserError: if a name is invalid, or the hub refuses or is unreachable; messages never contain the
            token.
    """
    repository, token = (repository or "").strip(), (token or "").strip()
    if not _REPOSITORY.fullmatch(repository) or "--" in repository or ".." in repository:
        raise UserError(f"The repository name {shown(repository)} is invalid: use the form you/my-adapter.")
    if not _TOKEN.fullmatch(token):
        raise UserError("Give an access token with write permission: one line without spaces.")
    from huggingface_hub import CommitOperationAdd, HfApi

    try:
        api = HfApi(token=token, library_name="triplaneturbo")
        made = api.create_repo(repository, private=private, exist_ok=True)
        with adapter.open("rb") as file:
            # An open file is uploaded by plain HTTP, which works everywhere.
            operations = [
                CommitOperationAdd("README.md", readme.encode()),
                CommitOperationAdd(FILE, file),
            ]
            api.create_commit(repository, operations, commit_message=f"{repository.partition('/')[2]}")
        return str(made)
    except Exception as error:  # the transport's exception classes differ between versions
        raise _user_error(repository, error) from None


def _user_error(repository: str, error: Exception) -> UserError:
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return UserError("HF_HUB_OFFLINE is set: unset it to publish.")
    if isinstance(error, errors.HfHubHTTPError):
        code = error.response.status_code
        if code == 401:
            return UserError("The hub rejected this token: create one with write permission.")
        if code in (403, 404):
            return UserError(
                f"This token has no write permission for {repository}: choose another repository or token."
            )
        if code == 409:
            return UserError(f"The hub is updating {repository}: try again.")
        return UserError(f"The hub refused {repository} (HTTP {code}): try again later.")
    if isinstance(error, (errors.HFValidationError, ValueError)):
        return UserError(f"The hub refused {repository}: choose another name.")
    if isinstance(error, FileNotFoundError):
        return UserError("The adapter file no longer exists: nothing was published.")
    return UserError("The hub is unreachable or the connection was lost: try again.")


def _cell(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "all"
    return json.dumps(value) if not isinstance(value, str) else value or "-"
