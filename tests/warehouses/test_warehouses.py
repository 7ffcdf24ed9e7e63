"""The same log in real databases gives the same workload, cell for cell, as in a file; passwords are never shown."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from served import PASSWORD, ROWS, Served, free_port

from melange.errors import InputError
from melange.workload.arrivals import read_arrivals
from melange.workload.over_time import read_demand
from melange.workload.traces import read_trace
from melange.workload.warehouse import WarehouseTable

WAYS = {
    "times": {"columns": {"arrival": "started_at", "input": "input_tokens", "output": "output_tokens"}},
    "numbers": {},
    "chosen": {"where": {"model": ["llama", "LLAMA-SQL"], "cache_hit": False}},
    "nulls": {"where": {"model": None, "cache_hit": True}},
    "part": {"start": "1h", "end": "70h"},
    "busiest": {"rate": "p99", "window_s": 600.0},
    "sum": {"columns": {"arrival": "arrival_s", "input": "input_tokens + output_tokens", "output": "output_tokens"}},
}
DATABASES = ["postgres", "clickhouse", "spark"]


@pytest.fixture(params=DATABASES)
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Each database."""
    monkeypatch.setenv("MELANGE_TEST_PASSWORD", PASSWORD)
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Served)
    return found


def _table(served: Served, **changes: str) -> WarehouseTable:
    return replace(WarehouseTable(table=served.table, connection=served.url), **changes)


@pytest.mark.parametrize("way", WAYS)
def test_a_table_gives_the_workload_of_the_file(served: Served, log: Path, way: str) -> None:
    """Rates, sizes, failed rows and the burstiness are the same."""
    theirs, ours = (read_trace(source, **WAYS[way]) for source in (_table(served), log))  # type: ignore[arg-type]
    assert (theirs.requests, theirs.failed_requests) == (ours.requests, ours.failed_requests)
    np.testing.assert_allclose(theirs.request_rate, ours.request_rate, rtol=1e-12)
    assert np.array_equal(theirs.request_rate > 0, ours.request_rate > 0)
    assert np.array_equal(theirs.input_tokens, ours.input_tokens)
    assert np.array_equal(theirs.output_tokens, ours.output_tokens)
    if ours.burstiness is None:  # of more than two million requests
        assert theirs.burstiness is None
    else:
        assert theirs.burstiness == pytest.approx(ours.burstiness, rel=1e-9)
    assert theirs.source.startswith(served.table)


@pytest.mark.parametrize("arrival", ["started_at", "arrival_s"])
def test_a_table_gives_the_week_of_the_file(served: Served, log: Path, arrival: str) -> None:
    """Every window has the same rate, every hour the same sizes."""
    columns = {"arrival": arrival, "input": "input_tokens", "output": "output_tokens"}
    theirs, ours = (read_demand(source, columns=columns, time_zone="Europe/Berlin") for source in (_table(served), log))
    assert theirs.start == ours.start
    np.testing.assert_allclose(theirs.rate, ours.rate, rtol=1e-12)
    assert np.array_equal(theirs.share, ours.share)
    assert np.array_equal(theirs.input_tokens, ours.input_tokens)


def test_a_table_is_replayed_as_the_file(served: Served, log: Path) -> None:
    """Request by request."""
    theirs, ours = (read_arrivals(source, requests=min(ROWS, 5000)) for source in (_table(served), log))
    assert np.array_equal(theirs.arrival_s, ours.arrival_s)
    assert np.array_equal(np.sort(theirs.input_tokens), np.sort(ours.input_tokens))


def test_malformed_rows_are_told(served: Served) -> None:
    """Without line numbers, which tables do not have."""
    columns = {"arrival": "started_at", "input": "model", "output": "output_tokens"}
    with pytest.raises(InputError, match="malformed rows"):
        read_trace(_table(served), columns=columns)


@pytest.mark.parametrize("name", ["postgres", "clickhouse"])
@pytest.mark.parametrize("fault", ["password", "table", "port", "database", "driver"])
def test_passwords_are_in_no_error(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    fault: str,
) -> None:
    """Whatever goes wrong: neither in the message, nor in what raised it, nor on the terminal."""
    served = request.getfixturevalue(name)
    held = PASSWORD if fault != "password" else "other-" + PASSWORD
    monkeypatch.setenv("MELANGE_TEST_PASSWORD", held)
    changes = {
        "table": {"table": f"logs.{held[3:8]}"},
        "port": {"connection": re.sub(r":\d+/", f":{free_port()}/", served.url)},
        "database": {"connection": served.url.rpartition("/")[0] + "/nowhere"},
        "driver": {"connection": served.url + "?no_such_option=1"},
    }.get(fault, {})
    with pytest.raises(InputError) as caught:
        read_trace(_table(served, **changes), columns={"arrival": "no_such", "input": "a", "output": "b"})
    shown = capfd.readouterr()
    said = f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r} {caught.value.__context__!r}{shown}"
    assert held not in said
    assert held.replace("/", "%2F") not in said


def test_a_workload_of_a_table_holds_no_connection(served: Served, tmp_path: Path) -> None:
    """What is saved names the table alone."""
    read_trace(_table(served)).save(tmp_path / "workload.json")
    text = (tmp_path / "workload.json").read_text()
    assert "127.0.0.1" not in text
    assert "reader" not in text
    assert not served.password or served.password not in text
