"""Choices of the page: what an address may say, and the settings that follow."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from melange.errors import InputError
from melange.service.schema import Service
from melange.ui.choices import Choices, settings_of
from melange.workload.datasets import dataset, datasets

# Every key of a service that the page may set: none of them names a file, but for a log that was offered.
KEYS = {
    "workload", "workload.rate", "slo.ttft_ms", "slo.tpot_ms", "slo.ntpot_ms", "slo.latency_ms", "slo.attainment",
    "slo.statistic", "offers.gpus", "offers.providers", "offers.regions", "offers.market", "offers.max",
    "plan.spare_replicas", "plan.spare_total_replicas", "plan.min_total_replicas", "plan.max_types", "plan.headroom",
}  # fmt: skip
SERVICE = Service.model_validate(
    {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "slo": {"ttft_ms": 2000, "tpot_ms": 80},
        "workload": {"dataset": "arena", "rate": 8},
        "offers": {"gpus": ["L4"], "max": {"L4": 3}},
        "plan": {"spare_replicas": 1},
    }
)


def drawn(draw: random.Random) -> dict[str, str]:
    """Choices of a few controls."""
    values = {
        "rate": f"{draw.uniform(0.1, 500):.4g}",
        "growth": f"{draw.randint(-90, 400)}",
        "traffic": draw.choice(["mixture", "log.csv"]),
        "ttft_ms": draw.choice(["500", "none"]),
        "tpot_ms": "40",
        "attainment": f"{draw.uniform(50, 100):.5g}",
        "statistic": draw.choice(["mean", "p95", "p99.9"]),
        "gpus": draw.choice(["all", "L4,H100-80GB", "A10G"]),
        "providers": draw.choice(["all", "aws,gcp"]),
        "market": draw.choice(["all", "spot"]),
        "max": draw.choice(["", "L4:2,H100-80GB:4"]),
        "spare_replicas": f"{draw.randint(0, 4)}",
        "max_types": draw.choice(["1", "none"]),
        "headroom": f"{draw.uniform(0, 80):.3g}",
    }
    chosen = {key: values[key] for key in draw.sample(sorted(values), draw.randint(0, 6))}
    if chosen.get("traffic") == "mixture":
        names = draw.sample(sorted(datasets()), draw.randint(1, 4))
        chosen["mix"] = ",".join(f"{name}:{draw.uniform(0.001, 100):.4g}" for name in names)
    return chosen


def settings(choices: Choices) -> dict[str, Any]:
    """By key, as values."""
    told = settings_of(choices, SERVICE, lambda name: f"/logs/{name}", lambda _: 8.0)
    return {key: json.loads(value) for key, _, value in (one.partition("=") for one in told)}


@pytest.mark.parametrize("seed", range(40))
def test_an_address_is_a_state(seed: int) -> None:
    """Choices come back from their own query, and set only keys that name no file of the server."""
    choices = Choices.of(drawn(random.Random(seed)).items())
    assert Choices.of(choices.query()) == choices
    told = settings(choices)
    assert set(told) <= KEYS
    if choices.traffic == "mixture":
        shares = told["workload"]["dataset"]
        assert dataset(shares, request_rate=told["workload"]["rate"]).total_rate == pytest.approx(
            told["workload"]["rate"]
        )
    if choices.traffic == "log.csv":
        assert told["workload"]["trace"] == "/logs/log.csv"


def test_what_the_service_says_is_no_setting() -> None:
    """Nor what is said again."""
    assert settings(Choices()) == {}
    same = {"rate": "8", "ttft_ms": "2000", "gpus": "L4", "max": "L4:3", "spare_replicas": "1", "headroom": "10"}
    assert settings(Choices.of(same.items())) == {}


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ({"growth": "50"}, "workload.rate", 12.0),
        ({"rate": "10", "growth": "-50"}, "workload.rate", 5.0),
        ({"attainment": "99.9"}, "slo.attainment", 0.999),
        ({"ttft_ms": "none"}, "slo.ttft_ms", None),
        ({"gpus": "all"}, "offers.gpus", None),
        ({"market": "all"}, "offers.market", ["on-demand", "spot"]),
        ({"max": ""}, "offers.max", {}),
        ({"max": "L4:2,g6.xlarge:1"}, "offers.max", {"L4": 2, "g6.xlarge": 1}),
        ({"headroom": "25"}, "plan.headroom", 0.25),
        ({"spare_replicas": "0"}, "plan.spare_replicas", 0),
    ],
)
def test_a_choice_is_a_setting(query: dict[str, str], key: str, value: object) -> None:
    """With percent as shares, and no restriction as null."""
    assert settings(Choices.of(query.items())) == {key: value}


@pytest.mark.parametrize(
    "query",
    [
        [("model", "secret.json")],
        [("workload.trace", "secret.csv")],
        [("rate", "0")],
        [("rate", "nan")],
        [("rate", "inf")],
        [("growth", "nan")],
        [("rate", "1"), ("rate", "2")],
        [("attainment", "101")],
        [("statistic", "p99; x")],
        [("max", "L4:-1")],
        [("mix", "arena:x")],
        [("spare_replicas", "1.5")],
        [("headroom", "100")],
    ],
)
def test_other_addresses_are_refused(query: list[tuple[str, str]]) -> None:
    """Keys that the page has not, and values out of their range."""
    with pytest.raises(InputError):
        Choices.of(query)


@pytest.mark.parametrize("query", [{"gpus": "none"}, {"market": ""}, {"traffic": "mixture", "mix": "arena:0"}])
def test_nothing_cannot_be_rented_or_mixed(query: dict[str, str]) -> None:
    """It would mean no restriction in a file."""
    with pytest.raises(InputError, match=r"nothing can be rented|mixture is empty"):
        settings(Choices.of(query.items()))
