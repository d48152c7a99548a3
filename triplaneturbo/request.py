"""Request: the validated options of one generation. Imports no torch."""

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
LOD_LIMIT = 4
DEFAULT_FLOATERS = 0.02
# The names in `mesh.uv.registry.UNWRAPPERS`, and "none".
UNWRAPS = ("fast", "xatlas", "uvunwrap", "none")
# With a normal map, 40,000 faces look like the 80,000 to 100,000 of the full model. The small model's
# surface has fewer faces and is not simplified.
DEFAULT_FACES = 40_000


@dataclass(frozen=True)
class Request:
    """Options of one mesh. Hashable, so that equal requests can share a cached result.

    Attributes:
        prompt: text prompt, at most 1000 characters.
        seed: seed of the latents, 0 to 2^32 - 1.
        steps: denoising steps, 1 to 50; None: the number that the adapter was trained with, or the model's
            default.
        resolution: nodes along each side of the marching cubes grid, 16 to 512; None: the model's default.
        faces: maximum number of faces, at least 100; None: no simplification.
        texture_size: width and height of the texture in pixels, 512 to 4096.
        unwrap: "fast" (box projection), "xatlas" (less distorted, slower), "uvunwrap" (the least distorted;
            needs Python 3.11) or "none" (vertex colours instead of a texture: the fastest, for previews of
            coarse meshes).
        normal_map: whether to bake the gradient of the field into a normal map. Not used with smoothing, as
            it would restore the smoothed detail.
        floaters: remove components whose area is less than this fraction of the largest one's, 0 (keep all)
            to 1.
        smoothing: passes of a smoothing filter that preserves volume, 0 to 50.
        watertight: whether to make the mesh a closed solid for printing, with two faces at every edge.
        variation: interpolation of the noise of `seed` toward that of `variation_seed`, 0 to 1; small values
            give similar meshes.
        variation_seed: seed of the variation, 0 to 2^32 - 1.
        blend: a second prompt whose embedding is mixed with that of the prompt; "": none.
        blend_weight: weight of the second prompt, 0 to 1.
        adapter: name of a fine-tuned adapter; "": the model's own.
        variation_path: variations to apply before `variation`, in order, as seed:strength pairs, for example
            "3:0.2,17:0.1"; at most 32.
        look: a prompt for the texture planes, which give the colours; "": the prompt. A blend mixes only the
            texts of the shape.
        keep_shape: with a look, whether the geometry is exactly that of the prompt alone, for twice the
            denoising. Otherwise the look changes it slightly, since all planes attend to each other.
        lods: levels of detail, 1 to 4: the mesh and coarser versions, each with half the faces of the
            previous one, in one atlas.
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
    look: str = ""
    keep_shape: bool = False
    lods: int = 1

    def turns(self) -> list[tuple[int, float]]:
        """Return all variations as (seed, strength) in order, without those of strength 0.

        Raises:
            UserError: a variation is invalid.
        """
        _check_integer("The variation's seed", self.variation_seed, 0, SEED_LIMIT)
        last = (self.variation_seed, _check_fraction("The variation", self.variation))
        return [(seed, strength) for seed, strength in [*_parse_path(self.variation_path), last] if strength]

    def checked(self) -> Request:
        """Validate all values and return a normalised request with a tidied prompt.

        Raises:
            UserError: a value is invalid.
        """
        _check_integer("The seed", self.seed, 0, SEED_LIMIT)
        if self.steps is not None:
            _check_integer("The number of steps", self.steps, 1, STEP_LIMIT)
        if self.resolution is not None:
            _check_integer("The resolution", self.resolution, *RESOLUTIONS)
        if self.faces is not None:
            _check_integer("The number of faces", self.faces, LEAST_FACES, None)
        _check_integer("The texture size", self.texture_size, *TEXTURE_SIZES)
        if self.unwrap not in UNWRAPS:
            raise UserError(
                f"The unwrap should be {', '.join(UNWRAPS[:-1])} or {UNWRAPS[-1]}, not {shown(self.unwrap)}."
            )
        if not isinstance(self.adapter, str):
            raise UserError(f"The adapter should be a name, not {shown(self.adapter)}.")
        _check_integer("The smoothing", self.smoothing, 0, SMOOTHING_LIMIT)
        _check_integer("The number of levels of detail", self.lods, 1, LOD_LIMIT)
        blend = tidy_prompt(self.blend) if self.blend else ""
        prompt = tidy_prompt(self.prompt)
        look = tidy_prompt(self.look, "The look") if self.look else ""
        if look == prompt and not blend:
            look = ""
        *before, (variation_seed, variation) = self.turns() or [(0, 0.0)]
        weight = _check_fraction("The blend's weight", self.blend_weight)
        # Values without an effect are normalised, so that equivalent requests are equal.
        return replace(
            self,
            prompt=prompt,
            normal_map=bool(self.normal_map),
            floaters=_check_fraction("The floaters", self.floaters),
            watertight=bool(self.watertight),
            variation=variation,
            variation_seed=variation_seed,
            variation_path=path_text(before),
            blend=blend,
            blend_weight=weight if blend else 0.5,
            look=look,
            keep_shape=bool(self.keep_shape and look),
        )


def path_text(variations: list[tuple[int, float]]) -> str:
    """Format variations as the `variation_path` of a request."""
    return ",".join(f"{seed}:{strength!r}" for seed, strength in variations)


def tidy_prompt(prompt: str, name: str = "The prompt") -> str:
    """Normalise the whitespace of a prompt: control characters and runs of spaces become one space.

    Emoji, accents and right-to-left text are unchanged.

    Raises:
        UserError: the prompt is not text, is blank, or is longer than 1000 characters.
    """
    if not isinstance(prompt, str):
        raise UserError(f"{name} should be text, not {shown(prompt)}.")
    if len(prompt) > PROMPT_LIMIT:
        raise UserError(
            f"{name} has {len(prompt)} characters; shorten it to at most {PROMPT_LIMIT}"
            " (the model reads about the first 50 words)."
        )
    if any(unicodedata.category(character) == "Cs" for character in prompt):
        raise UserError(f"{name} is not valid UTF-8 text; type it again.")
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in prompt)
    tidy = re.sub(r"\s+", " ", spaced).strip()
    # Invisible characters alone (for example a zero-width joiner) count as blank.
    if all(unicodedata.category(character) in ("Cf", "Cn", "Zs") for character in tidy):
        raise UserError(f"{name} is blank; say what to make, such as 'a red mushroom'.")
    return tidy


def shown(value: object) -> str:
    """Return `value` for an error message: escaped, on one line, at most 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:50] + "..."


def _check_integer(name: str, value: object, minimum: int, maximum: int | None) -> None:
    expected = f"{minimum} to {maximum}" if maximum is not None else f"{minimum} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name} should be a whole number, {expected}, not {shown(value)}.")
    if value < minimum or (maximum is not None and value > maximum):
        raise UserError(f"{name} should be {expected}, not {_short_number(value)}.")


def _parse_path(text: object) -> list[tuple[int, float]]:
    if not isinstance(text, str):
        raise UserError(f"The variation's path should be text, not {shown(text)}.")
    variations = []
    for part in text.split(",") if text.strip() else []:
        try:
            first, second = part.split(":")
            variations.append((int(first), float(second)))
        except ValueError:
            raise UserError(
                f"The variation's path should be seed:strength, as in 3:0.2,17:0.1, not {shown(part)}."
            ) from None
    if len(variations) > PATH_LIMIT:
        raise UserError(
            f"A variation path can have at most {PATH_LIMIT} variations; start from another seed instead."
        )
    for seed, strength in variations:
        _check_integer("The seed of a variation", seed, 0, SEED_LIMIT)
        _check_fraction("The strength of a variation", strength)
    return variations


def _check_fraction(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise UserError(f"{name} should be a fraction, 0 to 1, not {shown(value)}.")
    return float(value)


def _short_number(value: int) -> str:
    # Python refuses to print integers of thousands of digits.
    return str(value) if abs(value) < 10**20 else "a number of more than 20 digits"
