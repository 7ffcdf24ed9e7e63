"""Logs of gateways: nested fields, rows chosen by what they hold, and the layouts of LiteLLM, Langfuse and OpenAI."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.fields import Choice
from melange.workload.traces import read_trace

Write = Callable[[str, str], Path]

LITELLM = """request_id,call_type,prompt_tokens,completion_tokens,startTime,endTime,model,status,cache_hit,metadata
r1,acompletion,1000,210,2025-05-07 12:00:00.123+00,2025-05-07 12:00:04.9+00,llama,success,False,"{""team"": ""a""}"
r2,acompletion,500,20,2025-05-07 12:00:01.2+00,2025-05-07 12:00:02+00,llama,success,,"{""team"": ""b""}"
r3,acompletion,0,0,2025-05-07 12:00:02.2+00,2025-05-07 12:00:02.3+00,llama,failure,None,"{""team"": ""a""}"
r4,acompletion,1000,210,2025-05-07 12:00:02.9+00,2025-05-07 12:00:02.91+00,llama,success,True,"{""team"": ""a""}"
r5,aembedding,300,0,2025-05-07 12:00:03.5+00,2025-05-07 12:00:03.6+00,bge,success,False,{}
r6,acompletion,8000,100,2025-05-07 12:00:09.5+00,2025-05-07 12:00:13.6+00,qwen,success,False,
"""
LANGFUSE = [
    {"id": "o1", "type": "GENERATION", "startTime": "2025-05-07T12:00:00.123Z", "model": "llama",
     "usageDetails": {"input": 1000, "output": 200, "total": 1200}},
    {"id": "o2", "type": "SPAN", "startTime": "2025-05-07T12:00:00.223Z", "usageDetails": {}, "model": None},
    {"id": "o3", "type": "GENERATION", "startTime": "2025-05-07T12:00:01.123Z", "model": "llama",
     "usageDetails": {"input": 500, "input_cached_tokens": 400, "output": 60, "output_reasoning_tokens": 30, "total":
     990}},
]  # fmt: skip
COMPLETIONS = [
    {"id": f"c{at}", "object": "chat.completion", "created": 1_746_619_200 + at, "model": "llama",
     "usage": {"prompt_tokens": 100 * (at + 1), "completion_tokens": 10, "total_tokens": 100 * (at + 1) + 10}}
    for at in range(5)
]  # fmt: skip
RESPONSES = [
    {"id": f"r{at}", "object": "response", "created_at": 1_746_619_200 + at,
     "usage": {"input_tokens": 100 * (at + 1), "output_tokens": 10}}
    for at in range(5)
]  # fmt: skip
BATCH = [{"custom_id": f"{at}", "response": {"status_code": 200, "body": one}} for at, one in enumerate(COMPLETIONS)]


def lines(objects: list[dict[str, Any]]) -> str:
    """One object a line."""
    return "\n".join(json.dumps(one) for one in objects) + "\n"


def sizes(path: Path, **more: Any) -> list[tuple[int, int]]:
    """What is replayed, in the order of time."""
    arrivals = read_arrivals(path, **more)
    return list(zip(arrivals.input_tokens.tolist(), arrivals.output_tokens.tolist(), strict=True))


def test_litellm_s_spend_logs(write: Write) -> None:
    """Cache hits reach no server; a failure and an embedding have no output and are counted as failed."""
    path = write("spend.csv", LITELLM)
    workload = read_trace(path)
    assert (workload.requests, workload.failed_requests) == (3, 2)
    assert workload.total_rate == pytest.approx(3 / 9.377)
    assert "(LiteLLM log): 3 requests where cache_hit = false" in workload.source
    assert sizes(path) == [(1000, 210), (500, 20), (8000, 100)]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"model": "llama", "status": "success", "cache_hit": False}, [(1000, 210), (500, 20)]),
        ({"model": ["llama", "qwen"]}, [(1000, 210), (500, 20), (8000, 100)]),
        ({"model": "LLAMA"}, [(1000, 210), (500, 20)]),
        ({"cache_hit": True}, [(1000, 210)]),
        ({"cache_hit": [True, False]}, [(1000, 210), (500, 20), (1000, 210), (8000, 100)]),
        ({"cache_hit": None}, [(500, 20)]),
        ({"prompt_tokens": 500}, [(500, 20)]),
        ({"metadata.team": "a"}, [(1000, 210)]),
        ({"metadata.team": "a", "cache_hit": [True, False]}, [(1000, 210), (1000, 210)]),
    ],
)
def test_rows_are_chosen_by_what_they_hold(write: Write, where: dict[str, Choice], expected: list[Any]) -> None:
    """Text without regard to case, one of several, true, not true, nothing, numbers, nested in JSON."""
    path = write("spend.csv", LITELLM)
    assert sizes(path, where=where) == expected
    assert read_trace(path, where=where, request_rate=1).requests == len(expected)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"modle": "llama"}, "missing column: 'modle' (did you mean 'model'?)"),
        ({"model": "nobody"}, "no requests where cache_hit = false, model = nobody"),
        ({"metadata.tema": "a"}, "missing column: 'metadata.tema' (did you mean 'metadata.team'?)"),
    ],
)
def test_choices_that_choose_nothing_are_errors(write: Write, where: dict[str, Choice], message: str) -> None:
    """An unknown field is named with the nearest, and a value that no row has with what was chosen."""
    with pytest.raises(InputError) as caught:
        read_trace(write("spend.csv", LITELLM), where=where)
    assert message in str(caught.value)


def test_langfuse_s_observations(write: Write) -> None:
    """Spans are no requests; what was cached is part of the prompt, what was reasoned of the completion."""
    path = write("langfuse.jsonl", lines(LANGFUSE))
    assert sizes(path) == [(1000, 200), (900, 90)]
    assert read_trace(path).total_rate == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("objects", "name"), [(COMPLETIONS, "completions"), (RESPONSES, "responses"), (BATCH, "batch")]
)
def test_openai_s_objects(write: Write, objects: list[dict[str, Any]], name: str) -> None:
    """Completions, responses and results of a batch, each with its usage in another place."""
    path = write("log.jsonl", lines(objects))
    assert sizes(path) == [(100, 10), (200, 10), (300, 10), (400, 10), (500, 10)]
    workload = read_trace(path)
    assert workload.total_rate == pytest.approx(5 / 4)
    assert f"(OpenAI {name})" in workload.source


def test_nested_fields_can_be_named_in_every_kind_of_file(write: Write, tmp_path: Path) -> None:
    """JSON objects, structs of Parquet, JSON in cells of a CSV, and an Ibis table; a dotted column is itself."""
    rows = [{"at": float(i), "u": {"in": {"n": 10 * (i + 1)}, "out": 5}} for i in range(4)]
    named = {"arrival": "at", "input": "u.in.n", "output": "u.out"}
    expected = [(10, 5), (20, 5), (30, 5), (40, 5)]
    assert sizes(write("log.jsonl", lines(rows)), columns=named) == expected
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "log.parquet")
    assert sizes(tmp_path / "log.parquet", columns=named) == expected
    texts = pa.Table.from_pylist([row | {"u": json.dumps(row["u"])} for row in rows])
    pq.write_table(texts, tmp_path / "texts.parquet")
    assert sizes(tmp_path / "texts.parquet", columns=named) == expected
    cells = [f'{row["at"]},"{json.dumps(row["u"]).replace(chr(34), chr(34) * 2)}"' for row in rows]
    assert sizes(write("log.csv", "\n".join(["at,u", *cells, ""])), columns=named) == expected
    assert sizes(ibis.memtable(table), columns=named) == expected  # type: ignore[arg-type]
    flat = "at,u.in,u.out\n0,1,2\n1,3,4\n"
    assert sizes(write("flat.csv", flat), columns={"arrival": "at", "input": "u.in", "output": "u.out"}) == [
        (1, 2),
        (3, 4),
    ]


def test_sizes_may_be_sums(write: Write) -> None:
    """What a gateway counts apart; a part that a row lacks is nothing."""
    text = '{"at": 0, "u": {"new": 5, "cached": 10, "out": 2}}\n{"at": 1, "u": {"new": 7, "out": 2}}\n'
    named = {"arrival": "at", "input": "u.new + u.cached", "output": "u.out"}
    assert sizes(write("log.jsonl", text), columns=named) == [(15, 2), (7, 2)]


def test_rows_without_a_nested_size_have_failed(write: Write) -> None:
    """Others are malformed, with line and field; numbers of lines are those of the file, whatever is chosen."""
    text = lines(
        [
            {"at": 0, "k": "a", "u": {"i": 5, "o": 2}},
            {"at": 1, "k": "b", "u": None},
            {"at": 2, "k": "a", "u": {"i": 7, "o": "x"}},
        ]
    )
    named = {"arrival": "at", "input": "u.i", "output": "u.o"}
    path = write("log.jsonl", text)
    with pytest.raises(InputError, match=r"1 malformed row"):
        read_trace(path, columns=named)
    with pytest.raises(InputError, match=r"log\.jsonl:3: u\.o must be a whole number >= 0, got 'x'"):
        read_trace(path, columns=named, where={"k": "a"})
    found = read_trace(write("other.jsonl", text.replace('"x"', "4")), columns=named)
    assert (found.requests, found.failed_requests) == (2, 1)
    total = {"arrival": "at", "input": "u.i + u.i", "output": "u.o + u.o"}
    with pytest.raises(InputError, match=r"1 malformed row:\n.*:3: u\.o"):
        read_trace(path, columns=total)


def test_a_cell_that_is_no_json_has_nothing_in_it(write: Write) -> None:
    """Its row is malformed, rather than that of a request that failed."""
    text = 'at,u,o\n0,"{""i"": 5}",1\n1,oops,1\n'
    with pytest.raises(InputError, match=r"log\.csv:3: u\.i must be a whole number >= 0, got 'not JSON: oops'"):
        read_trace(write("log.csv", text), columns={"arrival": "at", "input": "u.i", "output": "o"})


def test_a_list_of_objects_is_a_log_too(write: Write) -> None:
    """As an API answers; rows that are malformed are counted from the first."""
    for text in (json.dumps(COMPLETIONS), json.dumps(COMPLETIONS, indent=1)):
        assert sizes(write("log.json", text)) == [(100, 10), (200, 10), (300, 10), (400, 10), (500, 10)]
    broken = [*COMPLETIONS, {"created": 1_746_619_300, "usage": {"prompt_tokens": "x", "completion_tokens": 1}}]
    with pytest.raises(InputError, match=r"log\.json:row 6: usage\.prompt_tokens must be a whole number >= 0, got 'x'"):
        read_trace(write("log.json", json.dumps(broken)))


@pytest.mark.parametrize("text", ["[", "[]", "[1, 2]", "[{}", '[{"created": 1, "usage": {"prompt_tokens": 1'])
def test_lists_that_are_none_are_errors(write: Write, text: str) -> None:
    """Empty, of something else, or cut off."""
    with pytest.raises(InputError, match=r"log\.json"):
        read_trace(write("log.json", text))
