"""CPU time of each user command on the examples: user and system time of the process and its children, warm.

    python bench/commands.py [--repeats 5] [--base COMMIT]

With ``--base``, each command also runs with the source of that commit (``git archive``), in alternation, so that a busy
machine slows both. Imports have a separate line; ``python -X importtime -m melange.cli`` shows them by module.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN = "from melange.cli import main; main()"
# Each command with its target [CPU s]; None if the time depends on a search for a certified plan or on a log.
COMMANDS: tuple[tuple[str, float | None], ...] = (
    ("--help", 0.5),
    ("catalog offers", 1.5),
    ("workload examples/requests.parquet", 1.5),
    ("profile examples/chat.yaml", 1.5),
    ("plan examples/chat.yaml --quick", 1.5),
    ("plan examples/mixed.yaml --quick", 1.5),
    ("plan examples/fleet.yaml --quick", 1.5),
    ("plan examples/chat.yaml --quick --explain", 1.5),
    ("plan examples/chat.yaml --quick --report OUT/report.html", 2.0),
    ("explore examples/chat.yaml --quick --out OUT/explore.html", 2.0),
    ("explore examples/mixed.yaml --quick --out OUT/explore.html", 2.0),
    ("what-if examples/chat.yaml --quick --rate x2", 1.5),
    ("what-if examples/chat.yaml --quick --save 20%", None),
    ("schedule examples/week.yaml --quick", None),
    ("plan examples/chat.yaml --quick --out OUT/plan.json", 1.5),
    ("validate OUT/plan.json", 1.5),
    ("validate OUT/plan.json --report OUT/validation.html", 1.5),
    ("deploy OUT/plan.json --to kubernetes --out OUT/k8s", 1.5),
    ("plan examples/chat.yaml", None),
)


def cpu_s(arguments: Sequence[str], source: Path, code: str = RUN) -> float:
    """CPU time of a command with the package in a folder [s]."""
    environment = os.environ | {"PYTHONPATH": str(source), "MELANGE_DATA": str(source / ".no-fetched-prices")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1):  # 1: the result does not meet the SLO
        sys.exit(f"melange {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def archive(commit: str, folder: Path) -> Path:
    """The source folder of a commit."""
    packed = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed, check=True)
    return folder / "src"


def main() -> None:
    """Print the table, each line as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--base", help="commit to compare with")
    parser.add_argument("--only", default="", help="commands that contain this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = [ROOT / "src"] + ([archive(given.base, folder)] if given.base else [])
        base = f"{given.base[:8]:>9}{'ratio':>7}" if given.base else ""
        print(f"{'melange ...':62}{'CPU s':>7}{base}{'target':>8}")
        lines = [("(imports of the command line)", None, "import melange.cli.app"), *((*one, RUN) for one in COMMANDS)]
        for command, goal, code in lines:
            if given.only not in command and "--out OUT/plan.json" not in command:
                continue
            arguments = [word.replace("OUT", name) for word in command.split()] if code == RUN else []
            times: list[list[float]] = [[] for _ in sources]
            for _ in range(given.repeats):
                for source, found in zip(sources, times, strict=True):
                    found.append(cpu_s(arguments, source, code))
            own, *other = (statistics.median(one) for one in times)
            compared = f"{other[0]:9.2f}{own / other[0]:7.2f}" if other else ""
            verdict = "" if goal is None else f"{goal:8.1f}  {'met' if own <= goal else 'NOT MET'}"
            print(f"{command:62}{own:7.2f}{compared}{verdict}", flush=True)


if __name__ == "__main__":
    main()
