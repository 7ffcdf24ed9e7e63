"""A valid service with one change: more offers, a looser limit or less traffic never cost more by closed form."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from melange.errors import InfeasibleError, InputError
from melange.plan.options import CARBON
from melange.plan.plan import Plan
from melange.service.session import Session

Json = dict[str, Any]
Change = Callable[[Json, Plan], list[str] | None]

# Rates are found to a relative precision of 1e-6 or better; loads of thousands of cells add this up.
_ROUNDING = 1e-5


def _half_rate(sections: Json, plan: Plan) -> list[str] | None:
    own = any("workload" in one for one in sections.get("classes", {}).values())
    if "over" in sections["workload"] or own:  # classes with their own traffic keep it
        return None
    return [f"workload.rate={plan.workload.total_rate / 2!r}"]


def _looser(sections: Json, plan: Plan) -> list[str] | None:
    return [f"slo.{key}={value * 1.5!r}" for key, value in sections["slo"].items() if key.endswith("_ms")]


def _less_headroom(sections: Json, plan: Plan) -> list[str] | None:
    return ["plan.headroom=0"]


def _more_offers(sections: Json, plan: Plan) -> list[str] | None:
    offers = sections.get("offers", {})
    if "providers" in offers and "regions" not in offers and "file" not in offers and "gpus" in offers:
        return [f"offers.providers={json.dumps([*offers['providers'], 'lambda', 'nebius'])}"]
    return None


def _more_hits(sections: Json, plan: Plan) -> list[str] | None:
    engine = sections["engine"]
    if isinstance(engine, dict) and engine.get("enable_prefix_caching") is False:
        return None
    now = sections["workload"].get("prefix_hit_rate", 0.0)
    return None if now > 0.8 else [f"workload.prefix_hit_rate={now + 0.1!r}"]


def _more_acceptance(sections: Json, plan: Plan) -> list[str] | None:
    engine = sections["engine"]
    if not isinstance(engine, dict) or "speculative" not in engine or engine["speculative"]["acceptance_rate"] > 0.9:
        return None
    return [f"engine.speculative.acceptance_rate={engine['speculative']['acceptance_rate'] + 0.05!r}"]


def _more_memory(sections: Json, plan: Plan) -> list[str] | None:
    engine = sections["engine"]
    if not isinstance(engine, dict) or engine.get("gpu_memory_utilization", 1.0) > 0.9:
        return None
    return [f"engine.gpu_memory_utilization={engine['gpu_memory_utilization'] + 0.05!r}"]


def _more_seats(sections: Json, plan: Plan) -> list[str] | None:
    engine = sections["engine"]
    if not isinstance(engine, dict) or "max_num_seqs" not in engine or "max_num_batched_tokens" not in engine:
        return None
    return [f"engine.max_num_seqs={min(2 * engine['max_num_seqs'], engine['max_num_batched_tokens'])}"]


def _another_variant(sections: Json, plan: Plan) -> list[str] | None:
    return [f"variants={json.dumps([*sections.get('variants', ()), 'fp8', 'int4'])}"]


def _less_confidence(sections: Json, plan: Plan) -> list[str] | None:
    return ["plan.confidence=0.5"] if sections.get("plan", {}).get("confidence", 0) > 0.5 else None


def _more_spare(sections: Json, plan: Plan) -> list[str] | None:
    return None


CHEAPER: dict[str, Change] = {
    "half the rate": _half_rate,
    "looser limits": _looser,
    "no headroom": _less_headroom,
    "more providers": _more_offers,
    "more prefix hits": _more_hits,
    "more accepted drafts": _more_acceptance,
    "more memory": _more_memory,
    "more seats": _more_seats,
    "more variants": _another_variant,
    "less confidence": _less_confidence,
}


def rules_of_changes(file: Path, plan: Plan, sections: Json, rng: random.Random, most: int = 4) -> Iterator[str]:
    """Findings of a few random changes of the service."""
    options = plan.options
    if options.budget_per_h is not None or options.objective == CARBON or options.drop_unservable:
        return
    yield from _double_prices(file, plan, sections)
    possible = [(name, change(sections, plan)) for name, change in CHEAPER.items()]
    able = [(name, settings) for name, settings in possible if settings]
    for name, settings in rng.sample(able, min(most, len(able))):
        yield from _cheaper(file, plan, name, settings)


def _cheaper(file: Path, plan: Plan, name: str, settings: list[str]) -> Iterator[str]:
    try:
        other = Session(file, settings=settings).plan()
    except InfeasibleError as error:
        yield f"{name} ({settings}): infeasible: {str(error).splitlines()[0]}"
        return
    except InputError:
        return
    if (other.bound_per_h or 0.0) > plan.cost_per_h * (1 + _ROUNDING):
        yield f"{name} ({settings}): {other.cost_per_h} (bound {other.bound_per_h}) instead of {plan.cost_per_h}"


def _double_prices(file: Path, plan: Plan, sections: Json) -> Iterator[str]:
    """Prices twice as high: the same fleet, for twice as much."""
    offers = sections.get("offers", {})
    if "prices" in offers or sections.get("plan", {}).get("carbon_price_per_kg"):
        return
    markets = sorted({one.offer.market for one in plan.replica_types})
    prices = json.dumps(dict.fromkeys(markets, "+100%"))
    other = Session(file, settings=[f"offers.prices={prices}"]).plan()
    if (
        not np.isclose(other.cost_per_h, 2 * plan.cost_per_h, rtol=plan.options.gap + _ROUNDING)
        and plan.status == "optimal" == other.status
    ):
        yield f"double prices: {other.cost_per_h} instead of 2 x {plan.cost_per_h}"
