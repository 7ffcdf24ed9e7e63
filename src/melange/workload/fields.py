"""Fields of a log beyond plain columns: nested fields, sums of fields, and row filters."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from melange.errors import InputError
from melange.workload.dialects import DUCKDB, as_number, only_in_duckdb

# Deepest level of nested objects that is searched: OpenAI's batches have three. Chosen by judgment.
_DEEPEST = 5
Choice = str | int | float | bool | None | Sequence[str | int | float | bool | None]
# Values of a flag that is not set, in lower case.
_UNSET = ("false", "f", "0", "no", "none", "null", "")
_BROKEN = "not JSON: "  # before the text of a cell in which a size would lie


def nested_names(content: object, prefix: str = "", depth: int = 0) -> dict[str, None]:
    """The dotted names of everything within an object.

    >>> list(nested_names({"id": 1, "usage": {"prompt_tokens": 9, "details": {"cached": 2}}}))
    ['usage.prompt_tokens', 'usage.details', 'usage.details.cached']
    """
    names: dict[str, None] = {}
    if not isinstance(content, dict) or depth > _DEEPEST:
        return names
    for key, value in content.items():
        name = f"{prefix}{key}"
        if prefix:
            names[name] = None
        names |= nested_names(value, f"{name}.", depth + 1)
    return names


def nested_in_cells(rows: Iterable[Mapping[str, Any]]) -> dict[str, None]:
    """The dotted names in cells of text that hold JSON objects."""
    names: dict[str, None] = {}
    for row in rows:
        for column, cell in row.items():
            if isinstance(cell, str) and cell.startswith("{"):
                try:
                    names |= nested_names({column: json.loads(cell)})
                except (ValueError, RecursionError):
                    continue
    return names


def nested_in_schema(schema: Mapping[str, Any]) -> dict[str, None]:
    """The dotted names in columns that are structs."""
    names: dict[str, None] = {}
    for column, kind in schema.items():
        names |= _within(column, kind)
    return names


def _within(name: str, kind: Any) -> dict[str, None]:
    """The dotted names within a type."""
    names: dict[str, None] = {}
    if kind.is_struct():
        for field, inner in kind.fields.items():
            names[f"{name}.{field}"] = None
            names |= _within(f"{name}.{field}", inner)
    return names


def parts_of(name: str) -> list[str]:
    """The terms of a sum such as ``usage.input + usage.cached``; for any other name, the name itself."""
    return [part.strip() for part in name.split(" + ")]


def with_fields(
    table: Any,
    names: Iterable[str],
    where: Mapping[str, Choice] | None = None,
    dialect: str = DUCKDB,
    sizes: Collection[str] = (),
) -> Any:
    """The table with these fields as columns, and only with the rows that ``where`` selects.

    Parameters
    ----------
    table
        An Ibis table.
    names
        Columns, nested fields (``usage.prompt_tokens``) or sums of either, spelled as in the table.
    where
        Required content of a row, by field: a value, or a list of allowed values; text is compared without case.
        ``false`` selects rows that are not marked true, and null selects rows without a value.
    dialect
        The database, as Ibis calls it.
    sizes
        Fields whose value is text that is no number, rather than missing, if it would lie in a cell that is not JSON.

    Raises
    ------
    InputError
        An empty list of allowed values.
    """
    import ibis

    wanted = dict.fromkeys([*names, *(where or {})])
    new = {name: _field(table, name, dialect, name in sizes) for name in wanted if name not in table.columns}
    if new:
        table = table.mutate(**new)
    conditions = [_holds(name, table[name], choice, dialect) for name, choice in (where or {}).items()]
    return table.filter(ibis.and_(*conditions)) if conditions else table


def _field(table: Any, name: str, dialect: str, is_size: bool) -> Any:
    """A nested field or a sum as an expression."""
    import ibis

    parts = parts_of(name)
    if len(parts) == 1:
        return _nested(table, name, dialect, is_size)
    terms = [
        _term(table[part] if part in table.columns else _nested(table, part, dialect, is_size), dialect)
        for part in parts
    ]
    total = terms[0].fill_null(0.0)
    for term in terms[1:]:
        total = total + term.fill_null(0.0)
    # A request without any of the terms has no size, rather than a size of 0.
    return ibis.cases((ibis.or_(*(term.notnull() for term in terms)), total), else_=ibis.null("float64"))


def _term(column: Any, dialect: str) -> Any:
    """A term of a sum as a number: NaN if it is something else, null if it is missing."""
    import ibis

    number = _number(column, dialect)
    if column.type().is_numeric():
        return number
    return ibis.cases((number.notnull(), number), (column.notnull(), float("nan")), else_=ibis.null("float64"))


def _number(column: Any, dialect: str = DUCKDB) -> Any:
    return json_number(column) if column.type().is_json() else as_number(column, dialect)


def _nested(table: Any, name: str, dialect: str, is_size: bool) -> Any:
    """A field within a column that is a struct, or text that holds JSON."""
    import ibis

    steps = name.split(".")
    # A column's own name may contain dots: use the longest name that exists.
    length = next(n for n in range(len(steps) - 1, 0, -1) if ".".join(steps[:n]) in table.columns)
    column, inner = table[".".join(steps[:length])], steps[length:]
    while inner and column.type().is_struct():
        column, inner = column[inner[0]], inner[1:]
    if not inner:
        return column
    only_in_duckdb(dialect, f"what lies within the text of a column ({name})")
    path = "$" + "".join(f'."{step}"' for step in inner)
    if not column.type().is_json():
        return _within_text(column, path, is_size)
    json_text = column.cast("string")
    return ibis.cases(
        (json_text.startswith("{"), _json_extract_string(json_text, path)),
        (json_text.startswith('"'), _within_text(_json_extract_string(json_text, "$"), path, is_size)),
        else_=_BROKEN + json_text if is_size else ibis.null("string"),
    )


def _within_text(column: Any, path: str, is_size: bool) -> Any:
    """The value at a path of a text that may be JSON."""
    import ibis

    return ibis.cases(
        (_json_valid(column), _json_extract_string(column, path)),
        else_=_BROKEN + column if is_size else ibis.null("string"),
    )


def json_number(column: Any) -> Any:
    """A column of JSON as numbers, null for other values. Text may hold a number; true and false do not count."""
    import ibis

    json_text = column.cast("string")
    text = ibis.cases((json_text.startswith('"'), _json_extract_string(json_text, "$")), else_=json_text)
    return text.try_cast("float64")


def _json_valid(column: Any) -> Any:
    """DuckDB's ``json_valid``."""
    import ibis

    @ibis.udf.scalar.builtin(name="json_valid", signature=(("string",), "boolean"))
    def json_valid(text):  # type: ignore[no-untyped-def] # DuckDB's own; Ibis reads the signature
        """Whether text is JSON."""

    return json_valid(column)


def _json_extract_string(column: Any, path: str) -> Any:
    """DuckDB's ``json_extract_string``."""
    import ibis

    @ibis.udf.scalar.builtin(name="json_extract_string", signature=(("string", "string"), "string"))
    def json_extract_string(text, path):  # type: ignore[no-untyped-def] # DuckDB's own; Ibis reads the signature
        """The value at a path of JSON, as text."""

    return json_extract_string(column, path)


def _holds(name: str, column: Any, choice: Choice, dialect: str) -> Any:
    """Whether a cell holds one of the selected values."""
    import ibis

    choices = list(choice) if isinstance(choice, list | tuple | set) else [choice]
    if not choices:
        raise InputError(f"where: {name} has an empty list of values", hint=f"where: {{{name}: VALUE}}")
    return ibis.or_(*(_equals(column, one, dialect) for one in choices))


def _equals(column: Any, value: object, dialect: str) -> Any:
    """Whether a cell holds one value."""
    import ibis

    text = column.cast("string").strip().lower()
    if value is None:
        return column.isnull() | text.isin(["", "null", "none"])
    if value is False:
        return column.isnull() | text.isin(list(_UNSET))
    if value is True:
        return text.isin(["true", "t", "1", "yes"]).fill_null(False)
    if isinstance(value, int | float):
        return (_number(column, dialect) == ibis.literal(float(value))).fill_null(False)
    return (text == str(value).strip().lower()).fill_null(False)


def in_words(where: Mapping[str, Choice]) -> str:
    """The row filter in words.

    >>> in_words({"model": ["a", "b"], "cache_hit": False})
    'model = a or b, cache_hit = false'
    """
    told = []
    for name, choice in where.items():
        choices = list(choice) if isinstance(choice, list | tuple | set) else [choice]
        told.append(f"{name} = {' or '.join(_word(one) for one in choices)}")
    return ", ".join(told)


def _word(value: object) -> str:
    """A value as written in YAML."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
