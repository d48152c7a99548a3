"""Time the stages from a prompt to a GLB, textured and coarse: python -m benchmarks.pipeline [--model small]

The first mesh includes torch's initialisation; the others are representative of requests of the page.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from triplaneturbo.request import Request
from triplaneturbo.serving.engine import Engine

COARSE = 48  # nodes along each side of the grid
KINDS: dict[str, dict[str, Any]] = {
    "textured": {},
    "coarse, colours at the vertices": {"resolution": COARSE, "unwrap": "none"},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the stages from a prompt to a GLB.")
    parser.add_argument("--model", default="small")
    parser.add_argument("--count", type=int, default=5, help="number of meshes, with seeds 0, 1, ...")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with Engine(arguments.model) as engine:
        print(engine.report())
        print(f"{'loaded in':14} {time.perf_counter() - start:.1f} s, without imports\n")
        for name, settings in KINDS.items():
            print(name)
            for seed in range(arguments.count):
                _time(engine, Request("a red mushroom", seed=seed, **settings))


def _time(engine: Engine, request: Request) -> None:
    start = time.perf_counter()
    result = engine.submit(request).result()
    made = time.perf_counter()
    size = len(engine.encode(result, "glb").data)
    seconds = {**result.seconds, "glb": time.perf_counter() - made}
    del seconds["total"]
    stages = "  ".join(f"{stage} {value:.3f}" for stage, value in seconds.items())
    print(f"{time.perf_counter() - start:6.3f} s  {stages}  ({len(result.mesh.faces)} faces, {size} B)")


if __name__ == "__main__":
    main()
