"""Time a prompt to a textured GLB, stage by stage: python -m benchmarks.pipeline [--model small] [--count 5]

The first mesh includes what torch sets up at a first call; the others are what a page feels like.
"""

from __future__ import annotations

import argparse
import time

from triplaneturbo.engine import Engine


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time a prompt to a textured GLB.")
    parser.add_argument("--model", default="small")
    parser.add_argument("--count", type=int, default=5, help="meshes, with seeds 0, 1, ...")
    arguments = parser.parse_args()
    start = time.perf_counter()
    with Engine(arguments.model) as engine:
        print(engine.report())
        print(f"{'loaded in':14} {time.perf_counter() - start:.1f} s, imports left out\n")
        for seed in range(arguments.count):
            start = time.perf_counter()
            result = engine.generate("a red mushroom", seed=seed)
            made = time.perf_counter()
            size = len(engine.encode(result.mesh, "glb"))
            seconds = {**result.seconds, "glb": time.perf_counter() - made}
            del seconds["total"]
            stages = "  ".join(f"{stage} {value:.3f}" for stage, value in seconds.items())
            print(
                f"{time.perf_counter() - start:6.3f} s  {stages}  ({len(result.mesh.faces)} faces, {size} B)"
            )


if __name__ == "__main__":
    main()
