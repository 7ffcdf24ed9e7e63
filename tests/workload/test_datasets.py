from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.errors import InputError
from melange.workload.datasets import dataset, datasets
from melange.workload.traces import read_trace
from melange.workload.workload import PAPER_INPUT_EDGES, PAPER_OUTPUT_EDGES, Buckets

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"
# Mean input and output tokens, as the traces have them.
MEANS = {
    "azure-conversation": (1154.6974, 211.1259),
    "azure-code": (2047.8483, 27.8825),
    "mooncake-conversation": (12035.0613, 342.6189),
    "arxiv-summarization": (2588.0781, 291.4304),
    "sharegpt": (2340.0335, 438.7097),
}


def test_datasets_tell_their_source_and_license() -> None:
    """Every data set says what it is, how many requests, when, and under which license."""
    listed = datasets()
    assert set(listed) == {*MEANS, "arena"}
    for about in listed.values():
        assert "requests" in about
        assert "https://" in about
    assert "CC BY 4.0" in listed["azure-code"]


@pytest.mark.parametrize("name", MEANS)
def test_token_sums_are_those_of_the_trace(name: str) -> None:
    """On any edges, rates times mean sizes give the trace's tokens."""
    for grid in (Buckets(), Buckets(input_edges=(77, 999, 130000), output_edges=(123, 32000))):
        workload = dataset(name, buckets=grid, request_rate=1)
        assert workload.input_token_rate == pytest.approx(MEANS[name][0], abs=1e-3)
        assert workload.output_token_rate == pytest.approx(MEANS[name][1], abs=1e-3)


@pytest.mark.parametrize(("name", "rate"), [("azure-conversation", 5.530), ("azure-code", 2.567)])
def test_own_rate_of_data_with_arrivals(name: str, rate: float) -> None:
    """Production hours have a rate and a burstiness of their own."""
    workload = dataset(name)
    assert workload.total_rate == pytest.approx(rate, abs=1e-3)
    assert workload.burstiness is not None


@pytest.mark.parametrize("name", ["arena", "arxiv-summarization", "sharegpt"])
def test_data_without_arrivals_needs_a_rate(name: str) -> None:
    """Lengths only: a rate must be given."""
    with pytest.raises(InputError, match="has no arrival times, only sizes") as caught:
        dataset(name)
    assert caught.value.hint == "set a request rate: workload.rate (--rate)"
    assert dataset(name, request_rate=3).total_rate == pytest.approx(3)


@pytest.mark.skipif(not TRACES.exists(), reason="needs the folder ../shared/data")
@pytest.mark.parametrize(
    ("name", "file"), [("azure-conversation", "azure_2023_conv"), ("mooncake-conversation", "mooncake_conversation")]
)
def test_default_grid_is_that_of_the_trace_itself(name: str, file: str) -> None:
    """On the default edges, and on round ones, nothing is lost by the fine grid."""
    for grid in (Buckets(), Buckets(input_edges=(128, 512, 2000, 131072), output_edges=(64, 300, 2048))):
        own, bundled = read_trace(TRACES / f"{file}.parquet", buckets=grid), dataset(name, buckets=grid)
        np.testing.assert_allclose(bundled.request_rate, own.request_rate, rtol=1e-9)
        np.testing.assert_allclose(bundled.input_tokens, own.input_tokens, rtol=1e-9)
        assert not any(caution.kind == "approximate-buckets" for caution in bundled.cautions)


def test_arena_keeps_the_papers_shares() -> None:
    """On the paper's edges: 5.88 % of requests up to 25 in and 25 out, of 100.02 % printed in all."""
    grid = Buckets(input_edges=PAPER_INPUT_EDGES, output_edges=PAPER_OUTPUT_EDGES)
    workload = dataset("arena", buckets=grid, request_rate=100)
    assert workload.request_rate[0, 0] == pytest.approx(5.88, rel=2e-3)
    assert (workload.input_tokens <= grid.upper_sizes()[0]).all()
    assert workload.cautions == ()


def test_edges_through_cells_are_told() -> None:
    """Edges that the grid does not have are followed by mean sizes, and a caution says for how many requests."""
    workload = dataset("azure-code", buckets=Buckets(input_edges=(1111, 130000), output_edges=(32000,)))
    caution = next(caution for caution in workload.cautions if caution.kind == "approximate-buckets")
    assert "% of the requests" in caution.message


def test_mixture_adds_shares() -> None:
    """80 % Arena and 20 % arXiv at 10/s: rates add, mean sizes are weighted."""
    mixture = dataset({"arena": 0.8, "arxiv-summarization": 0.2}, request_rate=10)
    parts = dataset("arena", request_rate=8), dataset("arxiv-summarization", request_rate=2)
    np.testing.assert_allclose(mixture.request_rate, parts[0].request_rate + parts[1].request_rate)
    assert mixture.input_token_rate == pytest.approx(sum(part.input_token_rate for part in parts))
    assert mixture.source == "mixture of data sets: 0.8 arena, 0.2 arxiv-summarization"
    assert mixture.requests == 201570 + 28257


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0.01, 0.99), rate=st.floats(0.1, 1e4))
def test_mixtures_conserve_requests_and_tokens(share: float, rate: float) -> None:
    """Whatever the shares, the total is the rate and tokens are the weighted means."""
    mixture = dataset({"azure-code": share, "sharegpt": 1 - share}, request_rate=rate)
    assert mixture.total_rate == pytest.approx(rate)
    expected = share * MEANS["azure-code"][1] + (1 - share) * MEANS["sharegpt"][1]
    assert mixture.output_token_rate / rate == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("azure-chat", {}, "unknown dataset 'azure-chat'; did you mean 'azure-code'"),
        ({"arena": 0.8, "arxiv-summarization": 0.1}, {"request_rate": 1}, "must add up to 1, got 0.9"),
        ({"arena": 1.2, "sharegpt": -0.2}, {"request_rate": 1}, "a share must be a number from 0 to 1, got -0.2"),
        ({"arena": "most"}, {"request_rate": 1}, "a share must be a number"),
        ({}, {"request_rate": 1}, "must add up to 1, got 0"),
        ({"arena": 0.5, "sharegpt": 0.5}, {}, "has no request rate"),
        ("arena", {"request_rate": 0}, "must be > 0"),
        ("sharegpt", {"request_rate": 1, "buckets": Buckets(input_edges=(2000,))}, "larger than the last bucket"),
        ("arena", {"buckets": Buckets.ordinal(2, 2)}, "only numbered"),
    ],
)
def test_names_and_shares_that_cannot_be(name: object, options: dict[str, object], problem: str) -> None:
    """Unknown names, shares that do not add up, edges that end too early."""
    with pytest.raises(InputError, match=problem):
        dataset(name, **options)  # type: ignore[arg-type]


def test_loads_without_ibis() -> None:
    """Nothing heavy is imported for a bundled data set."""
    script = (
        "import sys; from melange.workload.datasets import dataset; dataset('sharegpt', request_rate=1); "
        "print({'ibis', 'duckdb', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
