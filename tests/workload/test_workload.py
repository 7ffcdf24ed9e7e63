from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melange.errors import Caution, InputError
from melange.workload.sizes import thin_data
from melange.workload.workload import Buckets, Workload


def _workload(buckets: Buckets, rates: list[list[float]], size: float = 10.0, **details: object) -> Workload:
    return Workload(
        buckets=buckets,
        request_rate=np.array(rates),
        input_tokens=np.full(buckets.shape, size),
        output_tokens=np.full(buckets.shape, size),
        **details,  # type: ignore[arg-type]
    )


def test_sum_weights_sizes_by_rate(toy_buckets: Buckets) -> None:
    """1/s at 10 tokens and 3/s at 50 tokens are 4/s at 40 tokens."""
    one = _workload(toy_buckets, [[1, 0], [0, 0]], 10, source="a", requests=5, cautions=(Caution("thin-data", "x"),))
    three = _workload(toy_buckets, [[3, 2], [0, 0]], 50, source="b", requests=7, cautions=(Caution("thin-data", "x"),))
    both = one + three
    assert both.request_rate.tolist() == [[4, 2], [0, 0]]
    assert both.input_tokens.tolist() == [[40, 50], [10, 10]]
    assert (both.source, both.requests, len(both.cautions)) == ("a + b", 12, 1)


def test_sum_needs_the_same_buckets(toy_buckets: Buckets) -> None:
    """Workloads on other edges cannot be added."""
    other = Buckets(input_edges=(500, 1000), output_edges=(50, 300))
    with pytest.raises(InputError, match="on the same buckets"):
        _ = _workload(toy_buckets, [[1, 0], [0, 0]]) + _workload(other, [[1, 0], [0, 0]])
    with pytest.raises(TypeError):
        _ = _workload(toy_buckets, [[1, 0], [0, 0]]) + 1  # type: ignore[operator]


def test_saved_and_read_again(tmp_path: Path, toy_buckets: Buckets) -> None:
    """A workload.json gives back what was saved."""
    workload = _workload(toy_buckets, [[1, 2], [3, 4]], source="by hand", failed_requests=2, burstiness=1.5)
    again = Workload.read(workload.save(tmp_path / "workload.json"))
    assert again.to_json() == workload.to_json()


@pytest.mark.parametrize(
    ("rates", "problem"),
    [
        ([[1, -1], [0, 0]], "must be >= 0 and finite, got 1-500 in, 51-200 out: -1"),
        ([[1, float("nan")], [0, 0]], "got 1-500 in, 51-200 out: nan"),
        ([[0, 0], [0, 0]], "no requests: every rate is 0"),
        ([[1, 0]], "must have 2 x 2 cells, got 1 x 2"),
    ],
)
def test_rates_that_cannot_be(toy_buckets: Buckets, rates: list[list[float]], problem: str) -> None:
    """Negative, NaN and absent rates, and a wrong shape, are errors that name the bucket."""
    with pytest.raises(InputError) as caught:
        _workload(toy_buckets, rates)
    assert problem in str(caught.value)


def test_thin_buckets_are_named(toy_buckets: Buckets) -> None:
    """A bucket with 2 % of 1,400 requests and fewer than 30 of them is named; one with 0.5 % is not."""
    cautions = thin_data(toy_buckets, np.array([[1365.0, 7.0], [28.0, 0.0]]))
    assert [caution.kind for caution in cautions] == ["thin-data"]
    assert "(501-1,000 in, 1-50 out: 28)" in cautions[0].message
    assert thin_data(toy_buckets, np.array([[1365.0, 7.0], [35.0, 0.0]])) == ()
