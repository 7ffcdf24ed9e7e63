"""Give ``melange`` damaged files of every format that it reads, and print every one that it does not answer properly.

A finding is an exception other than an error of ours, an error that cannot be printed, a file written in spite of an
error, or a command that takes longer than 60 s or more than 4 GiB. Each is kept in ``--keep`` for a look.

    python bench/mutations.py --count 100000 --seed 1 [--only plan,profile] [--keep bench/out/mutations]
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mutations"))

from answering import finding, report  # noqa: E402
from mutate import mutated  # noqa: E402
from read_formats import formats, write_valid  # noqa: E402

_MOST_MEMORY = 4 << 30


def main() -> None:
    """Run, and exit with 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="formats, with commas between them")
    parser.add_argument("--keep", type=Path, default=ROOT / "bench" / "out" / "mutations")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after this time")
    given = parser.parse_args()
    os.environ["MELANGE_CACHE"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_valid(folder)
        known = [one for one in formats(folder) if not given.only or one.name in given.only.split(",")]
        found: Counter[str] = Counter()
        rng, begun, tried = random.Random(given.seed), time.monotonic(), 0
        (folder / "damaged").mkdir()
        for tried in range(1, given.count + 1):
            if time.monotonic() - begun > given.limit_s:
                break
            one = rng.choice(known)
            command = rng.choice(one.commands)
            file = folder / "damaged" / one.suffix
            file.write_bytes(mutated(one.text, one.suffix.rpartition(".")[2], rng))
            what = finding(command, file, folder)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
            if not what and peak > _MOST_MEMORY:
                report(f"memory {peak >> 20} MiB after {one.name}")
                sys.exit(1)
            if what:
                found[f"{one.name}: {what[:100]}"] += 1
                if found[f"{one.name}: {what[:100]}"] == 1:
                    given.keep.mkdir(parents=True, exist_ok=True)
                    kept = given.keep / f"{given.seed}_{tried}_{one.name}_{one.suffix}"
                    kept.write_bytes(file.read_bytes())
                    words = command.__name__ if callable(command) else " ".join(command)
                    report(f"{one.name} | {words} | {what} | {kept.name}")
            took_s, mib = time.monotonic() - begun, peak >> 20
            if tried % 1000 == 0:
                report(f"{tried} files, {found.total()} findings, {took_s:.0f} s, {mib} MiB")
    kinds, total = len(found), found.total()
    report(f"{tried} files of {len(known)} formats, seed {given.seed}: {total} findings of {kinds} kinds")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
