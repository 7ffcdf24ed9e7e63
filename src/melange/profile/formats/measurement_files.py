"""Files of load points from any supported tool."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from melange.errors import InputError
from melange.files import Json, dump_document, path_of, read_text, write_document
from melange.parsing import named_value, table_rows
from melange.paths import files_below
from melange.profile.formats.load_tests import points_of
from melange.profile.formats.tables import read_objects
from melange.profile.measurement import JOURNAL, LATENCIES, TEXTS, Measurement
from melange.records import reading

# Suffixes of result files in a folder, and the names of result files of tools that write other files next to them.
_SUFFIXES = (".json", ".jsonl", ".csv")
_EXPORTS = ("profile_export_aiperf.json", "profile_export_genai_perf.json")
_LATENCY_COLUMN = re.compile(r"(?P<metric>ttft|tpot|ntpot|itl|latency)_(?P<statistic>p\d{1,2}(\.\d+)?)_s")


def read_measurements(*paths: str | Path) -> tuple[Measurement, ...]:
    """Read load points from files in any known format, recognized by their content.

    Our own JSON and CSV, aiperf's ``profile_export_aiperf.json``, genai-perf's ``profile_export_genai_perf.json``,
    guidellm's ``benchmarks.json``, inference-perf's ``stage_0_lifecycle_metrics.json``, LLMPerf's summaries, results of
    ``vllm bench serve`` and of SGLang's ``bench_serving``, AIBrix's benchmark JSONL.

    Parameters
    ----------
    paths
        Files, patterns such as ``results/*.json``, or folders such as ``results``. ``NAME=PATH`` names the measured
        replica for files that do not: the name of a replica type, an accelerator (one of it), or an accelerator and a
        degree, ``"A10G tp2=PATH"``. Files within a folder are named by their subfolders
        (``results/aws/us-east-1/g6.xlarge/vllm.json``), and files directly in it by their own name (``L4.json``).

    Raises
    ------
    InputError
        No such file, an unknown format, fields that are missing or not numbers; the error names file and field.
    """
    found: list[Measurement] = []
    for one in paths:
        name, path = _named(str(one))
        is_folder = not name and path_of(path).is_dir()
        for file in _in_folder(path) if path_of(path).is_dir() else _files(path):
            with reading(file, "the results of a load test"):
                points = _read(file)
            if is_folder:
                points = [_named_by_place(point, path, file) for point in points]
            found += [_attributed(point, name) if name else point for point in points]
    return tuple(found)


def save_measurements(path: str | Path, measurements: tuple[Measurement, ...]) -> Path:
    """Write load points in our own format."""
    return write_document(path, "measurements", _document(measurements))


def dump_measurements(measurements: tuple[Measurement, ...]) -> str:
    """The text of a file in our own format."""
    return dump_document("measurements", _document(measurements))


def _document(measurements: tuple[Measurement, ...]) -> Json:
    return {"measurements": [one.to_json() for one in measurements]}


def _named(text: str) -> tuple[str, str]:
    """The name and the path in ``NAME=PATH``; a file that exists under the whole text is a path."""
    name, equals, path = named_value(text)
    return (name.strip(), path.strip()) if equals and not path_of(text).exists() else ("", text)


def _in_folder(folder: str) -> list[str]:
    """Result files in a folder and its subfolders.

    For a tool that writes many other files next to its results (aiperf, genai-perf), only files with the results' name
    count.
    """
    every = [file for file in files_below(path_of(folder)) if file.is_file() and file.suffix.casefold() in _SUFFIXES]
    of_tools = {file.parent for file in every if file.name in _EXPORTS}
    chosen = [file for file in every if file.name in _EXPORTS or not of_tools & {file.parent, *file.parents}]
    if not chosen:
        raise InputError(
            f"{folder}: the folder holds no results of a load test", hint=f"files end in {', '.join(_SUFFIXES)}"
        )
    return [str(file) for file in chosen]


def _named_by_place(point: Measurement, folder: str, file: str) -> Measurement:
    """A point; if it does not state what was measured, it is named by the place of its file."""
    if point.replica_type or point.accelerator:
        return point
    place = Path(file).relative_to(path_of(folder))
    return replace(point, replica_type=place.parent.as_posix() if place.parent.parts else place.stem)


def _files(pattern: str) -> list[str]:
    if path_of(pattern).exists():
        return [pattern]
    absolute = path_of(pattern).absolute()
    files = sorted(str(file) for file in Path(absolute.anchor).glob(str(absolute.relative_to(absolute.anchor))))
    if not files:
        raise InputError(f"{pattern}: no such file, and no matching file")
    return files


def _attributed(point: Measurement, name: str) -> Measurement:
    """The point for the replica ``name``; anchoring determines whether this is a replica type or an accelerator."""
    if point.replica_type or point.accelerator:
        said = point.replica_type or point.accelerator
        if said != name:
            raise InputError(f"{point.source}: the file says {said} was measured, but {name} was given")
        return point
    return replace(point, replica_type=name, tensor_parallel=point.tensor_parallel)


def _read(path: str) -> list[Measurement]:
    """The points of one file."""
    if Path(path).suffix.casefold() == ".csv":
        return _read_table(path)
    objects = read_objects(path, infinity=True)
    first = objects[0]
    if "melange" in first:
        if first["melange"] == JOURNAL:
            return _read_journal(objects[1:], path)
        if first["melange"] != "measurements/1":
            raise InputError(f"{path}: holds {first['melange']}; measurements/1 is needed")
        listed = first.get("measurements")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, dict) for one in listed):
            raise InputError(f"{path}: measurements must be a list of objects, at least one")
        objects, first = listed, listed[0]
    points = points_of(objects, path)
    if points is not None:
        return points
    if not ({"input_tokens", "output_tokens"} & set(first)):
        raise InputError(
            f"{path}: unknown format",
            hint="supported: melange's own format, aiperf, genai-perf, guidellm, inference-perf, LLMPerf, "
            "vllm bench serve, sglang bench_serving and AIBrix's benchmark",
        )
    places = [f"{path}[{index}]" if len(objects) > 1 else path for index in range(len(objects))]
    return [Measurement.from_json(one, place) for one, place in zip(objects, places, strict=True)]


def _read_journal(lines: list[Json], path: str) -> list[Measurement]:
    """The load points at which the server kept up, and the maximum rates found."""
    points = []
    for place, line in enumerate(lines, 2):
        point = line.get("point")
        held = point.get("measurement") if isinstance(point, dict) and point.get("keeps_up") else None
        content = line.get("measurement") or held
        if isinstance(content, dict):
            points.append(Measurement.from_json(content, f"{path}:{place}"))
    if not points:
        raise InputError(
            f"{path}: contains no measurement yet", hint="melange measure --resume continues where it was interrupted"
        )
    return points


def _read_table(path: str) -> list[Measurement]:
    """Our own CSV: one column per field, empty cells are unknown."""
    points = []
    rows = table_rows(read_text(path), path)
    _, columns = next(rows, (1, []))
    for line, row in rows:
        place = f"{path}:{line}"
        if len(row) != len(columns):
            raise InputError(f"{place}: must have {len(columns)} cells, as the first line has")
        content: Json = {}
        for column, cell in zip(columns, row, strict=True):
            if cell.strip():
                _put(content, column.strip(), cell.strip(), place)
        points.append(Measurement.from_json(content, place))
    if not points:
        raise InputError(f"{path}: contains no measurement")
    return points


def _put(content: Json, column: str, cell: str, place: str) -> None:
    found = _LATENCY_COLUMN.fullmatch(column)
    if column in TEXTS:
        content[column] = cell
    elif found:
        content.setdefault(f"{found['metric']}_s", {})[found["statistic"]] = _parsed(cell, f"{place}: {column}")
    elif column in LATENCIES:
        content.setdefault(column, {})["mean"] = _parsed(cell, f"{place}: {column}")
    elif column.startswith("slo_"):
        limit = _parsed(cell, f"{place}: {column}") if column != "slo_statistic" else cell
        content.setdefault("slo", {})[column.removeprefix("slo_")] = limit
    else:
        content[column] = _parsed(cell, f"{place}: {column}")


def _parsed(cell: str, place: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"{place} must be a number, got {cell!r}") from None
