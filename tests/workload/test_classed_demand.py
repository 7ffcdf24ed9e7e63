"""Traffic over time of several classes: one grid, one clock, and each class again by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.classed_demand import demand_of_classes, only_classes, steady_demand
from melange.workload.demand import Demand, constant_demand
from melange.workload.workload import Buckets


def varied(seed: int, windows: int = 30) -> Demand:
    """Rates and sizes that change from window to window."""
    random = np.random.default_rng(seed)
    share = random.dirichlet(np.ones(4), windows).reshape(windows, 2, 2)
    return Demand(
        buckets=Buckets(input_edges=(100, 1000), output_edges=(50, 200)),
        window_s=600.0,
        rate=random.uniform(0, 5, windows),
        period=np.arange(windows),
        share=share,
        input_tokens=np.array([[50.0, 60.0], [500.0, 600.0]]),
        output_tokens=np.array([[25.0, 100.0], [25.0, 100.0]]),
    )


def test_each_class_is_found_again() -> None:
    """Rates by size of a class alone are those that it came with; the others have none."""
    first, second = varied(1), varied(2)
    both = demand_of_classes({"default": first, "batch": second})
    np.testing.assert_allclose(both.rates(), np.concatenate([first.rates(), second.rates()], axis=1))
    for place, (name, one) in enumerate((("default", first), ("batch", second))):
        alone = only_classes(both, {name}).rates()
        np.testing.assert_allclose(alone[:, 4 * place : 4 * place + 4], one.rates(), atol=1e-12)
        assert alone.sum() == pytest.approx(one.rates().sum())
    assert both.input_tokens.shape == (4, 2)


def test_shares_of_one_log_stay_by_period() -> None:
    """No table by window where all windows have the same part of each class; missing windows stay missing."""
    whole = varied(3)
    rate = whole.rate.copy()
    rate[[4, 9]] = np.nan
    whole = replace(whole, rate=rate, period=np.zeros(30, int), share=whole.share[:1])
    both = demand_of_classes({"default": replace(whole, rate=0.75 * rate), "batch": replace(whole, rate=0.25 * rate)})
    assert len(both.share) == 1
    assert both.is_missing.nonzero()[0].tolist() == [4, 9]
    assert only_classes(both, {"batch"}).mean_rate == pytest.approx(0.25 * whole.mean_rate)


def test_windows_that_both_have_count() -> None:
    """From the later beginning to the earlier end, by the clocks of both."""
    start = datetime(2026, 3, 2, tzinfo=UTC)
    first = replace(varied(1), start=start)
    later = replace(varied(2), start=start + timedelta(seconds=10 * 600))
    both = demand_of_classes({"default": first, "batch": later})
    assert both.start == later.start
    assert len(both) == 20
    np.testing.assert_allclose(both.rate, first.rate[10:] + later.rate[:20])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"window_s": 1200.0}, "its windows last 1200 s, and those of default 600 s"),
        ({"start": datetime(2026, 3, 2, tzinfo=UTC)}, "its traffic and that of default must both have dates, or none"),
        ({"buckets": Buckets(input_edges=(100, 2000), output_edges=(50, 200))}, "its buckets are not those of default"),
    ],
)
def test_what_does_not_fit_is_told(change: dict[str, object], said: str) -> None:
    """With the class."""
    with pytest.raises(InputError, match=f"classes.batch: {said}"):
        demand_of_classes({"default": varied(1), "batch": replace(varied(2), **change)})


def test_times_must_meet() -> None:
    """Logs of different days, windows that begin between two others, and a class without requests."""
    start = datetime(2026, 3, 2, tzinfo=UTC)
    first = replace(varied(1), start=start)
    for away, said in ((86400, "no time in common"), (300, "begin at other times")):
        with pytest.raises(InputError, match=said):
            demand_of_classes({"default": first, "batch": replace(first, start=start + timedelta(seconds=away))})
    both = demand_of_classes({"default": varied(1), "batch": varied(2)})
    with pytest.raises(InputError, match="classes: other has no requests"):
        only_classes(both, {"other"})


def test_a_steady_class_arrives_at_one_rate() -> None:
    """In all windows of the other, with its own sizes."""
    like = varied(4)
    found = steady_demand(varied(5).workload().at_rate(2.0), like)
    assert found.rate.tolist() == [2.0] * 30
    assert len(found.share) == 1
    assert demand_of_classes({"default": like, "batch": found}).mean_rate == pytest.approx(like.mean_rate + 2.0)
    assert constant_demand(1.0, hours=3).mean_rate == 1.0
