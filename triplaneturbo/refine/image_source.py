"""What the refinement toward a picture starts from: a caption, and a mesh or a generated draft."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from triplaneturbo.domains.registry import find_domain
from triplaneturbo.errors import UserError
from triplaneturbo.finetune.judge import load_clip
from triplaneturbo.models.config import TOYWORLD
from triplaneturbo.models.weights import Model
from triplaneturbo.refine.given_image import GivenImage
from triplaneturbo.refine.given_mesh import GivenMesh
from triplaneturbo.refine.image_program import mesh_of
from triplaneturbo.toyworld.captions.combinations import all_specs
from triplaneturbo.toyworld.training.clip import BACKGROUND, all_captions

_SCALES = (0.75, 0.85, 0.95)  # sides of the object in an image, as shares of the image


class NoShapeError(UserError):
    """A model cannot turn a picture into a shape, and nothing else gives one."""


def prompt_of(model: Model, name: str, image: GivenImage) -> str:
    """Return the caption of the toy world that is nearest to a picture, by the model's CLIP.

    Raises:
        UserError: the model has an open vocabulary, or no CLIP in its folder.
    """
    clip = load_clip(model.folder) if model.config.domain == TOYWORLD else None
    if clip is None:
        raise UserError(f"{name} cannot describe a picture; say in the prompt what it shows.")
    background = torch.tensor(BACKGROUND)
    pictures = []
    for scale in _SCALES:
        rgb, opacity = image.placed(clip.size, (clip.size / 2, clip.size / 2, scale * clip.size))
        pictures.append((rgb + background * (1 - opacity[..., None])).movedim(-1, 0))
    embedding = clip.embed_views(torch.stack(pictures)[None])  # [1, E]
    return all_specs()[int((embedding @ all_captions(clip).t()).argmax())].caption


def resolve(
    model: Model,
    name: str,
    prompt: str,
    image: GivenImage,
    mesh: GivenMesh | None,
    command: str,
    folder: Path,
    announce: Callable[[str], None] = lambda message: None,
) -> tuple[str, GivenMesh | None]:
    """Return the prompt and the mesh that the refinement toward a picture starts from.

    Args:
        model: the model.
        name: the model's name in messages.
        prompt: what the picture shows; "": the nearest caption.
        image: the picture.
        mesh: a given mesh.
        command: program that makes a mesh of the picture; see `mesh_of`.
        folder: receives the program's files.
        announce: called with the caption that replaces the prompt, as a message for the user.

    Returns:
        The prompt, and the mesh; None: the model generates a draft.

    Raises:
        NoShapeError: the model has an open vocabulary, and there is neither a mesh nor a program.
        UserError: it has an open vocabulary and there is no prompt, or the program makes no mesh.
    """
    if not prompt:
        prompt = prompt_of(model, name, image)
        announce(f"The picture is nearest to {prompt!r}.")
    if command:
        return prompt, mesh_of(command, image, folder)
    if mesh is None and not find_domain(model.config.domain).takes_pictures:
        raise NoShapeError(
            f"{name} cannot turn a picture into a shape; give a mesh, or a program that makes one."
        )
    return prompt, mesh
