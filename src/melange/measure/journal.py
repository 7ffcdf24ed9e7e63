"""The journal of a campaign: one line per load point, written to disk before the next one is sent."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path
from typing import IO, Any

from melange.errors import InputError
from melange.files import Json
from melange.measure.point import Point
from melange.measure.search import Found, Step
from melange.measure.subject import Bucket
from melange.parsing import parse_json
from melange.profile.measurement import JOURNAL, Measurement
from melange.records import record, whole


class Journal:
    """A file that grows by one line per load point; a campaign that continues reads it again.

    The first line says what is measured. A last line that a crash cut short is dropped.

    Parameters
    ----------
    path
        The file; created if it does not exist.
    header
        What is measured: the journal of another campaign is rejected.

    Raises
    ------
    InputError
        The file is not a journal, or belongs to another campaign.
    """

    def __init__(self, path: Path, header: Json) -> None:
        self.path = path
        self.guess_by_bucket: dict[Bucket, float | None] = {}
        self.found_by_bucket: dict[Bucket, Found] = {}
        self.searched: dict[Bucket, Measurement] = {}
        self._points: dict[Bucket, list[tuple[Step, Point]]] = defaultdict(list)
        self._header = {"melange": JOURNAL, **header}
        self._stream: IO[str] = self._open()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def begin(self, bucket: Bucket, size: tuple[int, int], guess: float | None) -> None:
        """Record that a search begins; ``size`` is input and output [tokens], ``guess`` is the expected rate [1/s]."""
        self._write({"bucket": list(bucket), "size": list(size), "guess": guess})

    def add(self, bucket: Bucket, step: Step, point: Point) -> None:
        """Record a measured load point."""
        told = {"rate": step.rate, "latency_s": step.latency_s, "is_far": step.is_far}
        self._write({"bucket": list(bucket), "step": told, "point": point.to_json()})

    def end(self, bucket: Bucket, found: Found, measurement: Measurement) -> None:
        """Record that a search has ended; ``measurement`` is its result as a load point."""
        self._write({"bucket": list(bucket), "found": found.to_json(), "measurement": measurement.to_json()})

    def recorded(self, bucket: Bucket, step: Step) -> Point | None:
        """The point that was measured for a step of a search; None if the step was not measured yet."""
        wanted = (step.rate, step.is_far)
        return next((point for told, point in self._points[bucket] if (told.rate, told.is_far) == wanted), None)

    def points(self, bucket: Bucket) -> list[Point]:
        """The points of one bucket, in the order of measurement."""
        return [point for _, point in self._points[bucket]]

    @property
    def count(self) -> int:
        """Number of load points in the journal."""
        return sum(map(len, self._points.values()))

    def unfinished(self) -> Bucket | None:
        """The bucket at which a campaign was interrupted; None if it stopped between two buckets."""
        return next((bucket for bucket in self.guess_by_bucket if bucket not in self.found_by_bucket), None)

    def _open(self) -> IO[str]:
        whole = 0
        if self.path.exists() and (content := self.path.read_bytes()):
            lines = content.split(b"\n")[:-1]
            for number, line in enumerate(lines, 1):
                self._read(line, number)
                whole += len(line) + 1
        try:
            stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written: {error.strerror}") from error
        stream.truncate(whole)
        self._stream = stream
        if not whole:
            self._write(self._header)
        return stream

    def _read(self, line: bytes, number: int) -> None:
        place = f"{self.path}:{number}"
        try:
            content = parse_json(line.decode(), place)
            if number == 1:
                self._check(content)
            else:
                self._take(content)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{place}: not a line of a measurement journal", hint="choose another file with --journal"
            ) from error

    def _check(self, content: Json) -> None:
        if content.get("melange") != JOURNAL:
            raise InputError(f"{self.path}: is not a measurement journal", hint="choose another file with --journal")
        for key, value in json.loads(json.dumps(self._header)).items():
            if content.get(key) != value:
                raise InputError(
                    f"{self.path}: was started with {key} {_short(content.get(key))}, but now it is {_short(value)}",
                    hint="use the same value, or choose another file with --journal",
                )

    def _write(self, content: Json) -> None:
        self._stream.write(json.dumps(content, allow_nan=False) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        if "bucket" in content:
            self._take(content)

    def _take(self, content: Json) -> None:
        i, o = content["bucket"]
        bucket = (whole(i, "bucket"), whole(o, "bucket"))
        if "point" in content:
            step = record(Step, content["step"], "step")
            self._points[bucket].append((step, Point.from_json(content["point"])))
        elif "found" in content:
            self.found_by_bucket[bucket] = Found.from_json(content["found"])
            self.searched[bucket] = Measurement.from_json(content["measurement"])
        else:
            self.guess_by_bucket[bucket] = content["guess"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
