"""Numerical parity with the public implementation: python -m benchmarks.parity [--cases 1]

Prints, for each kind of tensor, the largest difference over all cases in `TRIPLANETURBO_PARITY` (default
../shared/parity) as a fraction of the tensor's largest magnitude, with live and with merged adapters.
"""

from __future__ import annotations

import argparse
import re

from tests.helpers.parity_cases import case_files, differences
from tests.helpers.parity_files import PARITY


def main() -> None:
    """Compare all cases and print the table."""
    parser = argparse.ArgumentParser(description="Compare with the numbers of the public implementation.")
    parser.add_argument("--cases", type=int, help="compare only the first ones")
    files = case_files(PARITY)[: parser.parse_args().cases]
    if not files:
        raise SystemExit(
            f"No cases found in {PARITY}/generator: set TRIPLANETURBO_PARITY to the folder with the cases."
        )
    table: dict[str, list[float]] = {}
    for column, merged in enumerate((False, True)):
        for file in files:
            for name, value in differences(file, merged).items():
                kind = re.sub(r"_\d+$", "", name)
                row = table.setdefault(kind, [0.0, 0.0])
                row[column] = max(row[column], value)
    print(f"{len(files)} cases\n{'':24}{'live':>10}{'merged':>10}")
    for kind, (live_error, merged_error) in table.items():
        print(f"{kind:24}{live_error:10.1e}{merged_error:10.1e}")


if __name__ == "__main__":
    main()
