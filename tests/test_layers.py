"""The import graph: no cycles, downwards only, and no layer knows what it must not."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.helpers.paths import ROOT

PACKAGE = "triplaneturbo"
# From the lowest to the highest. A module belongs to the entry with the longest matching name.
LAYERS = [
    {"errors", "request", "utils"},
    {
        "models",
        "representations.density_control",
        "representations.field_kernels",
        "representations.gaussians",
        "representations.triplane",
        "render",
    },
    {"domains", "mesh", "representations", "teachers", "toyworld"},
    {
        "distill",
        "pipeline",
        "refine.given_image",
        "refine.given_mesh",
        "refine.image_program",
        "refine.metadata",
        "refine.options",
    },
    {"evaluate", "finetune", "refine", "toyworld.scoring", "toyworld.training"},
    {"serving"},
    {"__main__", "cli", "toyworld.__main__", "ui"},
]
FORBIDDEN = [
    ("ui", "torch"),
    *((layer, "gradio") for layer in ("models", "mesh", "render", "representations")),
]
# Imports that are made when a name is first used: they may go upwards.
DEFERRED = {
    (PACKAGE, f"{PACKAGE}.pipeline"),
    (f"{PACKAGE}.pipeline", f"{PACKAGE}.refine.image_source"),  # Pipeline.refine
    (f"{PACKAGE}.pipeline", f"{PACKAGE}.refine.start"),  # Pipeline.refine
    (PACKAGE, f"{PACKAGE}.mesh.mesh"),
    (PACKAGE, f"{PACKAGE}.mesh.placement"),
    (f"{PACKAGE}.mesh.mesh", f"{PACKAGE}.mesh.io"),  # Mesh.save
}


@cache
def imports() -> dict[str, set[str]]:
    """Every module of the package with all that it imports, also inside functions and for types."""
    paths = {_name(path.relative_to(ROOT).with_suffix("").parts): path for path in sources()}
    graph: dict[str, set[str]] = {name: set() for name in paths}
    for name, path in paths.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                graph[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path} has a relative import"
                assert node.module
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    used = full if full in paths else node.module
                    if (name, used) not in DEFERRED:
                        graph[name].add(used)
    return graph


def sources() -> list:
    return sorted((ROOT / PACKAGE).rglob("*.py"))


def _name(parts: tuple[str, ...]) -> str:
    return ".".join(parts).removesuffix(".__init__")


def layer(module: str) -> int | None:
    """The index of a module's layer; None for the package itself, which has nothing but its version."""
    inside = module.removeprefix(PACKAGE).lstrip(".")
    parts = inside.split(".")
    for length in range(len(parts), 0, -1):
        for index, names in enumerate(LAYERS):
            if ".".join(parts[:length]) in names:
                return index
    assert not inside, f"{module} is in no layer"
    return None


def test_imports_go_downwards_only() -> None:
    upwards = [
        f"{module} -> {used}"
        for module, found in imports().items()
        for used in found
        if used.startswith(f"{PACKAGE}.") and layer(module) is not None and (layer(used) or 0) > layer(module)  # type: ignore[operator]
    ]
    assert not upwards


def test_imports_have_no_cycle() -> None:
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, " -> ".join((*way[way.index(module) :], module))
        if module not in done:
            for used in imports()[module] & imports().keys() - {module}:
                visit(used, (*way, module))
            done.add(module)

    for module in imports():
        visit(module, ())


@pytest.mark.parametrize(("inside", "package"), FORBIDDEN)
def test_layers_do_not_import_forbidden_packages(inside: str, package: str) -> None:
    wrong = [
        f"{module} -> {used}"
        for module, found in imports().items()
        for used in found
        if module.startswith(f"{PACKAGE}.{inside}.") and used.partition(".")[0] == package
    ]
    assert not wrong
