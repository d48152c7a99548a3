"""What has to work without heavy imports, step by step in one process: prints what each step loaded, as JSON.

Run as a program, with the path of a file of prompts: python -m tests.helpers.light_steps FILE
"""

from __future__ import annotations

import sys

# Here, because the first step checks what `import triplaneturbo` loads, which includes `typing`.
HEAVY = {
    "typing", "torch", "numpy", "gradio", "numba", "diffusers", "huggingface_hub", "PIL", "trimesh",
    "pygltflib", "pxr",
}  # fmt: skip
before = set(sys.modules)
import triplaneturbo  # noqa: E402

FIRST = sorted(HEAVY & (set(sys.modules) - before))
ALREADY = sorted(HEAVY & before)

import io  # noqa: E402
import json  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import redirect_stdout  # noqa: E402
from pathlib import Path  # noqa: E402

ROOT = Path(triplaneturbo.__file__).parents[1]
COMMANDS = {
    "--help": ("--help",),
    "generate --help": ("generate", "--help"),
    "finetune --help": ("finetune", "--help"),
    "refine --help": ("refine", "--help"),
    "embed --help": ("embed", "--help"),
    "doctor --help": ("doctor", "--help"),
    "--version": ("--version",),
}
WITHOUT_TORCH = {"words": ("words",), "doctor --quick": ("doctor", "--quick")}


def _names() -> None:
    from triplaneturbo import Placement, Request, UserError  # noqa: F401


def _formats() -> None:
    from triplaneturbo.mesh.io.registry import suffixes

    suffixes()


def _runs() -> None:
    from triplaneturbo.finetune.run import runs

    runs()


def _command(*argv: str) -> int | str | None:
    from triplaneturbo.__main__ import main

    try:
        return main(list(argv))
    except SystemExit as end:
        return end.code


def _page() -> None:
    import importlib

    sys.modules["torch"] = None  # type: ignore[assignment]  # importing it fails
    for path in sorted((ROOT / "triplaneturbo" / "ui").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        importlib.import_module(name)
        print(name)


def steps(prompts: str) -> Iterator[tuple[str, Callable[[], int | str | None]]]:
    """Yield a name and a function for each step, those that load the least first."""
    yield "names", _names
    yield "formats", _formats
    yield "runs", _runs
    for name, argv in COMMANDS.items():
        yield name, lambda argv=argv: _command(*argv)
    yield "bad input", lambda: _command("finetune", "--prompts", prompts, "--rate", "0", "--quiet")
    for name, argv in WITHOUT_TORCH.items():
        yield name, lambda argv=argv: _command(*argv)
    yield "page", _page


def main() -> None:
    """Run the steps and print, for each: exit code, output, and heavy modules loaded so far."""
    done: dict[str, dict] = {"package": {"code": None, "out": "", "heavy": FIRST, "already": ALREADY}}
    for name, step in steps(sys.argv[1]):
        said = io.StringIO()
        with redirect_stdout(said):
            code = step()
        loaded = {module for module in HEAVY if sys.modules.get(module)} - {"typing"}
        done[name] = {"code": code, "out": said.getvalue(), "heavy": sorted(loaded)}
    print(json.dumps(done))


if __name__ == "__main__":
    main()
