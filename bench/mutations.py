"""Give ``melange`` damaged files of every format that it reads, and print every one that it does not answer properly.

A finding is an exception other than an error of ours, an error that cannot be printed, a file written in spite of an
error, a command that takes more than 60 s of CPU time or 4 GiB, or a process that dies. Each is kept in ``--keep``.

    python bench/mutations.py --count 100000 --seed 1 [--only plan,profile]
    python bench/mutations.py --every-key          # 24 wrong values at every key of every format

Files are tried in a process that has everything loaded, hundreds one after the other; another one watches it, because
neither a library that never returns nor one that crashes can be caught from within. What file N of a seed holds depends
on the seed and N alone: ``--first N --count 1`` tries it once more.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mutations"))

from answering import MOST_S, finding, report  # noqa: E402
from mutate import AT_EVERY_KEY, keys_of, mutated, with_value  # noqa: E402
from read_formats import Format, formats, write_valid  # noqa: E402

_MOST_MEMORY = 4 << 30
# Files to a process: memory that leaks does not add up to a finding.
_EACH = 200
# A file that is waited for so long [s] waits for something itself.
_LONGEST_WAIT_S = 1800.0
_FORK = multiprocessing.get_context("fork")


# A format, a key of it and a value for that; without a key the file is damaged at random.
Place = tuple[Format, str, Any]


def _try(places: _Places, folder: Path, seed: int, numbers: Sequence[int], pipe: Connection) -> None:
    """Try files one after the other: tells the number before each, and after each what was found and its memory."""
    damaged = folder / f"damaged-{os.getpid()}"
    damaged.mkdir(exist_ok=True)
    for number in numbers:
        rng = random.Random(f"{seed}/{number}")
        one, key, value = places.of(number, rng)
        command = rng.choice(one.commands)
        file = damaged / one.suffix
        kind = one.suffix.rpartition(".")[2]
        file.write_bytes(with_value(one.text, kind, key, value, rng) if key else mutated(one.text, kind, rng))
        words = command.__name__ if callable(command) else " ".join(command)
        pipe.send((number, one.name, words, str(file)))
        Path("/proc/self/clear_refs").write_text("5")  # the peak below is of this file alone
        what = finding(command, file, folder)
        if what:
            shutil.copy(file, f"{file}.found")  # before the next one takes its place
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
        if not what and peak > _MOST_MEMORY:
            what = f"took {peak >> 20:,} MiB"
        pipe.send((what, peak))


def _cpu_s(worker: multiprocessing.Process) -> float:
    """CPU time that a process has taken [s]: with other work on the machine, a clock would find files that are slow."""
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answers(pipe: Connection, worker: multiprocessing.Process, begun_s: float) -> bool:
    """Wait for an answer; False where it takes too much CPU time, or waits for something that never comes."""
    until = time.monotonic() + _LONGEST_WAIT_S
    while not pipe.poll(1.0):
        if _cpu_s(worker) - begun_s > MOST_S + 15 or time.monotonic() > until:
            return False
    return True


class _Places:
    """What is damaged, by the number of the file: a format drawn at random, or each key and value in turn, shuffled."""

    def __init__(self, known: Sequence[Format], seed: int, *, is_every_key: bool) -> None:
        self.known = known
        self.all: list[Place] = []
        if is_every_key:
            keys = [(one, key) for one in known for key in keys_of(one.text, one.suffix.rpartition(".")[2])]
            self.all = [(one, key, value) for one, key in keys for value in AT_EVERY_KEY]
            random.Random(seed).shuffle(self.all)

    def of(self, number: int, rng: random.Random) -> Place:
        """What file ``number`` (from 1) damages."""
        return self.all[number - 1] if self.all else (rng.choice(self.known), "", None)


class _Run:
    """Processes that try files, and what they found."""

    def __init__(self, places: _Places, folder: Path, seed: int, keep: Path) -> None:
        self.places, self.folder, self.seed, self.keep = places, folder, seed, keep
        self.found: Counter[str] = Counter()
        self.tried, self.peak, self.slowest_s = 0, 0, 0.0

    def batch(self, numbers: Sequence[int], until: float) -> None:
        """Try these; a file that ends its process is a finding, and the rest goes on without it."""
        left = list(numbers)
        while left and time.monotonic() < until:
            ours, theirs = _FORK.Pipe(duplex=False)
            worker = _FORK.Process(target=_try, args=(self.places, self.folder, self.seed, left, theirs))
            worker.start()
            theirs.close()
            left = self._watch(worker, ours, left, until)
            ours.close()

    def _watch(self, worker: multiprocessing.Process, pipe: Connection, left: list[int], until: float) -> list[int]:
        while left and time.monotonic() < until:
            number, name, words, file = left[0], "?", "?", ""
            try:
                number, name, words, file = pipe.recv()
                begun_s = _cpu_s(worker)
                what, peak = pipe.recv() if _answers(pipe, worker, begun_s) else ("no answer: killed", 0)
                self.slowest_s = max(self.slowest_s, _cpu_s(worker) - begun_s)
            except EOFError:
                worker.join()
                what, peak = f"the process died ({worker.exitcode})", 0
            self.peak = max(self.peak, peak)
            left.remove(number)
            self.tried += 1
            if what:
                self._keep(number, name, words, file, what)
            if what.startswith(("no answer", "the process")):
                break
        if worker.is_alive():
            worker.kill()
        worker.join()
        return left

    def _keep(self, number: int, name: str, words: str, file: str, what: str) -> None:
        kind = f"{name}: {what[:100]}"
        self.found[kind] += 1
        if self.found[kind] > 1:
            return
        kept = ""
        copies = [copy for copy in (Path(f"{file}.found"), Path(file)) if file and copy.exists()]
        if copies:
            self.keep.mkdir(parents=True, exist_ok=True)
            kept = f"{self.seed}_{number}_{name}_{Path(file).name}"
            (self.keep / kept).write_bytes(copies[0].read_bytes())
        report(f"{number}: {name} | {words} | {what} | {kept}")


def _write(folder: Path) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        write_valid(folder)


def _prepare(folder: Path) -> None:
    """The valid files, written by a process of its own: threads that it starts are in no other."""
    import duckdb  # noqa: F401 # loaded once, and not by every process
    import ibis  # noqa: F401

    writer = _FORK.Process(target=_write, args=(folder,))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit("the valid files cannot be written")


def main() -> None:
    """Run, and exit with 1 where anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first file")
    parser.add_argument("--every-key", action="store_true", help="wrong values at every key, in a random order")
    parser.add_argument("--only", default="", help="formats, with commas between them")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "melange-mutations")
    parser.add_argument("--limit-s", type=float, default=float("inf"), help="stop after this time")
    given = parser.parse_args()
    os.environ["MELANGE_CACHE"] = tempfile.mkdtemp()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder)
        known = [one for one in formats(folder) if not given.only or one.name in given.only.split(",")]
        places = _Places(known, given.seed, is_every_key=given.every_key)
        run = _Run(places, folder, given.seed, given.keep)
        begun, end = time.monotonic(), given.first + given.count
        if given.every_key:
            end = min(end, len(places.all) + 1)
        for first in range(given.first, end, _EACH):
            run.batch(range(first, min(first + _EACH, end)), begun + given.limit_s)
            took_s = time.monotonic() - begun
            if took_s > given.limit_s:
                break
            report(
                f"{run.tried} files, {run.found.total()} findings, {took_s:.0f} s; at most {run.slowest_s:.1f} s of "
                f"CPU time and {run.peak >> 20:,} MiB a file"
            )
    kinds, total = len(run.found), run.found.total()
    report(f"{run.tried} files of {len(known)} formats, seed {given.seed}: {total} findings of {kinds} kinds")
    sys.exit(1 if run.found else 0)


if __name__ == "__main__":
    main()
