"""`python -m tests.parity FOLDER...`: every array's largest error beside its tolerance; status 1 on a miss."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.parity.compare import UnknownCaseError, compare_case


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="holds case.json and io.npz")
    status = 0
    for folder in parser.parse_args().folders:
        try:
            rows = list(compare_case(folder))
        except (OSError, ValueError, KeyError) as error:
            kind = "" if isinstance(error, UnknownCaseError) else f"{type(error).__name__}: "
            print(f"{folder}: FAILED: {kind}{error}")
            status = 1
            continue
        width = max((len(row.name) for row in rows), default=0)
        print(folder)
        for row in rows:
            mark = "ok  " if row.passed else "MISS"
            print(f"  {mark} {row.name:<{width}}  {row.largest_error:9.3g} of {row.tolerance:8.3g}  {row.remark}")
        missed = sum(not row.passed for row in rows)
        print(f"  {len(rows) - missed} passed, {missed} failed")
        if missed or not rows:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
