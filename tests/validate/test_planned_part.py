"""The part of a log that a plan is made for, replayed at its own speed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from melange.cli.app import app
from melange.errors import InputError
from melange.validate.replay import planned_part
from melange.workload.arrivals import read_arrivals
from melange.workload.traces import read_trace

# An hour of one request every 2 s, in which ten minutes have four a second; names that no layout has.
_NIGHT = np.concatenate([np.arange(0, 1800, 2.0), np.arange(1800, 2400, 0.25), np.arange(2400, 3601, 2.0)])


def _write(path: Path, arrival_s: np.ndarray) -> Path:
    """A log of these arrivals."""
    rows = [f"{at + 1.7e9:.2f},{100 + n % 50},{20 + n % 7}" for n, at in enumerate(arrival_s)]
    path.write_text("\n".join(["came,prompt,answer", *rows]) + "\n")
    return path


_NAMES = {"arrival": "came", "input": "prompt", "output": "answer"}


def test_the_workload_says_which_part_its_rate_is_of(tmp_path: Path) -> None:
    """The busiest window, the window of a percentile, a part from a moment to another; all of a log is no part."""
    log = _write(tmp_path / "log.csv", _NIGHT)
    busiest = read_trace(log, rate="max", window_s=600.0, columns=_NAMES)
    assert (busiest.log_part_s, busiest.total_rate) == ((1800.0, 2400.0), 4.0)
    part = read_trace(log, start="20m", end="30m", columns=_NAMES)
    assert (part.log_part_s, part.total_rate) == ((1200.0, 1800.0), 0.5)
    assert read_trace(log, columns=_NAMES).log_part_s is None
    assert read_trace(log, request_rate=7.0, columns=_NAMES).log_part_s is None
    assert type(busiest).from_json(busiest.to_json()).log_part_s == (1800.0, 2400.0)
    assert "log_part_s" not in read_trace(log, columns=_NAMES).to_json()


def test_the_planned_part_comes_at_its_own_speed(tmp_path: Path) -> None:
    """The rows of the busy ten minutes and no others; of a log that is busy elsewhere, those of its busy ones."""
    log = read_arrivals(_write(tmp_path / "log.csv", _NIGHT), columns=_NAMES)
    part, rate = planned_part(log, (1800.0, 2400.0), 4.0)
    assert (len(part), rate) == (2400, 4.0)
    assert np.allclose(np.diff(part.arrival_s), 0.25)
    assert part.input_tokens.tolist() == log.input_tokens[900:3300].tolist()
    assert "requests 901 to 3,300, from 30 min after the first on, for 10 min" in part.source
    shifted = np.sort((_NIGHT + 1200.0) % 3602.0)
    other = read_arrivals(_write(tmp_path / "other.csv", shifted), columns=_NAMES)
    part, rate = planned_part(other, (1800.0, 2400.0), 4.0)
    assert rate == pytest.approx(4.0, rel=0.01)
    with pytest.raises(InputError, match=r"made for 10 min of a log, but this log lasts"):
        planned_part(log.first(100), (1800.0, 2400.0), 4.0)


def test_requests_that_the_plan_leaves_out_do_not_move_the_part(tmp_path: Path) -> None:
    """Time counts from the log's first request, also if the plan does not serve its size."""
    busy = np.concatenate([np.arange(1800, 2400, 0.25), np.arange(3600, 4200, 0.25)])
    rows = [(at, 3000, 10) for at in np.arange(0, 1800, 2.0)]
    rows += [(at, 100 if at < 3000 else 200, 20) for at in busy] + [(2000.1, 3000, 10), (4800.0, 3000, 10)]
    path = tmp_path / "log.csv"
    path.write_text("came,prompt,answer\n" + "".join(f"{at:.2f},{i},{o}\n" for at, i, o in rows))
    log = read_arrivals(path, columns=_NAMES)
    kept = log.chosen(np.flatnonzero(log.input_tokens < 3000))
    part, rate = planned_part(kept, (1800.0, 2400.0), 4.0, whole=log)
    assert (len(part), rate, set(part.input_tokens.tolist())) == (2400, 4.0, {100})
    assert "2,400 of requests 901 to 3,301, from 30 min after the first on, for 10 min" in part.source
    part, _ = planned_part(kept, (3600.0, 4200.0), 4.0, whole=log)
    assert set(part.input_tokens.tolist()) == {200}
    alone = kept.first(2400)  # their own ten minutes are shorter than the part, and the log is not
    assert len(planned_part(alone, (1500.0, 2400.0), 2400 / 900, whole=log)[0]) == 2400


def _validated(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    """The report of a validation."""
    capsys.readouterr()
    app(["validate", *words, "--processes", "1", "--json"], standalone_mode=False)
    report: dict[str, object] = json.loads(capsys.readouterr().out)
    return report


def test_validate_replays_the_window_that_was_planned_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the service names its fields; a log of another rate is told of, and so is one that is played faster."""
    monkeypatch.setenv("MELANGE_CACHE", str(tmp_path / "cache"))
    _write(tmp_path / "log.csv", _NIGHT)
    service = tmp_path / "service.yaml"
    service.write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 120, statistic: mean}\noffers: {gpus: [L4], providers: [aws]}\n"
        "workload:\n  trace: log.csv\n  columns: {arrival: came, input: prompt, output: answer}\n"
        "  rate: max\n  window: 10m\n"
    )
    app(["plan", str(service), "--quick", "--out", str(tmp_path / "plan.json")], standalone_mode=False)
    names = ["--columns", "arrival=came,input=prompt,output=answer"]
    report = _validated(capsys, str(tmp_path / "plan.json"), "--trace", str(tmp_path / "log.csv"), *names)
    assert re.search(r"requests 901 to 3,300", str(report["source"]))
    assert (report["requests"], report["counted"]) == (2666, 2400)  # every request of the window counts once
    assert "other-" not in str(report["warnings"])
    # The service names the fields of its log, and so of another one.
    slow = _write(tmp_path / "slow.csv", _NIGHT * 2)
    report = _validated(capsys, str(service), "--quick", "--trace", str(slow))
    assert "arrive at 2/s, but the plan is made for 4/s" in str(report["warnings"])
    app(["plan", str(service), "--quick", "--set", "workload.rate=9", "--out", str(tmp_path / "nine.json")],
        standalone_mode=False)  # fmt: skip
    report = _validated(capsys, str(tmp_path / "nine.json"), "--trace", str(tmp_path / "log.csv"), *names)
    assert "played 8.31 times as fast" in str(report["warnings"])


def test_a_log_is_validated_at_the_pace_that_its_plan_was_certified_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan for a busy window that was certified on the whole log replays it without a warning, at the log's rate."""
    monkeypatch.setenv("MELANGE_CACHE", str(tmp_path / "cache"))
    arrivals = np.concatenate([np.arange(0, 800, 0.4), np.arange(800, 900, 0.1)])
    log = _write(tmp_path / "log.csv", arrivals)
    service = tmp_path / "service.yaml"
    service.write_text(
        "model: meta-llama/Llama-3.1-8B\nslo: {tpot_ms: 120}\noffers: {gpus: [L4], providers: [aws]}\n"
        "workload:\n  trace: log.csv\n  columns: {arrival: came, input: prompt, output: answer}\n"
        "  rate: p90\n  window: 1m\n"
    )
    app(["plan", str(service), "--out", str(tmp_path / "plan.json")], standalone_mode=False)
    names = ["--columns", "arrival=came,input=prompt,output=answer"]
    report = _validated(capsys, str(tmp_path / "plan.json"), "--trace", str(log), *names)
    planned = json.loads((tmp_path / "plan.json").read_text())
    assert planned["certificate"]["rate"] == pytest.approx(2999 / 899.9, rel=1e-3)
    assert report["rate"] == pytest.approx(planned["certificate"]["rate"], rel=1e-3)
    assert "other-" not in str(report["warnings"])
