"""Solve random planning problems with all options, and check each plan with an independent program and in NumPy.

    python bench/programs.py --count 20000 --seed 1

Prints every finding with its seed; tests/plan/judging.py defines what counts as a finding.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "plan"))

from judging import finding  # noqa: E402

from programs import draw  # noqa: E402


def main() -> None:
    """Run, and exit with 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="different seeds have no programs in common")
    parser.add_argument("--first", type=int, default=0, help="number of the first program")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after this time")
    given = parser.parse_args()
    began, found, tried = time.monotonic(), 0, 0
    for number in range(given.first, given.first + given.count):
        if time.monotonic() - began > given.limit_s:
            break
        tried += 1
        seed = given.seed * 1_000_000 + number
        if what := finding(draw(seed)):
            found += 1
            print(f"{seed}: {what}", flush=True)
        if tried % 1000 == 0:
            print(f"{tried} programs, {found} findings, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{tried} programs, seed {given.seed}: {found} findings")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
