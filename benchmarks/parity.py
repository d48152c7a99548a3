"""Print how far we are from the public implementation's numbers: python -m benchmarks.parity

For each kind of tensor, over all cases in `TRIPLANETURBO_PARITY` (default ../shared/parity), the largest
difference as a fraction of the tensor's largest magnitude, with the adapters live and merged.
"""

from __future__ import annotations

import re

from tests.conftest import PARITY
from tests.helpers.parity_cases import case_files, differences


def main() -> None:
    """Measure and print."""
    files = case_files(PARITY)
    if not files:
        raise SystemExit(f"No cases below {PARITY}/generator; set TRIPLANETURBO_PARITY.")
    table: dict[str, list[float]] = {}
    for column, merged in enumerate((False, True)):
        for file in files:
            for name, value in differences(file, merged).items():
                kind = re.sub(r"_\d+$", "", name)
                row = table.setdefault(kind, [0.0, 0.0])
                row[column] = max(row[column], value)
    print(f"{len(files)} cases\n{'':24}{'live':>10}{'merged':>10}")
    for kind, (live, merged_) in table.items():
        print(f"{kind:24}{live:10.1e}{merged_:10.1e}")


if __name__ == "__main__":
    main()
