"""Start-up times: import, help, and a whole plan, compared with a bare interpreter.

    python bench/startup.py [--repeats 15]

Runs are interleaved, so that other load on the machine affects all candidates equally; medians and ratios are printed.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MELANGE = str(Path(sys.executable).with_name("melange"))
CANDIDATES = {
    "python -c pass (baseline)": ([sys.executable, "-c", "pass"], None),
    "import numpy": ([sys.executable, "-c", "import numpy"], None),
    "import melange": ([sys.executable, "-c", "import melange"], 0.3),
    "melange --help": ([MELANGE, "--help"], 0.5),
    "melange plan --quick": ([MELANGE, "plan", "--quick", "examples/chat.yaml"], 1.5),
    "melange plan": ([MELANGE, "plan", "examples/chat.yaml"], 3.0),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    seconds: dict[str, list[float]] = {name: [] for name in CANDIDATES}
    for _ in range(repeats):
        for name, (command, _target) in CANDIDATES.items():
            start = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - start)
    baseline = statistics.median(next(iter(seconds.values())))
    print(f"{'command':36}{'median [s]':>12}{'ratio':>8}{'target [s]':>12}")
    for name, (_, target) in CANDIDATES.items():
        median = statistics.median(seconds[name])
        verdict = "" if target is None else f"{target:12.1f}  {'met' if median <= target else 'NOT MET'}"
        print(f"{name:36}{median:12.3f}{median / baseline:8.1f}{verdict}")


if __name__ == "__main__":
    main()
