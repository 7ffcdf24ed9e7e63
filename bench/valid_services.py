"""Fuzz test: draw random valid services, run commands on them, and report answers that cannot be right.

    python bench/valid_services.py --count 500 --seed 1
    python bench/valid_services.py --seed 1 --first 17 --count 1    # service 17 again
    python bench/valid_services.py --count 100 --small              # closed form only, few offers

A finding is a traceback, an answer that contradicts itself, the file, another answer or physics
(tests/valid_services/rules_valid.py), or a command that takes more than 60 s of CPU time or 2 GiB. Errors of ours are
answers; they are counted by their first line. Each service with a finding is kept in ``--keep``. Its content depends
only on the seed and its number.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "valid_services"))

from draw_valid import service  # noqa: E402
from run_valid import MOST_BYTES, Tried, check, peak_bytes, where, without_numbers  # noqa: E402

# A service may run a dozen commands; after this CPU time one of them hangs [s].
_LONGEST_S = 400.0
# Commands that take longer are listed [s].
_SLOW_S = 20.0
_FORK = multiprocessing.get_context("fork")


def _try(seed: int, number: int, folder: Path, is_small: bool, pipe: Connection) -> None:
    """Run one service in this process, and send what was found."""
    drawn = service(seed, number, is_small=is_small)
    try:
        tried = check(drawn, folder, is_small=is_small)
    except Exception as error:  # what is looked for
        tried = Tried(findings=[f"the check failed: {where(error)}"])
    if (peak := peak_bytes()) > MOST_BYTES:
        tried.findings.append(f"memory: {peak >> 20:,} MiB")
    pipe.send((tried, peak))


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _one(seed: int, number: int, folder: Path, is_small: bool) -> tuple[Tried, int]:
    """Try a service in a process of its own, which is ended if it hangs."""
    ours, theirs = _FORK.Pipe(duplex=False)
    worker = _FORK.Process(target=_try, args=(seed, number, folder, is_small, theirs))
    worker.start()
    theirs.close()
    try:
        while not ours.poll(0.5):
            if worker.is_alive() and _cpu_s(worker.pid or 0) > _LONGEST_S:
                worker.kill()
                return Tried(findings=[f"no answer after {_LONGEST_S:.0f} s of CPU time"]), 0
        found: tuple[Tried, int] = ours.recv()
    except (EOFError, OSError):
        worker.join()
        return Tried(findings=[f"the process died ({worker.exitcode})"]), 0
    worker.join()
    return found


def main() -> None:
    """Run, and exit with 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="number of services")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first service")
    parser.add_argument("--small", action="store_true", help="few offers, and closed form only")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "melange-valid-services")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after this time")
    given = parser.parse_args()
    os.environ["MELANGE_CACHE"] = tempfile.mkdtemp()
    kinds, said, tried = Counter[str](), Counter[str](), 0
    slowest, peak, begun = (0.0, ""), 0, time.monotonic()
    for number in range(given.first, given.first + given.count):
        folder = given.keep / f"{given.seed}-{number}"
        found, bytes_ = _one(given.seed, number, folder, given.small)
        tried, peak = tried + 1, max(peak, bytes_)
        slowest = max(slowest, *((took, f"{number}: {command}") for command, took in found.took_s.items()), (0.0, ""))
        for command, took in found.took_s.items():
            if took > _SLOW_S:
                print(f"{number}: {command}: {took:.0f} s of CPU time", flush=True)
        said.update({without_numbers(one) for one in found.said})
        for one in found.findings:
            kind = without_numbers(one.partition(": ")[2])
            kinds[kind] += 1
            if kinds[kind] <= 3:
                print(f"{number}: {one[:600]}", flush=True)
        if not found.findings:
            shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() - begun > given.limit_s:
            break
    print("\nerrors of ours, by their first line:")
    for text, count in said.most_common():
        print(f"{count:5} {text}")
    print(f"\n{tried} services, seed {given.seed}: {kinds.total()} findings of {len(kinds)} kinds")
    for text, count in kinds.most_common():
        print(f"{count:5} {text}")
    print(f"slowest, {slowest[0]:.1f} s of CPU time: {slowest[1]}; at most {peak >> 20:,} MiB per service")
    sys.exit(1 if kinds else 0)


if __name__ == "__main__":
    main()
