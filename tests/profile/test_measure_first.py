"""The caution on estimates that are little more than a guess."""

from __future__ import annotations

import pytest
from profile_cases import offer

from melange.catalog.bundled import find_model
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.workload import Buckets

LLAMA = find_model("meta-llama/Llama-3.1-8B")
BUCKETS = Buckets(input_edges=(1000,), output_edges=(500,))


def said(engine: str, card: str) -> str:
    """The caution of an estimate on one card; empty where there is none."""
    cautions = estimate(LLAMA, [offer(card)], Slo(tpot_s=0.1), BUCKETS, engine=engine).cautions
    return " ".join(one.message for one in cautions if one.kind == "measure-first")


@pytest.mark.parametrize(
    ("engine", "card", "words"),
    [
        ("vllm", "MI300X", "no measurements under vllm-1 cover MI300X: steps may take 0.67 to 1.7 times"),
        ("vllm", "Gaudi3", "no measurements under vllm-1 cover Gaudi3: steps may take 0.6 to 2.5 times"),
        ("vllm==0.9.1", "H100-80GB", "vllm 0.9.1 was not measured; the constants of vllm-1 are used"),
        ("vllm==0.32.0", "H200", "vllm 0.32.0 was not measured"),
        ("vllm-0.2", "RTX4090", "no measurements under vllm-0.2 cover RTX4090"),
    ],
)
def test_a_guess_is_called_one(engine: str, card: str, words: str) -> None:
    """Hardware and releases without measurements, by name."""
    assert words in said(engine, card)
    assert "measure this first" in said(engine, card)


@pytest.mark.parametrize(
    ("engine", "card"),
    [
        ("vllm", "H100-80GB"),
        ("vllm", "L4"),
        ("vllm", "RTX4090"),
        ("vllm==0.6.4", "MI300X"),
        ("vllm==0.7.3", "V100-32GB"),
    ],
)
def test_what_measurements_cover_is_no_guess(engine: str, card: str) -> None:
    """Also on cards whose class of hardware or architecture is known from others."""
    assert said(engine, card) == ""
