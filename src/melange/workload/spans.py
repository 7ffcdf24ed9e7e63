"""Spans of OpenTelemetry (OTLP JSON, one export per line) as a table with a row for each span.

Attributes follow the semantic conventions for generative AI; their earlier names for token counts are accepted too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

KEY = "resourceSpans"
# Attributes that become columns, each with its earlier names.
_ATTRIBUTES = {
    "gen_ai.request.model": (),
    "gen_ai.response.model": (),
    "gen_ai.provider.name": ("gen_ai.system",),
    "gen_ai.conversation.id": (),
    "gen_ai.usage.cache_read.input_tokens": (),
    "error.type": (),
}
_TOKENS = {
    "gen_ai.usage.input_tokens": ("gen_ai.usage.prompt_tokens",),
    "gen_ai.usage.output_tokens": ("gen_ai.usage.completion_tokens",),
}
_OPERATION = "gen_ai.operation.name"
_SHAPE = '[{"key":"VARCHAR","value":{"stringValue":"VARCHAR","intValue":"VARCHAR","doubleValue":"VARCHAR"}}]'


def read_spans(connection: Any, files: Sequence[Path]) -> Any:
    """Read the spans of files; a span without token counts, such as one of a failed operation, has 0 tokens."""
    names = ", ".join(_text(str(file)) for file in files)
    by_name = {name: _first(name, *earlier) for name, earlier in (_ATTRIBUTES | _TOKENS).items()}
    has_tokens = " OR ".join(f"{by_name[name]} IS NOT NULL" for name in _TOKENS)
    operation = f"coalesce({_first(_OPERATION)}, CASE WHEN {has_tokens} THEN 'chat' END)"
    columns = [f'{operation} AS "{_OPERATION}"']
    for name, found in by_name.items():
        value = f"coalesce({found}, CASE WHEN {operation} IS NOT NULL THEN '0' END)" if name in _TOKENS else found
        columns.append(f'{value} AS "{name}"')
    connection.raw_sql(
        "CREATE OR REPLACE TEMP VIEW spans AS SELECT json_extract_string(span, '$.name') AS name, "
        "TRY_CAST(json_extract_string(span, '$.startTimeUnixNano') AS BIGINT) AS \"startTimeUnixNano\", "
        f"{', '.join(columns)} FROM (SELECT span, from_json(json_extract(span, '$.attributes'), '{_SHAPE}') AS held "
        f"FROM (SELECT unnest(json_extract({KEY}, '$[*].scopeSpans[*].spans[*]')) AS span FROM read_json([{names}], "
        f"columns = {{{KEY}: 'JSON'}}, format = 'newline_delimited', ignore_errors = true, "
        "maximum_object_size = 67108864)))"
    )
    return connection.table("spans")


def _first(*names: str) -> str:
    """The value of the first of these attributes that exists in a span, as text."""
    found = []
    for name in names:
        value = f"list_filter(held, lambda one: one.key = {_text(name)})[1].value"
        found += [f"{value}.{kind}" for kind in ("intValue", "stringValue", "doubleValue")]
    return f"coalesce({', '.join(found)})"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
