from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.workload.clock import full_windows, parse_duration, window_statistic


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), (90, 90), ("1.5h", 5400), ("1h 30m", 5400), ("500ms", 0.5), ("2d", 172800), ("5min", 300), ("0", 0)],
)
def test_durations(text: str | float, seconds: float) -> None:
    """Bare numbers are seconds; units may follow one another."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "-5", -5, float("nan"), "h", True])
def test_durations_that_cannot_be(text: str | float) -> None:
    """Anything else is an error that names what it was for."""
    with pytest.raises(InputError, match="window must be a duration"):
        parse_duration(text, name="window")


@pytest.mark.parametrize("text", [1e-308, 1e-7, 1e13, 1e300])
def test_durations_that_no_sum_could_use(text: float) -> None:
    """A window of the smallest positive float divides a log into infinitely many."""
    with pytest.raises(InputError, match="window must be 0, or between a microsecond and 30,000 years"):
        parse_duration(text, name="window")
    if text < 1:
        with pytest.raises(InputError, match=r"windows of .* s fit"):
            full_windows(30.0, text, place="trace")


def test_windows_by_hand() -> None:
    """Three whole windows of 0.1 s fit into 0.3 s, whatever floats say; percentiles are linear."""
    assert full_windows(0.3, 0.1, place="trace") == 3
    assert window_statistic(np.array([0.0, 1.0, 2.0, 3.0, 10.0]), "p75") == 3
    assert window_statistic(np.array([0.0, 1.0, 2.0, 3.0, 10.0]), "p90") == pytest.approx(7.2)
    assert window_statistic(np.array([0.0, 4.0]), "mean") == 2
    with pytest.raises(InputError, match="windows of 1e-09 s fit"):
        full_windows(10.0, 1e-9, place="trace")
