"""The cheapest plan in two pools: each pool is planned and certified alone, and then both are simulated together.

Each pool gets a half of the requests that may miss. If both pools together hold too few requests, the searches are
repeated with smaller parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melange.errors import Caution, InfeasibleError
from melange.plan.disaggregated import DisaggregatedPlan
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import solve
from melange.profile.estimate_inputs import EstimateInputs
from melange.replica.layout_cost import NETWORK_BYTES_PER_S
from melange.units import BYTES_PER_GBIT
from melange.validate.attainment import Interval, attainment
from melange.validate.certify.certify import certify
from melange.validate.disaggregation.halves import Halves, cached_in, check, halves_of, prompts_in
from melange.validate.disaggregation.together import play_both
from melange.workload.arrivals import Arrivals, draw
from melange.workload.workload import Workload

# Simulations of both pools that decide, and requests of each. No search uses their seeds.
_SEEDS, _REQUESTS, _FIRST_SEED = 6, 20_000, 90_000
# Requests that sizes of the decode pool's searches are drawn from.
_SIZES = 20_000
# Parts of the allowed misses that each pool may use, tried in turn until both pools hold. Chosen by judgment.
_PARTS = (0.5, 0.3, 0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Settings of the search for pools.

    Parameters
    ----------
    is_quick
        Whether to use the closed form only.
    burstiness
        Burstiness of arrivals, as in :func:`~melange.workload.arrivals.draw`.
    observed
        Requests from which sizes are drawn; None: the workload's buckets.
    say
        Called with progress messages.
    """

    is_quick: bool = False
    burstiness: float = 1.0
    observed: Arrivals | None = None
    say: Callable[[str], None] = lambda _: None


def disaggregate(inputs: EstimateInputs, options: Options, search: Search | None = None) -> DisaggregatedPlan:
    """The cheapest plan in two pools.

    Parameters
    ----------
    inputs
        The model, what serves it, limits on TTFT and TPOT, and the traffic.
    options
        Requirements for each pool; both pools share the availability.
    search
        Settings of the search; None: certified, for Poisson arrivals.

    Raises
    ------
    InputError
        Limits or options that cannot be divided between two pools.
    InfeasibleError
        No two pools carry the traffic; ``reasons`` says why.
    """
    how = search or Search()
    check(inputs.slo, options)
    found: list[DisaggregatedPlan] = []
    failed: list[InfeasibleError] = []
    # KV caches move only between replicas that store them in the same way.
    for variant in dict.fromkeys(one.variant for one in inputs.replica_types):
        try:
            halves = halves_of(inputs, options, variant)
            found.append(_quick(halves) if how.is_quick else _certified(halves, how))
        except InfeasibleError as error:
            failed.append(error)
    if not found:
        raise InfeasibleError(
            f"no pair of pools carries the traffic: {failed[0]}",
            reasons=failed[0].reasons,
            hint="plan: {disaggregate: false}",
        )
    held = [one for one in found if one.holds is not False] or found
    return min(held, key=lambda one: one.cost_per_h)


def _quick(halves: Halves) -> DisaggregatedPlan:
    prefill = solve(halves.prefill)
    decode = solve(halves.bounded(prefill))
    mean_s = _mean_transfer_s(prefill, decode, halves)
    return DisaggregatedPlan(prefill=prefill, decode=decode, transfer_s=mean_s, cautions=(_unmeasured(),))


def _certified(halves: Halves, how: Search) -> DisaggregatedPlan:
    """The first pools found that hold together; if there are none, those that hold most."""
    target = halves.slo.target
    assert target is not None
    best: DisaggregatedPlan | None = None
    for part in _PARTS:
        each = 1.0 - (1.0 - target) * part
        how.say("the prefill pool")
        prefill = _pool(halves.prefill, each, how, prompts_in)
        how.say("the decode pool")
        decode = _pool(halves.bounded(prefill), each, how, cached_in)
        how.say("both pools together")
        shown, mean_s = _shown(halves, prefill, decode, how)
        best = DisaggregatedPlan(
            prefill=prefill,
            decode=decode,
            target=target,
            attainment=shown.value,
            low=shown.low,
            requests=_REQUESTS,
            seeds=_SEEDS,
            transfer_s=mean_s,
            cautions=(_unmeasured(),),
        )
        if best.holds:
            break
    assert best is not None
    return best


def _pool(question: Question, target: float, how: Search, part_of: Callable[[Arrivals], Arrivals]) -> Plan:
    # Drawn with the sizes of the whole requests, so that both pools meet the same requests.
    sizes = part_of(_requests(question.workload, _SIZES, 0, how))
    return certify(question, target=target, burstiness=how.burstiness, observed=sizes, progress=how.say)


def _requests(workload: Workload, count: int, seed: int, how: Search) -> Arrivals:
    return draw(workload, count, seed=seed, burstiness=how.burstiness, observed=how.observed)


def _shown(halves: Halves, prefill: Plan, decode: Plan, how: Search) -> tuple[Interval, float]:
    """The share that both pools hold on requests that no search has seen, and the mean time of a transfer [s]."""
    samples, moved = [], []
    for seed in range(_FIRST_SEED, _FIRST_SEED + _SEEDS):
        played = play_both(prefill, decode, _requests(halves.workload, _REQUESTS, seed, how), halves.token_bytes)
        samples.append(played.met(halves.slo))
        moved.append(float(played.transfer_s.mean()))
    return attainment(samples), float(np.mean(moved))


def _mean_transfer_s(prefill: Plan, decode: Plan, halves: Halves) -> float:
    prompts = prefill.workload
    mean = float(prompts.input_token_rate / prompts.total_rate)
    used = [
        one.layout.accelerators
        for plan in (prefill, decode)
        for one, count in zip(plan.replica_types, plan.instances, strict=True)
        if count
    ]
    return mean * halves.token_bytes / (NETWORK_BYTES_PER_S * min(used))


def _unmeasured() -> Caution:
    gbit = NETWORK_BYTES_PER_S / BYTES_PER_GBIT
    return Caution(
        "measure-first",
        f"separate pools are computed from the step times of combined replicas, with {gbit:g} Gbit/s for each "
        "accelerator between them; they were not measured: measure both pools first",
    )
