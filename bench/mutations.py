"""Fuzz test: give ``melange`` damaged files of every format that it reads, and report those it does not handle.

A finding is an exception other than one of our errors, an error that cannot be printed, a file written despite an
error, a command that takes more than 60 s of CPU time or 4 GiB, or a process that dies. Each file is kept in
``--keep``.

    python bench/mutations.py --count 100000 --seed 1 [--only plan,profile]
    python bench/mutations.py --every-key          # 24 wrong values at every key of every format

A process with everything loaded tries hundreds of files one after the other. Another process watches it, because a
library that hangs or crashes cannot be detected from within. The content of file N depends only on the seed and on N:
``--first N --count 1`` tries it again.
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
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "mutations"))

from answering import MOST_S, finding, report  # noqa: E402
from mutate import AT_EVERY_KEY, keys_of, mutated, with_value  # noqa: E402
from read_formats import Format, formats, write_valid  # noqa: E402

_MOST_MEMORY = 4 << 30
# Files per process, so that memory leaks do not add up to a finding.
_EACH = 200
# After this time without an answer, a process is considered blocked [s].
_LONGEST_WAIT_S = 1800.0
_FORK = multiprocessing.get_context("fork")


# A format, one of its keys, and a value for the key; without a key the file is damaged at random.
Place = tuple[Format, str, Any]


def _try(places: _Places, folder: Path, seed: int, numbers: Sequence[int], pipe: Connection) -> None:
    """Try files one after the other; send the number before each file, and the finding and peak memory after it."""
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
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak, so that it is that of this file
        what = finding(command, file, folder)
        if what:
            shutil.copy(file, f"{file}.found")  # before the next file overwrites it
        peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) << 10
        if not what and peak > _MOST_MEMORY:
            what = f"took {peak >> 20:,} MiB"
        pipe.send((what, peak))


def _cpu_s(worker: BaseProcess) -> float:
    """CPU time of a process so far [s]; wall-clock time would depend on other load on the machine."""
    try:
        fields = Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _answers(pipe: Connection, worker: BaseProcess, begun_s: float) -> bool:
    """Wait for an answer; False if it takes too much CPU time, or the process is blocked."""
    until = time.monotonic() + _LONGEST_WAIT_S
    while not pipe.poll(1.0):
        if _cpu_s(worker) - begun_s > MOST_S + 15 or time.monotonic() > until:
            return False
    return True


class _Places:
    """The damage by number of the file: in a random format, or each wrong value at each key in shuffled order."""

    def __init__(self, known: Sequence[Format], seed: int, *, is_every_key: bool) -> None:
        self.known = known
        self.all: list[Place] = []
        if is_every_key:
            keys = [(one, key) for one in known for key in keys_of(one.text, one.suffix.rpartition(".")[2])]
            self.all = [(one, key, value) for one, key in keys for value in AT_EVERY_KEY]
            random.Random(seed).shuffle(self.all)

    def of(self, number: int, rng: random.Random) -> Place:
        """The damage in file ``number`` (from 1)."""
        return self.all[number - 1] if self.all else (rng.choice(self.known), "", None)


class _Run:
    """Processes that try files, and their findings."""

    def __init__(self, places: _Places, folder: Path, seed: int, keep: Path) -> None:
        self.places, self.folder, self.seed, self.keep = places, folder, seed, keep
        self.found: Counter[str] = Counter()
        self.tried, self.peak, self.slowest_s, self.slowest = 0, 0, 0.0, ""

    def batch(self, numbers: Sequence[int], until: float) -> None:
        """Try these files; a file that ends its process is a finding, and a new process continues after it."""
        left = list(numbers)
        while left and time.monotonic() < until:
            ours, theirs = _FORK.Pipe(duplex=False)
            worker = _FORK.Process(target=_try, args=(self.places, self.folder, self.seed, left, theirs))
            worker.start()
            theirs.close()
            left = self._watch(worker, ours, left, until)
            ours.close()

    def _watch(self, worker: BaseProcess, pipe: Connection, left: list[int], until: float) -> list[int]:
        while left and time.monotonic() < until:
            number, name, words, file = left[0], "?", "?", ""
            try:
                number, name, words, file = pipe.recv()
                begun_s = _cpu_s(worker)
                what, peak = pipe.recv() if _answers(pipe, worker, begun_s) else ("no answer: killed", 0)
                took_s = _cpu_s(worker) - begun_s
                if took_s > self.slowest_s:
                    self.slowest_s, self.slowest = took_s, f"{number}, {name} | {words}"
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
    """Write the valid files in a separate process, so that its threads are not in the others."""
    import duckdb  # noqa: F401 # loaded once instead of in every process
    import ibis  # noqa: F401

    writer = _FORK.Process(target=_write, args=(folder,))
    writer.start()
    writer.join()
    if writer.exitcode:
        raise SystemExit("the valid files cannot be written")


def main() -> None:
    """Run, and exit with 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000, help="number of files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=1, help="number of the first file")
    parser.add_argument("--every-key", action="store_true", help="wrong values at every key, in a random order")
    parser.add_argument("--only", default="", help="formats, separated by commas")
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
                f"CPU time and {run.peak >> 20:,} MiB per file"
            )
    kinds, total = len(run.found), run.found.total()
    report(f"{run.tried} files of {len(known)} formats, seed {given.seed}: {total} findings of {kinds} kinds")
    report(f"slowest, {run.slowest_s:.1f} s: {run.slowest}")
    sys.exit(1 if run.found else 0)


if __name__ == "__main__":
    main()
