"""Requests one by one: drawn as a workload says, replayed as a log has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.arrivals import Arrivals, draw, read_arrivals
from melange.workload.datasets import dataset
from melange.workload.workload import Buckets, Workload

CHAT = dataset("azure-conversation", request_rate=10.0)


@pytest.mark.parametrize("burstiness", [0.5, 1.0, 3.0])
def test_times_between_arrivals_vary_as_asked(burstiness: float) -> None:
    """Their mean is one over the rate, and their coefficient of variation the burstiness."""
    gaps = np.diff(draw(CHAT, 100_000, seed=2, burstiness=burstiness).arrival_s)
    assert gaps.mean() == pytest.approx(0.1, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness, rel=0.05)


def test_sizes_come_together_as_they_were_observed() -> None:
    """Every bucket as often as the workload has it, and with the mean size that it has."""
    arrivals = draw(CHAT, 200_000, seed=3)
    shape = CHAT.buckets.shape
    i = np.searchsorted(CHAT.buckets.input_edges, arrivals.input_tokens)
    o = np.searchsorted(CHAT.buckets.output_edges, arrivals.output_tokens)
    cell = i * shape[1] + o
    share = np.bincount(cell, minlength=shape[0] * shape[1]) / len(arrivals)
    expected = (CHAT.request_rate / CHAT.total_rate).ravel()
    assert share == pytest.approx(expected, abs=4 * np.sqrt(expected.max() / len(arrivals)))
    for place in np.argsort(expected)[-5:].tolist():
        here = cell == place
        assert arrivals.input_tokens[here].mean() == pytest.approx(CHAT.input_tokens.ravel()[place], rel=0.03)
        assert arrivals.output_tokens[here].mean() == pytest.approx(CHAT.output_tokens.ravel()[place], rel=0.03)


def test_sizes_of_a_log_are_drawn_in_pairs() -> None:
    """No prompt gets another one's completion."""
    observed = Arrivals(
        arrival_s=np.arange(4.0), input_tokens=np.array([1, 2, 3, 4]), output_tokens=np.array([10, 20, 30, 40])
    )
    drawn = draw(CHAT, 1000, seed=1, observed=observed)
    assert (drawn.output_tokens == 10 * drawn.input_tokens).all()
    assert np.bincount(drawn.input_tokens)[1:].min() > 200


def test_the_same_seed_draws_the_same_requests() -> None:
    """Byte for byte; another seed draws others; and times do not hang on what sizes are drawn."""
    one, same, other = draw(CHAT, 500, seed=1), draw(CHAT, 500, seed=1), draw(CHAT, 500, seed=2)
    assert one.arrival_s.tobytes() == same.arrival_s.tobytes()
    assert one.output_tokens.tobytes() == same.output_tokens.tobytes()
    assert one.arrival_s.tobytes() != other.arrival_s.tobytes()
    coding = draw(dataset("azure-code", request_rate=10.0), 500, seed=1)
    assert coding.arrival_s == pytest.approx(one.arrival_s)


def test_a_log_is_stretched_to_a_rate_and_keeps_its_bursts(tmp_path: Path) -> None:
    """Time runs slower or faster, in the same order, with every gap in the same proportion."""
    rows = [(0.0, 5, 2), (0.1, 6, 3), (0.2, 7, 4), (5.0, 8, 5), (10.0, 9, 6)]
    log = tmp_path / "log.csv"
    log.write_text("arrival,input,output\n" + "".join(f"{t},{i},{o}\n" for t, i, o in rows))
    columns = {"arrival": "arrival", "input": "input", "output": "output"}
    own = read_arrivals(log, columns=columns)
    assert own.rate == pytest.approx(0.4)
    fast = own.at_rate(4.0)
    assert fast.rate == pytest.approx(4.0)
    assert np.diff(fast.arrival_s) == pytest.approx(np.diff(own.arrival_s) / 10)
    assert fast.input_tokens.tolist() == [5, 6, 7, 8, 9]
    part = own.part(3, 5)
    assert (part.arrival_s.tolist(), part.output_tokens.tolist()) == ([0.0, 5.0], [5, 6])


def test_requests_that_all_come_at_once_keep_their_times_at_any_rate() -> None:
    """No time passes between them, so that no rate can change: times once became NaN."""
    at_once = Arrivals(arrival_s=np.zeros(3), input_tokens=np.ones(3, int), output_tokens=np.ones(3, int))
    assert at_once.shaped([(0.0, 1.0), (1.0, 2.0)]).arrival_s.tolist() == [0.0, 0.0, 0.0]


def test_what_cannot_be_drawn_is_refused() -> None:
    """Numbered buckets, no requests, a burstiness of 0, arrivals out of order, a shape that goes back in time."""
    numbered = Workload.at_upper_edges(Buckets.ordinal(2, 2), np.ones((2, 2)))
    with pytest.raises(InputError, match="token counts"):
        draw(numbered, 10)
    with pytest.raises(InputError, match="1 to 20,000,000, got 0"):
        draw(CHAT, 0)
    for burstiness in (0.0, 1e4, float("nan")):
        with pytest.raises(InputError, match=r"burstiness must be 0\.001 to 1000"):
            draw(CHAT, 10, burstiness=burstiness)
    with pytest.raises(InputError, match="times must be finite"):
        Arrivals(arrival_s=np.array([0.0, np.nan]), input_tokens=np.ones(2, int), output_tokens=np.ones(2, int))
    with pytest.raises(InputError, match="sorted by time"):
        Arrivals(arrival_s=np.array([1.0, 0.0]), input_tokens=np.ones(2, int), output_tokens=np.ones(2, int))
    with pytest.raises(InputError, match="ascend"):
        draw(CHAT, 10).shaped([(0.0, 1.0), (0.7, 2.0), (0.5, 1.0), (1.0, 1.0)])
