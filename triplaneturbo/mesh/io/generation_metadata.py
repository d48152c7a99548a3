"""Generation metadata in mesh files: prompt, seed, settings and model, written and read back.

A file contains one JSON object of ASCII characters:

    {"version": 1, "prompt": "a red mushroom", "seed": 1, "model": "small",
     "settings": {"steps": 4, ...}, "placement": {"up": "y", ...},
     "files": {"texture_format": "webp", "max_bytes": 1000000}}

Settings that are None are left out, since glTF libraries drop nulls. "files" has only values that are
not the defaults, and is left out without any. The settings of a refined mesh include those of `Refinement`.
GLB: `asset.extras.triplaneturbo`. OBJ and PLY: a comment `triplaneturbo {...}`. USDZ: the key `triplaneturbo`
of the layer's customLayerData. 3MF: metadata named `tt:generation`. Values are read as untrusted input.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from triplaneturbo.errors import UserError
from triplaneturbo.mesh.io.texture_formats import TEXTURE_FORMATS, check_max_bytes, check_texture_format
from triplaneturbo.mesh.placement import AS_MODELLED, Placement
from triplaneturbo.request import SEED_LIMIT, Request, shown

KEY = "triplaneturbo"
THREEMF_MODEL = "3D/3dmodel.model"  # path of the model in the zip
THREEMF_METADATA = "tt:generation"
VERSION = 1
LARGEST = 65_536  # characters of the JSON; the longest prompts take about 25,000
_LONGEST_NAME = 255  # the longest name of a file
_MOST_NAMES = 20


@dataclass(frozen=True)
class Refinement:
    """How a mesh was refined. In a file these are settings with the same names; defaults are left out.

    Attributes:
        refine_steps: optimizer steps.
        stopped_after: steps after which it was stopped early; 0: it was not.
        refine_seed: seed of the refinement.
        refine_as: the representation that was optimized.
        refine_teachers: names of the teachers.
        refine_path, refine_score: the path and the kind of score, if they were chosen.
        refine_mesh, refine_image: sha256 of the given mesh and of the given picture; "": there was none.
        upload: sha256 of the mesh or picture that was uploaded to the page; "": there was none.
    """

    refine_steps: int
    stopped_after: int = 0
    refine_seed: int = 0
    refine_as: str = ""
    refine_teachers: tuple[str, ...] = ()
    refine_path: str = ""
    refine_score: str = ""
    refine_mesh: str = ""
    refine_image: str = ""
    upload: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the settings of a file."""
        return {name: value for name, value in asdict(self).items() if value not in ("", (), 0)}

    @property
    def note(self) -> str:
        """Sentence for users who generate again what a file contains."""
        steps = self.stopped_after or self.refine_steps
        refined = f"The mesh in the file was refined for {steps} step{'s' * (steps != 1)}"
        if self.refine_mesh or self.refine_image or self.upload:
            return f"{refined} from a given mesh or picture, so the new mesh is another one."
        return f"{refined}, which is not repeated: refine the new mesh for that."


@dataclass(frozen=True)
class GenerationMetadata:
    """How a mesh was generated.

    Attributes:
        request: the request with all defaults filled in.
        model: the model's name.
        placement: size, unit, up axis and origin of the object in the file.
        texture_format: encoding of the textures, one of `texture_formats.TEXTURE_FORMATS`.
        max_bytes: the largest size that a GLB was allowed to have; None: any.
        refinement: how the mesh was refined; None: it was not, or the request says it.
    """

    request: Request
    model: str = ""
    placement: Placement = AS_MODELLED
    texture_format: str = TEXTURE_FORMATS[0]
    max_bytes: int | None = None
    refinement: Refinement | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of a file."""
        settings = asdict(self.request)
        if self.refinement is not None:
            settings |= self.refinement.as_dict()
        content = {
            "version": VERSION,
            "prompt": settings.pop("prompt"),
            "seed": settings.pop("seed"),
            "model": self.model[:_LONGEST_NAME],
            "settings": _without_none(settings),
            "placement": _without_none(asdict(self.placement)),
        }
        files: dict[str, Any] = {}
        if self.texture_format != TEXTURE_FORMATS[0]:
            files["texture_format"] = self.texture_format
        if self.max_bytes is not None:
            files["max_bytes"] = self.max_bytes
        return content | ({"files": files} if files else {})

    def as_text(self) -> str:
        """Return the JSON object on one line of printable ASCII characters."""
        return json.dumps(self.as_dict(), ensure_ascii=True)


def parse(text: str) -> GenerationMetadata:
    """Read the JSON object of a file; settings that this version does not know are ignored.

    Raises:
        UserError: the text is not such an object, or a value is invalid.
    """
    if len(text) > LARGEST:
        raise UserError("The settings in this file are too long to be real; choose another file.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise UserError("The settings in this file are not valid JSON; choose another file.") from None
    return from_dict(content)


def from_dict(content: object) -> GenerationMetadata:
    """Return the metadata of a JSON object, with all values validated like typed input.

    Raises:
        UserError: a value is missing or invalid.
    """
    if not isinstance(content, dict):
        raise _invalid("it is not an object")
    version = content.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise _invalid(f"its version is {shown(version)}")
    if version > VERSION:
        raise UserError("A newer version of triplaneturbo wrote this file's settings; update triplaneturbo.")
    settings, model = content.get("settings"), content.get("model")
    placement, files = content.get("placement", {}), content.get("files", {})
    if not isinstance(settings, dict) or not isinstance(placement, dict) or not isinstance(files, dict):
        raise _invalid("its settings are not an object")
    if not isinstance(model, str) or len(model) > _LONGEST_NAME:
        raise _invalid("its model is not a name")
    try:
        given = {**settings, "prompt": content.get("prompt"), "seed": content.get("seed")}
        request = Request(**_known(Request, given)).checked()
        texture_format, max_bytes = files.get("texture_format", TEXTURE_FORMATS[0]), files.get("max_bytes")
        check_texture_format(texture_format)
        check_max_bytes(max_bytes)
        placed = Placement(**_known(Placement, placement)).checked()
        refinement = _refinement(settings)
        return GenerationMetadata(request, model, placed, texture_format, max_bytes, refinement)
    except UserError as error:
        raise UserError(f"A setting in this file is invalid: {error}") from None


def _known(kind: type[Request] | type[Placement], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a dataclass's fields. Raise UserError for a value of another type.

    `Request.checked` validates text and numbers; truth values are validated here.
    """
    known: dict[str, Any] = {}
    for field in fields(kind):
        if field.name not in given:
            if "None" in str(field.type):
                known[field.name] = None
            continue
        value = given[field.name]
        if field.default is not MISSING and isinstance(field.default, bool) and not isinstance(value, bool):
            raise UserError(f"{field.name} should be true or false, not {shown(value)}.")
        known[field.name] = value
    return known


def _refinement(settings: Mapping[str, Any]) -> Refinement | None:
    """Return the settings of a refinement; None without any. Raise UserError for an invalid value."""
    if "refine_steps" not in settings:
        return None
    known: dict[str, Any] = {}
    for field in fields(Refinement):
        if field.name not in settings:
            continue
        value = settings[field.name]
        if field.name == "refine_teachers":
            valid = (
                isinstance(value, (list, tuple)) and len(value) <= _MOST_NAMES and all(map(_is_name, value))
            )
            value = tuple(value) if valid else value
        elif field.type == "int":
            lowest = 1 if field.name == "refine_steps" else 0
            valid = isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= SEED_LIMIT
        else:
            valid = _is_name(value)
        if not valid:
            raise UserError(f"{field.name} is {shown(value)}.")
        known[field.name] = value
    return Refinement(**known)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _LONGEST_NAME


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _invalid(reason: str) -> UserError:
    return UserError(
        f"The settings in this file are invalid: {reason}; choose a file saved by triplaneturbo."
    )
