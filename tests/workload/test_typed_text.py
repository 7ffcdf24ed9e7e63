from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn_logs import draw_log

from melange.errors import InputError
from melange.workload import typed_text
from melange.workload.traces import read_trace

Write = Callable[[str, str], Path]


def _answer(path: Path, how: dict[str, object]) -> str:
    """The workload in full, or the error in full."""
    try:
        return json.dumps(read_trace(path, **how).to_json())  # type: ignore[arg-type]
    except InputError as error:
        return f"{error} {error.hint}"


def _as_text(patch: pytest.MonkeyPatch) -> None:
    """Every column is text, and is parsed as text."""
    patch.setattr(
        typed_text,
        "parsed_text",
        lambda log, layout: (
            log,
            typed_text._stored(log, typed_text.role_columns(typed_text._as_text(log, layout, log.table), layout)),
        ),
    )


def _check_seeds(folder: Path, seeds: range) -> None:
    for seed in seeds:
        path, how = draw_log(folder, seed)
        fast = _answer(path, how)
        with pytest.MonkeyPatch.context() as patch:
            _as_text(patch)
            assert fast == _answer(path, how), f"seed {seed}"


def test_typed_and_text_read_alike(tmp_path: Path) -> None:
    """Drawn logs with quotes, blanks, mixed types and bad rows: the same workload, or the same error."""
    _check_seeds(tmp_path, range(5))


@pytest.mark.heavy
def test_many_typed_and_text_read_alike(tmp_path: Path) -> None:
    """The same for two hundred more."""
    _check_seeds(tmp_path, range(100, 300))


def test_rows_that_do_not_count_may_hold_anything(write: Write) -> None:
    """Numbers are read as such, and lines of which one cannot be read are text: those that count are read so."""
    lines = [f"{n},{100 + n},20,a" for n in range(300)]
    lines[200] = "oops,many,,b"
    lines[201] = '"201",1_00," 20 ",a'
    lines[202] = "1970-01-01 00:03:22Z,302,20,a"
    path = write("log.csv", "arrival_s,input_tokens,output_tokens,kind\n" + "\n".join(lines) + "\n")
    workload = read_trace(path, where={"kind": "a"})
    assert workload.requests == 299
    inputs = sum(100 + n for n in range(300)) - 300 - 301 + 100
    assert workload.input_token_rate / workload.total_rate * 299 == pytest.approx(inputs)
    assert workload.total_rate == pytest.approx(299 / 299)


def test_true_is_no_number(write: Write) -> None:
    """JSON's true and false are not 1 and 0."""
    rows = [{"arrival_s": n, "input_tokens": 5, "output_tokens": True if n == 7 else 1} for n in range(9)]
    path = write("log.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError, match=r"log\.jsonl:8: output_tokens must be a whole number >= 0, got 'true'"):
        read_trace(path)


def test_burstiness_of_rows_in_any_order(write: Write) -> None:
    """Gaps of 1 s and 3 s in turn, shuffled: 0.5."""
    times = np.random.default_rng(1).permutation([4 * (n // 2) + n % 2 for n in range(401)])
    path = write("log.csv", "arrival_s,input_tokens,output_tokens\n" + "".join(f"{t},5,5\n" for t in times))
    assert read_trace(path).burstiness == pytest.approx(0.5)
