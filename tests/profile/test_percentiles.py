"""Rates found by simulation, against theory, and what is kept of them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planned import offers
from simulated import cost, engine

from melange.catalog.bundled import find_model
from melange.profile.estimate import estimate
from melange.profile.percentiles import in_flight_at, lone_replica, requests_for, simulated_rate, with_simulated_rates
from melange.profile.profile import MEASURED
from melange.profile.rate_cache import RateCache, cache_folder
from melange.replica.policy import ROUND_ROBIN
from melange.replica.simulated.cluster import play
from melange.replica.simulated.outcome import metrics_s
from melange.slo import Slo
from melange.workload.datasets import dataset
from melange.workload.workload import Buckets

# A millisecond a token whatever runs, one request at a time: a queue of constant service.
SERVICE_S, TOKENS = 0.1, 100
QUEUE = engine(cost=cost(host_s=SERVICE_S / TOKENS), max_sequences=1, kv_tokens=1e9, max_context=10**6)
MODEL = engine(max_sequences=64, kv_tokens=4 * 40_000.0)


def m_d_1_wait(load: float, quantile: float) -> float:
    """The wait that a share of the requests stays below (Erlang 1909), in units of the service."""

    def below(wait: float) -> float:
        terms = [
            (load * (k - wait)) ** k / math.factorial(k) * math.exp(-load * (k - wait)) for k in range(int(wait) + 1)
        ]
        return (1 - load) * sum(terms)

    grid = np.linspace(0, 12, 2401)
    return float(grid[np.searchsorted([below(wait) for wait in grid], quantile)])


@pytest.mark.parametrize(("statistic", "load"), [("mean", 0.5), ("p50", 0.7), ("p90", 0.5), ("p99", 0.4)])
def test_the_rate_of_a_queue_of_constant_service_is_that_of_theory(statistic: str, load: float) -> None:
    """The latency limit is what M/D/1 has at a load, so the search must end near that load."""
    waits = load / (2 * (1 - load)) if statistic == "mean" else m_d_1_wait(load, float(statistic[1:]) / 100)
    slo = Slo(latency_s=SERVICE_S * (1 + waits), statistic=statistic)
    rates = [simulated_rate(QUEUE, 1, TOKENS, slo, 0.8 / SERVICE_S, seed=seed)[0] for seed in range(6)]
    assert np.mean(rates) * SERVICE_S == pytest.approx(load, rel=0.08)


def test_a_far_percentile_carries_less() -> None:
    """The same limit on p50, p90, p99 of the time to first token and per token."""
    for limits in ({"ttft_s": 0.1}, {"tpot_s": 0.03}, {"ttft_s": 0.2, "tpot_s": 0.035}):
        rates = [
            simulated_rate(MODEL, 200, 60, Slo(**limits, statistic=name), 8.0)[0] for name in ("p50", "p90", "p99")
        ]
        assert rates[0] >= rates[1] >= rates[2] > 0
        assert rates[0] > rates[2]


def met(slo: Slo, rate: float) -> float:
    """Share of the requests that meet every limit at a rate, each by itself."""
    arrival_s, sizes = np.cumsum(np.random.default_rng(3).exponential(size=20_000)) / rate, np.ones(20_000, np.int64)
    none = np.zeros(len(sizes), np.int64)
    outcome = play([MODEL], lone_replica(), ROUND_ROBIN, arrival_s, 200 * sizes, 60 * sizes, none, none)
    values = metrics_s(outcome.ttft_s, outcome.latency_s, 60)
    whole = [values[metric] <= limit for metric, limit in slo.limits.items()]
    return float(np.all(whole, axis=0)[5_000:].mean())


@pytest.mark.parametrize("attainment", [0.9, 0.99])
def test_of_requests_as_many_as_are_asked_for_meet_every_limit(attainment: float) -> None:
    """At the rate that is found, and at a higher one fewer: both limits bind, each for some of the requests."""
    slo = Slo(ttft_s=0.07, tpot_s=0.024, attainment=attainment)
    rate = float(np.mean([simulated_rate(MODEL, 200, 60, slo, 8.0, seed=seed)[0] for seed in range(4)]))
    assert met(slo, 0.93 * rate) >= attainment > met(slo, 1.1 * rate)
    each = [replace(slo, **{name: None}) for name in ("ttft_s", "tpot_s")]
    assert rate < min(simulated_rate(MODEL, 200, 60, one, 8.0)[0] for one in each)


def test_one_limit_for_99_of_100_requests_is_its_p99() -> None:
    """With one metric both readings say the same."""
    rates = [simulated_rate(MODEL, 200, 60, Slo(ttft_s=0.1, statistic=name), 8.0)[0] for name in ("requests", "p99")]
    assert rates[0] == pytest.approx(rates[1], rel=0.03)


def test_a_looser_limit_carries_more() -> None:
    """Rates do not fall as the limit rises."""
    rates = [simulated_rate(MODEL, 200, 60, Slo(ttft_s=limit, statistic="p90"), 8.0)[0] for limit in (0.06, 0.1, 0.2)]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_what_no_rate_holds_says_why() -> None:
    """The first token of a lone request takes longer than the limit."""
    rate, why = simulated_rate(MODEL, 2000 - 70, 60, Slo(ttft_s=0.05, statistic="p99"), 0.5)
    assert rate == 0
    assert "p99 TTFT of requests that come one at a time" in why
    assert "50 ms" in why
    rate, why = simulated_rate(MODEL, 2000 - 70, 60, Slo(ttft_s=0.05, attainment=0.95), 0.5)
    assert rate == 0
    assert "for 95% of requests that come one at a time; the limit is 50 ms" in why


def test_a_short_completion_beside_a_long_prompt_is_served_rarely() -> None:
    """Each prompt read meanwhile breaks the limit, so 999 of 1,000 requests must be alone: at a low rate they are."""
    slo = Slo(tpot_s=0.03, statistic="p99.9")
    alone = replace(MODEL, is_chunked=False)
    rate, why = simulated_rate(alone, 2000 - 70, 10, slo, 0.5)
    assert why == ""
    assert 0 < rate < 0.01 * 0.5
    rate, why = simulated_rate(alone, 2000 - 70, 10, slo, 10.0)
    assert rate == 0
    assert why == "p99.9 TPOT of requests at 0.0195 requests/s is 52.7 ms; the limit is 30 ms"


def test_far_percentiles_and_full_replicas_take_more_requests() -> None:
    """20 requests beyond the percentile, and eight times those in flight."""
    assert requests_for(Slo(ttft_s=1.0, statistic="p50"), 10) == 1000
    assert requests_for(Slo(ttft_s=1.0, statistic="p99.9"), 10) > 20_000
    assert requests_for(Slo(ttft_s=1.0, statistic="p50"), 1000) == 8000
    assert requests_for(Slo(ttft_s=1.0), 10) == requests_for(Slo(ttft_s=1.0, statistic="p99"), 10)
    assert in_flight_at(MODEL, 200, 60, 2.0) == pytest.approx(2 * in_flight_at(MODEL, 200, 60, 1.0), rel=0.2)


SLO = Slo(ttft_s=2.0, tpot_s=0.08, statistic="p90")


def test_a_profile_gets_simulated_rates_and_keeps_what_was_measured() -> None:
    """Cells with traffic are replaced, measured ones and those without traffic stay, reasons and cautions are said."""
    grid = Buckets(input_edges=(500, 2000, 8000, 100_000), output_edges=(30, 2000))
    workload = dataset("azure-code", buckets=grid, request_rate=12.0)
    model = find_model("meta-llama/Llama-3.1-8B")
    profile = estimate(model, offers("A100-80GB"), Slo(ttft_s=2.0, tpot_s=0.08), workload)
    provenance = profile.provenance.copy()
    provenance[0, 0, 0] = MEASURED
    profile = replace(profile, provenance=provenance)
    found = with_simulated_rates(profile, workload, SLO)
    assert found.slo == SLO
    assert "p90 by simulation" in found.source
    of_requests = with_simulated_rates(profile, workload, replace(SLO, statistic="requests"))
    assert "; 99% of requests by simulation" in of_requests.source
    assert any("not for 99% of requests" in caution.message for caution in of_requests.cautions)
    asked = (workload.request_rate > 0) & (profile.max_request_rate > 0)
    assert found.max_request_rate[0, 0, 0] == profile.max_request_rate[0, 0, 0]
    assert (found.max_request_rate != profile.max_request_rate)[asked].mean() > 0.5
    assert (found.max_request_rate == profile.max_request_rate)[:, workload.request_rate == 0].all()
    assert (found.low <= found.max_request_rate).all()
    assert (found.max_request_rate <= found.high).all()
    assert any(caution.kind == "mean-only" for caution in found.cautions)


def test_what_is_kept_is_found_again_by_all_that_it_follows_from(tmp_path: Path) -> None:
    """Engine, size, SLO and seed make the key; a file holds it for the next run."""
    file = tmp_path / "deep" / "rates.json"
    kept, key = RateCache(file), (MODEL, (200, 60), SLO, 0)
    assert kept.get(key) is None
    kept.keep(key, (3.5, ""))
    kept.save()
    again = RateCache(file)
    assert again.get(key) == (3.5, "")
    faster = (MODEL.scaled(0.9), (200, 60), SLO, 0)
    others = [faster, (MODEL, (201, 60), SLO, 0), (MODEL, (200, 60), Slo(ttft_s=2.0, statistic="p90"), 0)]
    assert [again.get(other) for other in [*others, (MODEL, (200, 60), SLO, 1)]] == [None] * 4


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"a": ["x", ""]}', "null", "\x00"])
def test_a_broken_file_is_begun_anew(content: str, tmp_path: Path) -> None:
    """It saves time and nothing else."""
    file = tmp_path / "rates.json"
    file.write_text(content)
    kept, key = RateCache(file), (MODEL, (200, 60), SLO, 0)
    assert kept.get(key) is None
    kept.keep(key, (0.0, "too slow"))
    kept.save()
    assert RateCache(file).get(key) == (0.0, "too slow")


def test_a_file_that_cannot_be_written_is_left_alone(tmp_path: Path) -> None:
    """Its folder is a file."""
    (tmp_path / "folder").write_text("")
    kept = RateCache(tmp_path / "folder" / "rates.json")
    kept.keep((MODEL, (200, 60), SLO, 0), (1.0, ""))
    kept.save()
    assert kept.get((MODEL, (200, 60), SLO, 0)) == (1.0, "")


def test_files_are_kept_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of one's own, or the usual place."""
    monkeypatch.setenv("MELANGE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("MELANGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "melange"
