"""Shares as people read them: 0 % means none and 100 % means all, whatever rounding and sums did to them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melange.slo import Slo
from melange.units import percent

_NEAR_ENDS = st.builds(lambda whole, power: abs(whole - 10.0**-power), st.sampled_from([0, 1]), st.floats(0, 16))


@given(st.one_of(st.floats(0, 1), _NEAR_ENDS), st.integers(0, 4))
def test_a_share_reads_none_or_all_only_where_it_is(share: float, digits: int) -> None:
    """What is less than 1e-9 from an end is rounding; all else has digits enough to differ from it."""
    text = percent(share, digits)
    assert text.endswith("%")
    shown = float(text.rstrip("%")) / 100
    assert (shown == 0) == (share < 1e-9)
    assert (shown == 1) == (share > 1 - 1e-9)
    assert abs(shown - share) <= 0.5 * 10.0 ** -(digits + 2) + 1e-9


@given(st.lists(st.floats(1e-6, 1e4), min_size=2, max_size=40))
def test_parts_that_add_up_to_all_read_as_all(rates: list[float]) -> None:
    """In whatever order they are added."""
    total = float(np.sum(rates))
    assert percent(float(np.sum(rates[::-1])) / total) == "100%"
    assert percent(abs(1.0 - float(np.sum(sorted(rates))) / total), 2) == "0%"


def test_a_request_stays_as_long_as_its_least_limit_allows() -> None:
    """One definition for drains, simulations and occupancy: latency, NTPOT, or TTFT and TPOT, whichever ends first."""
    outputs = [10.0, 1000.0]
    slo = Slo(ttft_s=2.0, tpot_s=0.05, ntpot_s=0.04, latency_s=30.0)
    stay_s = slo.longest_stay_s(outputs)
    assert stay_s is not None
    assert stay_s.tolist() == pytest.approx([0.4, 30.0])
    stay_s = Slo(ttft_s=2.0, tpot_s=0.05).longest_stay_s(outputs)
    assert stay_s is not None
    assert stay_s.tolist() == pytest.approx([2.5, 52.0])
    assert Slo(ttft_s=2.0).longest_stay_s(outputs) is None
