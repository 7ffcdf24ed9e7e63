"""The two halves of a service: reading prompts, and generating tokens for prompts that are in the cache already.

Each half is a service of its own. The prefill pool gets every prompt with a completion of one token; the decode pool
gets every request with its prompt cached. Each has its part of the limit on the first token: the time for the transfer
of a KV cache and for the first step of a decode replica is subtracted from the limit of the prefill pool.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from melange.catalog.variants import variant_of
from melange.errors import InfeasibleError, InputError
from melange.plan.bindings import (
    ACCELERATOR,
    ACCELERATOR_IN_REGION,
    INSTANCE_TYPE,
    OFFER,
    REGION,
    REPLICA_TYPE,
    Bindings,
)
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.profile.estimate import estimate_from
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.profile import DECODE_POOL, PREFILL_POOL, Profile, pool_of
from melange.replica.layout_cost import NETWORK_BYTES_PER_S
from melange.slo import Slo
from melange.units import BYTES_PER_GBIT, MS_PER_S
from melange.workload.arrivals import Arrivals
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Array, Buckets, Workload

# Part of the limit on the first token that a decode replica gets for its first step, and the least that it gets, in
# token times. With more, less is left for reading the prompt; with less, decode replicas keep more capacity free.
# Chosen by judgment.
_FIRST_PART, _FIRST_TOKENS = 0.1, 2.0
# Largest share of its network that a replica uses: beyond it, transfers wait for each other, which is not modeled.
# Chosen by judgment.
_NETWORK_SHARE = 0.8
# Share of prompts whose transfer fits into the time reserved for it. Chosen by judgment.
_TRANSFER_QUANTILE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Halves:
    """Both halves of a service, for models stored in the same way.

    Parameters
    ----------
    prefill, decode
        The question of each pool.
    token_bytes
        KV cache of one token, on all accelerators of a replica together [bytes].
    workload
        The traffic of both halves.
    slo
        The limits of both halves together.
    """

    prefill: Question
    decode: Question
    token_bytes: float
    workload: Workload
    slo: Slo

    def bounded(self, taken: Plan) -> Question:
        """The question of the decode pool, without the instances that a prefill plan has taken."""
        return self.decode.with_options(**_left(taken))


def check(slo: Slo, options: Options) -> None:
    """Check that a service can be divided into halves.

    Raises
    ------
    InputError
        Limits on whole requests, no limit on the first token or none on later ones, or options of a single fleet.
    """
    if set(slo.limits) != {"ttft", "tpot"} or not (slo.is_on_requests or slo.is_on_mean):
        raise InputError(
            f"plan.disaggregate needs limits on TTFT and TPOT, of requests or of the mean, got {slo}",
            hint="slo: {ttft_ms: 1000, tpot_ms: 60}: they say what each pool is for",
        )
    for name in ("require", "budget_per_h", "confidence"):
        if getattr(options, name) not in ((), None):
            raise InputError(f"plan.disaggregate: plan.{name} is for one fleet", hint=f"remove plan.{name}")


def halves_of(inputs: EstimateInputs, options: Options, variant: str) -> Halves:
    """Both halves of the traffic, served with the weights and KV cache of a variant.

    Raises
    ------
    InfeasibleError
        The limit on the first token leaves no time for reading prompts.
    """
    assert isinstance(inputs.sizes, Workload)
    slo, workload = inputs.slo, inputs.sizes
    model = variant_of(inputs.model, variant)
    token_bytes = model.kv_bytes_per_token(1)
    cards = max(one.layout.accelerators for one in inputs.replica_types if one.variant == variant)
    prompts = prompts_of(workload)
    weight = prompts.request_rate.ravel() / prompts.total_rate
    transfer_s = prompts.input_tokens.ravel() * token_bytes / (NETWORK_BYTES_PER_S * cards)
    order = np.argsort(transfer_s)
    aside_s = float(transfer_s[order][np.searchsorted(np.cumsum(weight[order]), _TRANSFER_QUANTILE)])
    assert slo.ttft_s is not None
    assert slo.tpot_s is not None
    first_s = max(_FIRST_PART * slo.ttft_s, _FIRST_TOKENS * slo.tpot_s)
    left_s = math.floor((slo.ttft_s - aside_s - first_s) * MS_PER_S) / MS_PER_S  # a readable limit
    if left_s <= 0:
        raise InfeasibleError(
            f"the first token's limit of {slo.ttft_s:g} s leaves nothing for prompts: moving a KV cache takes up to "
            f"{aside_s:.3g} s at {NETWORK_BYTES_PER_S / BYTES_PER_GBIT:g} Gbit/s for each accelerator, the first step "
            f"of a decode replica {first_s:.3g} s"
        )
    prefill = replace(inputs, sizes=prompts, slo=replace(slo, ttft_s=left_s, tpot_s=None))
    decode = replace(
        inputs,
        sizes=cached_of(workload),
        slo=replace(slo, ttft_s=first_s),
        settings={**inputs.settings, "is_prefix_caching": True},
    )
    asked = [
        Question(workload=one.sizes, profile=_pool(one, name, variant, token_bytes), options=options)
        for name, one in ((PREFILL_POOL, prefill), (DECODE_POOL, decode))
        if isinstance(one.sizes, Workload)
    ]
    return Halves(prefill=asked[0], decode=asked[1], token_bytes=token_bytes, workload=workload, slo=slo)


def prompts_of(workload: Workload) -> Workload:
    """The prompts of a workload, each with a completion of one token."""
    rate = workload.request_rate.sum(axis=1, keepdims=True)
    weighted = (workload.request_rate * workload.input_tokens).sum(axis=1, keepdims=True)
    upper = np.asarray(workload.buckets.input_edges, float)[:, None]
    mean = np.divide(weighted, rate, out=upper.copy(), where=rate > 0)
    return replace(
        workload,
        buckets=Buckets(input_edges=workload.buckets.input_edges, output_edges=(1,)),
        request_rate=rate,
        input_tokens=mean,
        output_tokens=np.ones_like(rate),
    )


def cached_of(workload: Workload) -> Workload:
    """The same requests, with their prompts in the cache on arrival."""
    whole = PrefixReuse.fixed(np.ones(workload.buckets.shape[0]), "KV caches of prefill replicas")
    return replace(workload, prefix_reuse=whole)


def prompts_in(arrivals: Arrivals) -> Arrivals:
    """The requests as the prefill pool gets them."""
    return replace(arrivals, output_tokens=np.ones_like(arrivals.output_tokens), max_tokens=None)


def cached_in(arrivals: Arrivals) -> Arrivals:
    """The requests as the decode pool gets them, with all but the last token of each prompt cached."""
    known = np.maximum(arrivals.input_tokens - 1, 0).astype(np.int32)
    return replace(arrivals, cached_tokens=known, keys=None)


def _pool(inputs: EstimateInputs, name: str, variant: str, token_bytes: float) -> Profile:
    """The rates of the types of a variant as a pool, with their network no busier than allowed."""
    found = estimate_from(inputs)
    rows = [r for r, one in enumerate(found.replica_types) if one.variant == variant]
    types = tuple(pool_of(found.replica_types[r], name) for r in rows)
    cards = np.array([one.layout.accelerators for one in types], float)[:, None, None]
    sizes = inputs.planned_sizes.inputs
    most = _NETWORK_SHARE * NETWORK_BYTES_PER_S * cards / (sizes * token_bytes)
    arrays = {key: getattr(found, key)[rows] for key in ("max_request_rate", "low", "high")}
    return replace(
        found,
        replica_types=types,
        provenance=found.provenance[rows],
        reason=found.reason[rows],
        engines=tuple(found.engines[r] for r in rows),
        cautions=tuple(one for one in found.cautions if name == PREFILL_POOL or one.kind != "prefix-cache"),
        **{key: np.minimum(value, most) for key, value in arrays.items()},
    )


def _left(taken: Plan) -> dict[str, dict[str, int]]:
    """What a plan leaves of the stock that both pools share, as options."""
    items, options, used = taken.replica_types, taken.options, taken.instances
    machines = used * np.array([one.machines for one in items])
    cards = used * np.array([one.accelerators for one in items])
    most = dict(options.max_instances)
    for one in items:
        if (stock := one.offer.max_instances) is not None:
            most[one.offer.name] = min(stock, most.get(one.offer.name, stock))
    rented, held = (
        Bindings(items, (OFFER, INSTANCE_TYPE, REPLICA_TYPE)),
        Bindings(items, (ACCELERATOR, ACCELERATOR_IN_REGION, REGION)),
    )
    return {
        "max_instances": {name: _less(n, machines[rented.positions(name)]) for name, n in most.items()},
        "max_accelerators": {
            name: _less(n, cards[held.positions(name)]) for name, n in options.max_accelerators.items()
        },
    }


def _less(most: int, taken: Array) -> int:
    return max(0, most - int(taken.sum()))
