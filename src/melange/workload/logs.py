"""Request logs as Ibis tables: Parquet, CSV and JSONL files in DuckDB, or a table that the caller provides."""

from __future__ import annotations

import glob
import tempfile
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melange.errors import UNPRINTABLE, InputError, MelangeError
from melange.files import path_of
from melange.paths import files_below
from melange.records import placed
from melange.workload.dialects import DUCKDB
from melange.workload.fields import nested_in_cells, nested_in_schema, nested_names
from melange.workload.file_kinds import kind_by_suffix, kind_of
from melange.workload.first_lines import FIRST, csv_header, first_objects, first_rows, is_array, numbers_of
from melange.workload.object_storage import fetch, remote_url
from melange.workload.packed import check_packed, check_promise, check_width
from melange.workload.parquet_durations import with_durations
from melange.workload.plain_copies import plain_files
from melange.workload.spans import KEY, read_spans
from melange.workload.warehouse import WarehouseTable, without_secrets

# DuckDB's memory limit, so that reading any log keeps the process below 1 GiB.
_MEMORY_LIMIT = "600MB"
# Tables of CSV lines that DuckDB rejects: for their shape, or, when reading with types, also for a cell.
REJECTS, TYPED_REJECTS = "reject_errors", "typed_rejects"
DAMAGED = "the file looks truncated or damaged: copy or export it again"
_TABLE = "trace"  # the name of an Ibis table in errors
Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A request log, ready to be queried.

    Parameters
    ----------
    table
        The Ibis table; text files give strings in every column.
    columns
        Names of its columns.
    nested
        Dotted names of fields within columns that are structs or hold JSON: ``usage.prompt_tokens``.
    place
        The log, as errors name it.
    kind
        ``parquet``, ``csv``, ``jsonl``, ``json`` (a list), ``spans`` (of OpenTelemetry) or ``table``.
    files
        The files of the log; empty for a table.
    sources
        The files that are read: ``files``, or copies of them (:mod:`melange.workload.plain_copies`).
    is_even
        Whether these are copies in which all line ends are alike.
    numbers
        Columns of a text file whose first values are numbers (JSON: anything but text).
    connection
        The DuckDB connection through Ibis; None for a table, which has its own connection.
    dialect
        The database, as Ibis calls it.
    """

    table: Any
    columns: tuple[str, ...]
    place: str
    kind: str
    nested: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    sources: tuple[Path, ...] = ()
    is_even: bool = False
    numbers: tuple[str, ...] = ()
    connection: Any = None
    dialect: str = DUCKDB

    @property
    def is_text(self) -> bool:
        """Whether the log is CSV or JSON."""
        return self.kind not in ("parquet", "table")

    @property
    def fields(self) -> tuple[str, ...]:
        """Everything that can be named: columns and the fields nested in them."""
        return (*self.columns, *self.nested)

    @property
    def name(self) -> str:
        """The name of the log in a source: the file, or the table."""
        return Path(self.place).name if self.files else "Ibis table" if self.place == _TABLE else self.place


@contextmanager
def opened(trace: object, progress: Progress | None = None) -> Iterator[Log]:
    """Open a log while it is read, and report progress; an InputError names the log if it cannot be read.

    Raises
    ------
    InputError
        As for :func:`open_log`; a database error, without secrets; a refusal by object storage.
    """
    if (url := remote_url(trace)) is not None:
        with _copied(url, progress) as log, reported(log, progress):
            yield log
        return
    if not isinstance(trace, WarehouseTable):
        log = open_log(trace)
        with readable(log.place), placed(log.place), reported(log, progress):
            yield log
        return
    said, backend = "", None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # drivers warn about each other's versions
            backend = trace.connect()
            yield _log_of(trace.read(backend), trace.place, trace.dialect)
    except MelangeError:
        raise
    except Exception as error:  # drivers raise errors of any kind
        said = without_secrets(f"{error}" or type(error).__name__, trace.secrets())
    finally:
        if backend is not None and trace.dialect != "pyspark":  # a Spark session belongs to the process
            with suppress(Exception):
                backend.disconnect()
    if said:  # raised outside of the handler: the original traceback would contain the secret
        raise InputError(f"{trace.place}: cannot be read: {said}", hint="check workload.connection and workload.table")


@contextmanager
def _copied(url: str, progress: Progress | None) -> Iterator[Log]:
    """Read a log in object storage from a local copy; errors name the original files."""
    found = fetch(url, lambda file: kind_by_suffix(file) is not None, progress)
    try:
        with readable(url):
            _check_filled(found.files)
            yield open_files(connect(), found.files, url)
    except InputError as error:
        raise InputError(found.named(f"{error}"), hint=found.named(error.hint)) from error


def _log_of(table: Any, place: str, dialect: str = DUCKDB) -> Log:
    nested = tuple(nested_in_schema(dict(table.schema().items())))
    return Log(table=table, columns=tuple(table.columns), nested=nested, place=place, kind="table", dialect=dialect)


def open_log(trace: object) -> Log:
    """Open a path, a folder or glob of files, or an Ibis table.

    Raises
    ------
    InputError
        A missing, empty or unreadable file; files of different kinds.
    """
    if not isinstance(trace, str | Path):
        if not hasattr(trace, "to_pyarrow") or not hasattr(trace, "columns"):
            raise InputError(f"a trace is a path or an Ibis table, got {type(trace).__name__}")
        return _log_of(trace, _TABLE)
    files = _find_files(trace)
    return open_files(connect(), files, str(trace))


def connect() -> Any:
    """A DuckDB connection through Ibis, in UTC and within the memory limit."""
    import ibis

    connection = ibis.duckdb.connect(memory_limit=_MEMORY_LIMIT, temp_directory=tempfile.gettempdir())
    connection.con.execute("SET TimeZone = 'UTC'")
    return connection


def _find_files(trace: str | Path) -> tuple[Path, ...]:
    """The files in a path, a folder or a glob, sorted.

    Raises
    ------
    InputError
        There is no file, or a file is empty.
    """
    path = path_of(trace)
    if path.is_dir():
        found = [file for file in files_below(path) if kind_by_suffix(file) and not file.name.startswith((".", "_"))]
        if not found:
            raise InputError(f"{path}: no Parquet, CSV or JSONL file in this folder")
    elif path.exists():
        found = [path]
    else:
        found = [Path(name) for name in glob.glob(str(trace), recursive=True)]  # noqa: PTH207 (an absolute pattern)
        if not found:
            raise InputError(f"{trace}: no such file", hint="give a file, a folder or a pattern such as logs/*.parquet")
    _check_filled(found)
    return tuple(sorted(found))


def _check_filled(files: Sequence[Path]) -> None:
    for file in files:
        if not file.is_file():
            raise InputError(f"{file}: is not a regular file", hint="save the log to a file")
        if file.stat().st_size == 0:
            raise InputError(f"{file}: the file is empty")


def open_files(connection: Any, files: Sequence[Path], place: str, *, is_even: bool = False) -> Log:
    """Open files of one kind as one table."""
    with readable(place):
        for file in files:
            if file.suffix.lower() == ".gz":
                check_packed(file)
    kinds = {kind_of(file) for file in files}
    if len(kinds) > 1:
        raise InputError(f"{place}: contains files of different kinds: {', '.join(sorted(kinds))}")
    kind = kinds.pop()
    numbers: list[str] = []
    with readable(place):
        sources = plain_files(connection, files, kind, is_even=is_even)
        if kind == "parquet":
            for file in files:
                _check_parquet(connection, file)
            table = with_durations(connection, _read_parquet(connection, files), files)
            nested = _nested_in_parquet(table)
        elif kind == "csv":
            table = read_csv(connection, sources)
            first = first_rows(files[0])
            nested, numbers = nested_in_cells(first), numbers_of(first)
        else:
            objects = first_objects(files[0])
            nested = dict.fromkeys(name for one in objects for name in nested_names(one))
            if KEY in objects[0]:
                table = read_spans(connection, sources)
                return Log(
                    table=table,
                    columns=tuple(table.columns),
                    place=place,
                    kind="spans",
                    files=tuple(files),
                    sources=sources,
                    connection=connection,
                )
            columns = dict.fromkeys(key for one in objects for key in one)
            check_width(files[0], len(columns))
            if broken := [name for name in columns if UNPRINTABLE.search(name)]:
                raise InputError(f"{files[0]}: the name {broken[0][:60]!a} of a field contains an invalid character")
            folded = {name.casefold(): name for name in columns}
            if alike := [name for name in columns if folded[name.casefold()] != name]:
                both = f"{alike[0][:60]!r} and {folded[alike[0].casefold()][:60]!r}"
                raise InputError(f"{files[0]}: the fields {both} differ only in case", hint="rename one of them")
            texts = {key for one in objects for key, value in one.items() if isinstance(value, str)}
            numbers = [name for name in columns if name not in texts]
            kind = "json" if is_array(files[0]) else kind
            table = read_json(connection, sources, dict.fromkeys(columns, "VARCHAR"), kind)
        return Log(
            table=table,
            columns=tuple(table.columns),
            nested=tuple(nested),
            place=place,
            kind=kind,
            files=tuple(files),
            sources=sources,
            is_even=is_even,
            numbers=tuple(numbers),
            connection=connection,
        )


def _check_parquet(connection: Any, file: Path) -> None:
    """Reject a file whose metadata claims far more content than its size allows for a log."""
    name = str(file)
    rows, packed = (
        int(connection.con.execute(query, [name]).fetchall()[0][0] or 0)
        for query in (
            "SELECT sum(num_rows) FROM parquet_file_metadata(?)",
            "SELECT sum(total_uncompressed_size) FROM parquet_metadata(?)",
        )
    )
    check_promise(file, rows, packed)
    found = connection.con.execute(
        "SELECT count(*) FROM parquet_schema(?) WHERE num_children IS NULL", [name]
    ).fetchall()
    check_width(file, int(found[0][0]))


def _read_parquet(connection: Any, files: Sequence[Path]) -> Any:
    """Parquet files as one table; times in nanoseconds with a zone, which Ibis does not know, in microseconds."""
    table = connection.read_parquet([str(file) for file in files], union_by_name=True)
    unknown = [name for name, kind in table.schema().items() if kind.is_unknown()]
    if not unknown:
        return table
    view = '"' + table.get_name().replace('"', '""') + '"'
    kinds = {name: kind for name, kind, *_ in connection.con.execute(f"DESCRIBE {view}").fetchall()}
    quoted = ['"' + name.replace('"', '""') + '"' for name in unknown if kinds[name].startswith("TIMESTAMP")]
    casts = ", ".join(f"CAST({name} AS TIMESTAMPTZ) AS {name}" for name in quoted)
    if not casts:
        return table
    connection.con.execute(f"CREATE OR REPLACE TEMP VIEW zoned_times AS SELECT * REPLACE ({casts}) FROM {view}")
    return connection.table("zoned_times")


def _nested_in_parquet(table: Any) -> dict[str, None]:
    """Dotted names within structs, and within text that holds JSON."""
    schema = dict(table.schema().items())
    texts = [name for name, kind in schema.items() if kind.is_string() or kind.is_json()]
    rows = table.select(*texts).limit(FIRST).to_pyarrow().to_pylist() if texts else []
    return nested_in_schema(schema) | nested_in_cells(rows)


def read_csv(connection: Any, files: Sequence[Path], kinds: Mapping[str, str] | None = None, **options: Any) -> Any:
    """CSV files as one table of text, except for columns to which ``kinds`` gives another DuckDB type.

    Raises
    ------
    InputError
        The first lines of the files differ.
    """
    delimiter, names = csv_header(files[0])
    check_width(files[0], len(names))
    for file in files[1:]:
        if csv_header(file) != (delimiter, names):
            raise InputError(f"{file}: columns differ from those of {files[0]}")
    # The shape is fixed, not guessed; lines of another shape are rejected with their numbers.
    return connection.read_csv(
        [str(file) for file in files],
        columns=dict.fromkeys(names, "VARCHAR") | dict(kinds or {}),
        auto_detect=False,
        delim=delimiter,
        quote='"',
        escape='"',
        store_rejects=True,
        rejects_limit=0,
        **({"header": True} | options),
    )


def read_json(connection: Any, files: Sequence[Path], kinds: Mapping[str, str], kind: str) -> Any:
    """JSON files (``jsonl``, or ``json``: a list) as one table, with the given DuckDB types by field."""
    # A line that is not JSON becomes a row of nulls, and is reported as such.
    return connection.read_json(
        [str(file) for file in files],
        columns=dict(kinds),
        format="array" if kind == "json" else "newline_delimited",
        ignore_errors=kind != "json",
        maximum_object_size=1 << 26,
    )


@contextmanager
def readable(place: str) -> Iterator[None]:
    """Turn read errors of DuckDB and the file system into an InputError that names the log."""
    import duckdb

    try:
        with warnings.catch_warnings():
            # Ibis 12 calls fetch_arrow_table, which DuckDB 2 deprecates; we cannot fix this here.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except (OSError, EOFError, zlib.error, RuntimeError, UnicodeError) as error:  # damaged gzip; errors within DuckDB
        raise InputError(f"{place}: cannot be read: {error}") from error
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        damaged = any(sign in reason for sign in ("magic bytes", "arquet", "TProtocol", "GZIP", "gzip", "corrupt"))
        raise InputError(f"{place}: cannot be read: {reason}", hint=DAMAGED if damaged else "") from error


@contextmanager
def reported(log: Log, progress: Progress | None) -> Iterator[None]:
    """Report to ``progress`` the fraction of the current query that is done (0-1), ten times a second."""
    if progress is None or log.connection is None:
        yield
        return
    connection = log.connection.con
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            percent = connection.query_progress()
            if percent >= 0:
                progress(percent / 100)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    progress(1.0)
