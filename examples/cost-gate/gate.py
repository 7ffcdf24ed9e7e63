"""Fail a change that makes the fleet more expensive: compare the plans of two service files.

    python examples/cost-gate/gate.py before.yaml after.yaml --most 10%

Exit code 1: the second costs more than allowed. Both are planned as by ``melange plan``, certified by simulation, with
the prices of today.
"""

from __future__ import annotations

import argparse
import sys

from melange.errors import MelangeError
from melange.service.session import Session


def main() -> int:
    """Plan both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument("--most", default="10%", help="largest increase that passes")
    parser.add_argument("--quick", action="store_true", help="by closed form alone")
    given = parser.parse_args()
    most = float(given.most.removesuffix("%")) / 100
    try:
        costs = [
            (session.plan() if given.quick else session.answer()).cost_per_h
            for session in (Session(given.before), Session(given.after))
        ]
    except MelangeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    increase = costs[1] / costs[0] - 1
    print(f"{costs[0]:,.2f} -> {costs[1]:,.2f} USD/h ({increase:+.1%}; at most {most:+.0%} passes)")
    return int(increase > most)


if __name__ == "__main__":
    sys.exit(main())
