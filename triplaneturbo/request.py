"""What is asked of a generation, checked before any work starts. Imports nothing heavy."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace

from triplaneturbo.errors import UserError

PROMPT_LIMIT = 1000
SEED_LIMIT = 2**32 - 1
STEP_LIMIT = 50
RESOLUTIONS = (16, 512)
TEXTURE_SIZES = (512, 4096)
LEAST_FACES = 100
SMOOTHING_LIMIT = 50
PATH_LIMIT = 32
DEFAULT_FLOATERS = 0.01
UNWRAPS = ("fast", "xatlas", "none")
# With a normal map of the field's own gradient, 40,000 faces look as the 80,000 to 100,000 of a full-size
# surface do; a small model's surface has fewer and is left as it is.
DEFAULT_FACES = 40_000


@dataclass(frozen=True)
class Request:
    """One mesh to make. Hashable, so that equal requests can share a result.

    Attributes:
        prompt: what to make; at most 1000 characters.
        seed: the latents are drawn from it; 0 to 2^32 - 1.
        steps: denoising steps, 1 to 50; None: as many as the model was trained for.
        resolution: nodes along each side of the surface's grid, 16 to 512; None: the model's own.
        faces: the most faces that the mesh may have, at least 100; None: as the surface comes.
        texture_size: side of the texture, 512 to 4096.
        unwrap: "fast" (box projection), "xatlas" (better charts, slower) or "none" (colours at the vertices
            in the place of a texture: the quickest, for a look at a coarse mesh).
        normal_map: whether to bake the field's fine shape into a normal map. With smoothing there is none: it
            would put back what was smoothed away.
        floaters: loose pieces with less than this fraction of the largest piece's area are dropped, 0 (keep
            all) to 1.
        smoothing: passes of a filter that evens the surface out without shrinking it, 0 to 50.
        watertight: whether the mesh has to be a solid for printing: closed, with two faces at every edge.
        variation: how far the noise of `seed` is turned toward that of `variation_seed`, 0 (not at all) to 1
            (it is that one's): a little of it gives meshes much like the seed's own.
        variation_seed: 0 to 2^32 - 1.
        blend: another prompt, with whose embedding the prompt's is mixed; "": none.
        blend_weight: its share, 0 (the prompt alone) to 1 (the other alone).
        adapter: of the library, by name; "": the model's own.
        variation_path: variations that come before it, each one of what the one before gives: seed:strength,
            as in "3:0.2,17:0.1"; at most 32.
    """

    prompt: str
    seed: int = 0
    steps: int | None = None
    resolution: int | None = None
    faces: int | None = DEFAULT_FACES
    texture_size: int = 1024
    unwrap: str = "fast"
    normal_map: bool = True
    floaters: float = DEFAULT_FLOATERS
    smoothing: int = 0
    watertight: bool = False
    variation: float = 0.0
    variation_seed: int = 0
    blend: str = ""
    blend_weight: float = 0.5
    adapter: str = ""
    variation_path: str = ""

    def turns(self) -> list[tuple[int, float]]:
        """Toward which seeds the noise is turned, one after the other, and how far; none by 0.

        Raises:
            UserError: the path or the last variation cannot be.
        """
        _whole("The variation's seed", self.variation_seed, 0, SEED_LIMIT)
        last = (self.variation_seed, _share("The variation", self.variation))
        return [(seed, strength) for seed, strength in [*_path(self.variation_path), last] if strength]

    def checked(self) -> Request:
        """The same request with its prompt tidied.

        Raises:
            UserError: a value cannot be.
        """
        _whole("The seed", self.seed, 0, SEED_LIMIT)
        if self.steps is not None:
            _whole("The number of steps", self.steps, 1, STEP_LIMIT)
        if self.resolution is not None:
            _whole("The resolution", self.resolution, *RESOLUTIONS)
        if self.faces is not None:
            _whole("The number of faces", self.faces, LEAST_FACES, None)
        _whole("The texture size", self.texture_size, *TEXTURE_SIZES)
        if self.unwrap not in UNWRAPS:
            raise UserError(
                f"The unwrap should be {', '.join(UNWRAPS[:-1])} or {UNWRAPS[-1]}, not {shown(self.unwrap)}."
            )
        if not isinstance(self.adapter, str):
            raise UserError(f"The adapter should be named by text, not {shown(self.adapter)}.")
        _whole("The smoothing", self.smoothing, 0, SMOOTHING_LIMIT)
        blend = tidy_prompt(self.blend) if self.blend else ""
        *before, (variation_seed, variation) = self.turns() or [(0, 0.0)]
        weight = _share("The blend's weight", self.blend_weight)
        # What has no effect is the same for all, so that such requests are equal.
        return replace(
            self,
            prompt=tidy_prompt(self.prompt),
            normal_map=bool(self.normal_map),
            floaters=_share("The floaters", self.floaters),
            watertight=bool(self.watertight),
            variation=variation,
            variation_seed=variation_seed,
            variation_path=path_text(before),
            blend=blend,
            blend_weight=weight if blend else 0.5,
        )


def path_text(turns: list[tuple[int, float]]) -> str:
    """A path of variations as a request holds it."""
    return ",".join(f"{seed}:{strength!r}" for seed, strength in turns)


def tidy_prompt(prompt: str) -> str:
    """The prompt in one line: control characters and runs of blanks become one blank, ends are stripped.

    Emoji, accents and right-to-left text stay as they are.

    Raises:
        UserError: it is no text, is blank or is longer than 1000 characters.
    """
    if not isinstance(prompt, str):
        raise UserError(f"The prompt should be text, not {shown(prompt)}.")
    if len(prompt) > PROMPT_LIMIT:
        raise UserError(
            f"The prompt has {len(prompt)} characters; shorten it to at most {PROMPT_LIMIT}"
            " (the model reads about the first 50 words)."
        )
    if any(unicodedata.category(character) == "Cs" for character in prompt):
        raise UserError("The prompt is not valid UTF-8 text; type it again.")
    blanked = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in prompt)
    tidy = re.sub(r"\s+", " ", blanked).strip()
    # Only marks that nobody sees (a lone zero-width joiner, say) are as blank as spaces.
    if all(unicodedata.category(character) in ("Cf", "Cn", "Zs") for character in tidy):
        raise UserError("The prompt is blank; say what to make, such as 'a red mushroom'.")
    return tidy


def shown(value: object) -> str:
    """`value` as an error sentence may quote it: escaped, one line, not long."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:50] + "..."


def _whole(name: str, value: object, least: int, most: int | None) -> None:
    wanted = f"{least} to {most}" if most is not None else f"{least} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} should be a whole number, {wanted}, not {shown(value)}.")
    if value < least or (most is not None and value > most):
        raise UserError(f"{name} should be {wanted}, not {_short_number(value)}.")


def _path(text: object) -> list[tuple[int, float]]:
    if not isinstance(text, str):
        raise UserError(f"The variation's path should be text, not {shown(text)}.")
    turns = []
    for part in text.split(",") if text.strip() else []:
        try:
            first, second = part.split(":")
            turns.append((int(first), float(second)))
        except ValueError:
            raise UserError(
                f"The variation's path should be seed:strength, as in 3:0.2,17:0.1, not {shown(part)}."
            ) from None
    if len(turns) > PATH_LIMIT:
        raise UserError(f"A variation has at most {PATH_LIMIT} before it; begin anew from another seed.")
    for seed, strength in turns:
        _whole("The seed of a variation", seed, 0, SEED_LIMIT)
        _share("The strength of a variation", strength)
    return turns


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f"{name} should be a share, 0 to 1, not {shown(value)}.")
    return float(value)


def _short_number(value: int) -> str:
    # Python refuses to print integers of thousands of digits.
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
