"""What must be true of every answer about a valid service: contradictions between figures, or with physics."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.variants import variant_of
from melange.plan.certificate import MOST_CARRIED
from melange.plan.options import CARBON
from melange.plan.plan import Plan
from melange.profile.profile import ReplicaType
from melange.replica.engine import Engine
from melange.workload.workload import Array

Json = dict[str, Any]

# Rounding of sums over thousands of cells.
_ROUNDING = 1e-6
_NONSENSE = re.compile(
    r"\bnan\b|\binf\b|\bNone\b|\bTrue\b|\bFalse\b|\{\}|Traceback|\d[eE][+-]\d\d|array\(|-0\.0+\b(?!\d)|…"
)


def rules_of_json(text: str) -> Iterator[str]:
    """JSON that parses, without numbers that are none."""

    def refuse(name: str) -> float:
        raise ValueError(f"{name} in JSON")

    try:
        json.loads(text, parse_constant=refuse)
    except ValueError as error:
        yield f"JSON: {error}"


def rules_of_text(text: str, width: int = 80) -> Iterator[str]:
    """Text for a terminal: no line is too long, none shows values of the program, and no row repeats the one before."""
    before = ""
    lines = text.splitlines()
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        # A command is meant to be copied, and names never wrap.
        if len(line) > width and not line.lstrip().startswith(("-", "vllm", "python", "melange", "mkdir", "#")):
            yield f"a line of {len(line)} characters: {line[:120]}"
        if found := _NONSENSE.search(line):
            yield f"text shows {found[0]!r}: {line.strip()[:120]}"
        is_continued = bool(after.strip()) and "  " not in after.strip()
        if line.strip() and line == before and not is_continued and any(char.isdigit() for char in line):
            yield f"two equal lines: {line.strip()[:120]}"
        before = line


def rules_of_plan(plan: Plan, sections: Json) -> Iterator[str]:
    """Everything that can be checked on one plan."""
    yield from _sums(plan)
    yield from _proof(plan)
    yield from _asked(plan, sections)
    yield from _proven(plan)
    yield from _servers(plan)
    yield from _points(plan)
    yield from physics(plan)


def _sums(plan: Plan) -> Iterator[str]:
    """Costs, shares and loads add up."""
    items, count = plan.replica_types, plan.instances
    cost = sum(one.cost_per_h * int(n) for one, n in zip(items, count, strict=True))
    if not math.isclose(cost, plan.cost_per_h, rel_tol=_ROUNDING):
        yield f"cost: instances cost {cost}, the plan {plan.cost_per_h}"
    rate, total = plan.workload.request_rate, plan.share.sum(axis=0)
    if total.max(initial=0.0) > 1 + _ROUNDING or plan.share.min(initial=0.0) < 0:
        yield f"shares: {plan.share.min()} to {total.max()}"
    served = float((total * rate).sum() / rate.sum())
    if not math.isclose(served, plan.served_fraction, abs_tol=_ROUNDING):
        yield f"served_fraction: shares serve {served}, the plan says {plan.served_fraction}"
    is_whole = plan.options.budget_per_h is None and not plan.options.drop_unservable and plan.certificate is None
    if is_whole and served < 1 - _ROUNDING:
        yield f"served_fraction: {served}, and nobody asked for less than all"
    if ((plan.share > 0).any(axis=(1, 2)) & (count == 0)).any():
        yield "shares: a type without instances serves requests"
    if ((plan.share > 1e-9) & (plan.max_request_rate <= 0) & (rate > 0)).any():
        yield "shares: a type serves a size at a rate of 0"
    replicas = count * np.array([one.replicas_per_instance for one in items])
    used = plan.share * rate
    with np.errstate(divide="ignore", invalid="ignore"):
        load = np.where(used > 0, used / plan.max_request_rate, 0.0).sum(axis=(1, 2)) / np.maximum(replicas, 1)
    if not np.allclose(load, plan.load, rtol=1e-5, atol=1e-6):
        r = int(np.argmax(abs(load - plan.load)))
        yield f"load: {items[r].name} carries {load[r]}, the plan says {plan.load[r]}"
    if plan.certificate is None and plan.load.max(initial=0.0) > 1 - plan.options.headroom + 1e-5:
        yield f"load: {plan.load.max()} with a headroom of {plan.options.headroom}"
    for name, one in (plan.cost_per_mtok or {}).items():
        if not 0 < one < math.inf:
            yield f"cost_per_mtok.{name}: {one}"


def _proof(plan: Plan) -> Iterator[str]:
    """The bound, the gap and the single types agree with the cost."""
    cost, bound, options = plan.cost_per_h, plan.bound_per_h, plan.options
    if not 0 <= plan.gap <= 1:
        yield f"gap: {plan.gap}"
    if bound is not None and not 0 <= bound <= cost * (1 + _ROUNDING):
        yield f"bound: {bound} of a plan of {cost}"
    if bound is not None and plan.certificate is None and not math.isclose(1 - bound / cost, plan.gap, abs_tol=1e-6):
        yield f"gap: {plan.gap} with a bound of {bound} and a cost of {cost}"
    if plan.status == "optimal" and plan.gap > options.gap + 1e-6:
        yield f"gap: {plan.gap} of an optimal plan, {options.gap} asked for"
    for name, one in plan.single_type.items():
        if (one.cost_per_h is None) != bool(one.reason):
            yield f"single_type.{name}: cost {one.cost_per_h}, reason {one.reason!r}"
        # With a budget, emissions or a requirement the plan answers another question than its single types.
        is_same = options.budget_per_h is None and options.objective != CARBON and plan.certificate is None
        if is_same and one.cost_per_h is not None and bound is not None and one.cost_per_h < bound * (1 - 1e-6):
            yield f"single_type.{name}: costs {one.cost_per_h}, the bound is {bound}"
    if plan.savings is not None and not -1e-3 - options.gap <= plan.savings < 1 and options.objective != CARBON:
        yield f"savings: {plan.savings}"


def _asked(plan: Plan, sections: Json) -> Iterator[str]:
    """The plan does what the file asks for."""
    asked, options = sections.get("plan", {}), plan.options
    used = [one for one, n in zip(plan.replica_types, plan.instances, strict=True) if n]
    if options.max_types is not None and len(used) > options.max_types:
        yield f"max_types: {len(used)} types, {options.max_types} allowed"
    if options.budget_per_h is not None and plan.cost_per_h > options.budget_per_h * (1 + _ROUNDING):
        yield f"budget: {plan.cost_per_h} of {options.budget_per_h}"
    if sum(plan.replicas.values()) < options.min_total_replicas:
        yield f"min_total_replicas: {sum(plan.replicas.values())}"
    if isinstance(options.min_replicas, int) and any(0 < n < options.min_replicas for n in plan.replicas.values()):
        yield f"min_replicas: {plan.replicas}"
    if "confidence" in asked and plan.certificate is None and options.confidence != asked["confidence"]:
        yield f"confidence: {options.confidence}"
    yield from _rented(plan, used, asked, sections)


def _rented(plan: Plan, used: Sequence[ReplicaType], asked: Json, sections: Json) -> Iterator[str]:
    """What is rented is what the file offers."""
    offers = sections.get("offers", {})
    names = {one.offer.accelerator for one in used}
    if set(asked.get("exclude", ())) & names:
        yield f"exclude: {names}"
    if used and set(asked.get("require", ())) - names:
        yield f"require: {names}"
    if missing := names - set(offers.get("gpus", names)):
        yield f"offers.gpus: {missing}"
    if missing := {one.offer.provider for one in used} - set(offers.get("providers", [o.offer.provider for o in used])):
        yield f"offers.providers: {missing}"
    markets = offers.get("market", "on-demand")
    if missing := {one.offer.market for one in used} - set([markets] if isinstance(markets, str) else markets):
        yield f"offers.market: {missing}"
    for name, most in offers.get("max", {}).items():
        held = [
            (one.accelerators if one.offer.accelerator == name else one.machines) * int(n)
            for one, n in zip(plan.replica_types, plan.instances, strict=True)
            if name in (one.offer.accelerator, _offer_name(one))
        ]
        if sum(held) > most:
            yield f"offers.max.{name}: {sum(held)} of {most}"
    engine = sections["engine"] if isinstance(sections["engine"], dict) else {}
    parts = {part for name in sections.get("variants", ()) for part in name.split("+")}
    parts |= {"fp8-kv"} if engine.get("kv_cache_dtype", "auto") != "auto" else set()
    if strange := {part for one in used for part in one.variant.split("+")} - parts - {""}:
        yield f"variants: {strange}"


def _offer_name(one: ReplicaType) -> str:
    return "/".join(part for part in (one.offer.provider, one.offer.region, one.offer.instance_type) if part)


def _proven(plan: Plan) -> Iterator[str]:
    """A certificate and a simulation are shares of requests, and say what was asked for."""
    for name in ("attainment", "low", "target"):
        value = getattr(plan, name)
        if value is not None and not 0 <= value <= 1:
            yield f"{name}: {value}"
    if plan.low is not None and plan.attainment is not None and plan.low > plan.attainment + 1e-12:
        yield f"low: {plan.low} above the attainment {plan.attainment}"
    proof = plan.certificate
    if proof is None:
        return
    if proof.low < proof.target - 1e-12:
        yield f"certificate: low {proof.low} below its own target {proof.target}"
    if plan.target is not None and bool(plan.holds) != (proof.low >= plan.target):
        yield f"holds: {plan.holds} with low {proof.low} and target {plan.target}"
    if proof.chance is not None and not 0 <= proof.chance <= 1:
        yield f"chance: {proof.chance}"
    if proof.margin is not None and plan.holds and proof.margin < 0:
        yield f"margin: {proof.margin} of a plan that holds"
    if not 0 <= proof.reach <= 1 or proof.attainment > proof.reach + 0.01:
        yield f"reach: {proof.reach} with an attainment of {proof.attainment}"
    if proof.single_type_per_h is not None and proof.single_type_per_h < plan.cost_per_h * (
        1 - plan.options.gap - 1e-6
    ):
        yield f"certificate: one type holds for {proof.single_type_per_h}, the plan costs {plan.cost_per_h}"
    if any(not 1 - MOST_CARRIED - _ROUNDING <= share < 1 for share in proof.headroom.values()):
        yield f"certificate.headroom: {dict(proof.headroom)}"


def _servers(plan: Plan) -> Iterator[str]:
    """Servers start with what the plan counts on."""
    by_name = {
        one.name: (one, engine, r) for r, (one, engine) in enumerate(zip(plan.replica_types, plan.engines, strict=True))
    }
    for server in plan.to_json()["servers"]:
        item, engine, r = by_name[server["replica_type"]]
        if engine is None:
            continue
        place = f"servers.{item.name}"
        longest = _longest(plan, r)
        if not min(longest, engine.max_context) <= server["max_context"] <= engine.max_context:
            yield f"{place}.max_context: {server['max_context']}, requests of up to {longest}, {engine.max_context}"
        if not 1 <= server["max_sequences"] <= engine.max_sequences:
            yield f"{place}.max_sequences: {server['max_sequences']} of {engine.max_sequences}"
        if server["max_batched_tokens"] < 1 or (
            server["is_chunked"] and server["max_batched_tokens"] < server["max_sequences"]
        ):
            yield f"{place}.max_batched_tokens: {server['max_batched_tokens']}, {server['max_sequences']} sequences"
        if not server["is_chunked"] and engine.is_chunked:
            yield f"{place}.is_chunked: {server['is_chunked']}"


def _longest(plan: Plan, r: int) -> float:
    """The longest planned request that a type serves, at its planned size [tokens]."""
    carried = (plan.share[r] * plan.workload.request_rate) > 0
    sizes = plan.workload.input_tokens + plan.workload.output_tokens
    return float(sizes[carried].max(initial=0.0))


def _points(plan: Plan) -> Iterator[str]:
    """Load points can be run: they fit in the seats, the memory and the context of the replica."""
    for point in plan.to_json()["load_points"]:
        r = next(
            r
            for r, one in enumerate(plan.replica_types)
            if one.type_name == point["replica_type"] and plan.instances[r]
        )
        engine, place = plan.engines[r], f"load_points.{point['replica_type']}"
        assert engine is not None
        if not 1 <= point["concurrency"] <= engine.max_sequences * 1.5 + 1:
            yield f"{place}: {point['concurrency']} in flight, {engine.max_sequences} seats"
        if point["input_tokens"] + point["output_tokens"] > engine.max_context:
            yield f"{place}: {point['input_tokens']} + {point['output_tokens']} tokens, context {engine.max_context}"
        if point["requests"] < point["concurrency"]:
            yield f"{place}: {point['requests']} requests for {point['concurrency']} in flight"
        served = plan.share[r] * plan.workload.request_rate
        stay_s = point["concurrency"] / (
            served.sum() / (plan.instances[r] * plan.replica_types[r].replicas_per_instance)
        )
        slo = plan.slo
        if (
            slo is not None
            and slo.latency_s is not None
            and not slo.classes
            and point["concurrency"] > 2
            and stay_s > 1.6 * slo.latency_s
        ):
            yield f"{place}: {stay_s:.3g} s a request by Little's law, the limit is {slo.latency_s} s"


def physics(plan: Plan) -> Iterator[str]:
    """No rate needs more arithmetic, bandwidth or memory than the replica's datasheet has."""
    rates = plan.question.profile.max_request_rate
    engines = plan.question.profile.engines or (None,) * len(rates)
    for item, rate, engine in zip(plan.replica_types, rates, engines, strict=True):
        if engine is not None and (rate > 0).any():
            yield from _one_physics(plan, item, rate, engine)


def _one_physics(plan: Plan, item: ReplicaType, rate: Array, engine: Engine) -> Iterator[str]:
    fact = accelerators()[item.offer.accelerator]
    model = variant_of(find_model(plan.model), item.variant)
    inputs, outputs = plan.workload.input_tokens, plan.workload.output_tokens
    reuse = plan.workload.prefix_reuse
    hit = 0.0 if reuse is None or not engine.is_prefix_caching else reuse.reusable_share[:, None] * engine.prefix_kept
    count = item.layout.accelerators
    flops = count * max(fact.flops_by_dtype.values())
    needed = rate * (np.maximum(inputs * (1 - hit), 1) + outputs - 1) * 2 * model.active_parameters(output_head=False)
    if (needed > flops * (1 + _ROUNDING)).any():
        yield f"{item.name}: {needed.max() / flops:.3g} times its arithmetic"
    speculation = engine.speculation
    per_step = 1.0
    if speculation is not None:
        a, k = speculation.accepted_share, speculation.draft_tokens
        per_step = (1 - a ** (k + 1)) / (1 - a)
    step_s = model.weight_bytes_read(1) / (fact.bandwidth_bytes_per_s * count)
    most = engine.max_sequences * per_step / step_s
    if (rate * (outputs - 1) > most * (1 + _ROUNDING)).any():
        yield f"{item.name}: {(rate * outputs).max():.3g} tokens/s, weights are read for {most:.3g} at most"
    if model.weight_bytes() / count > fact.memory_bytes:
        yield f"{item.name}: {model.weight_bytes() / count:.3g} bytes of weights, memory of {fact.memory_bytes:.3g}"
    slo = plan.slo
    if slo is None or slo.classes or not slo.has_closed_form:
        return
    token_s = step_s / per_step / max(1, 1 if item.pipeline_parallel == 1 else 1 / item.pipeline_parallel)
    if slo.tpot_s is not None and token_s > slo.tpot_s * (1 + _ROUNDING) and (rate[outputs > 2] > 0).any():
        yield f"{item.name}: {token_s:.3g} s for a token's weights, TPOT limit {slo.tpot_s}"
    first_s = np.maximum(inputs * (1 - hit), 1) * 2 * model.active_parameters(output_head=False) / flops
    if slo.ttft_s is not None and (first_s[rate > 0] > slo.ttft_s * (1 + _ROUNDING)).any():
        yield f"{item.name}: {first_s[rate > 0].max():.3g} s of arithmetic for a prompt, TTFT limit {slo.ttft_s}"


def rules_of_report(report: Json) -> Iterator[str]:
    """Shares and times of a validation."""
    found = report.get("attainment") or {}
    values = [float(found[key]) for key in ("low", "value", "high") if found.get(key) is not None]
    if any(not 0 <= one <= 1 for one in values) or values != sorted(values):
        yield f"report.attainment: {found}"
    if not 0 <= sum(report["causes"].values()) <= 1 + _ROUNDING:
        yield f"report.causes: {report['causes']}"
    for metric, one in report["times"].items():
        ordered = [one[key] for key in ("p50", "p90", "p95", "p99") if one.get(key) is not None]
        if ordered != sorted(ordered) or any(value < 0 for value in ordered):
            yield f"report.times.{metric}: {one}"
    for one in report["types"]:
        # A certified replica may carry more than the sum of its loads suggests.
        most = {"requests": 1, "busy": 1, "kv": 1, "peak_kv": 1, "attainment": 1, "planned_load": MOST_CARRIED}
        for key, limit in most.items():
            if one[key] is not None and not -1e-9 <= one[key] <= limit + 1e-9:
                yield f"report.types.{one['name']}.{key}: {one[key]}"


def rules_of_costs(label: str, costs: Sequence[float | None]) -> Iterator[str]:
    """A series of costs that may not fall."""
    known = [one for one in costs if one is not None]
    if any(after < before * (1 - 1e-2) for before, after in pairwise(known)):
        yield f"{label}: {known}"


def rules_of_schedule(content: Json) -> Iterator[str]:
    """Costs over time: bounds below what is planned, shares from 0 to 1, and no extra charge for a promise."""
    planned, bound = content["planned_per_h"], content["bound_per_h"]
    if bound is not None and not 0 <= bound <= planned * (1 + _ROUNDING):
        yield f"schedule.bound_per_h: {bound} of {planned}"
    if not content["cost_per_week"] > 0 or not -1 <= (content["savings"] or 0) < 1:
        yield f"schedule: {content['cost_per_week']} a week, savings {content['savings']}"
    for name, prices in content["prices"].items():
        demand = prices["on-demand"]
        if demand is not None and (prices["reserved"] or 0) > demand * (1 + _ROUNDING):
            yield f"schedule.prices.{name}: {prices}"
    for one in content["frontier"]:
        for key, value in one["outcome"].items():
            if "fraction" in key and not -1e-9 <= value <= 1 + 1e-9:
                yield f"schedule.frontier.{key}: {value}"
    for one in content["alternatives"]:
        if not (one.get("cost_per_week") or 1) > 0:
            yield f"schedule.alternatives: {one}"


def rules_of_explanation(content: Json) -> Iterator[str]:
    """Prices at which an unused type would be used are below its own, and more traffic costs something."""
    told, cost = content["explain"], content["cost_per_h"]
    offers = {one["name"]: one["offer"]["cost_per_h"] for one in content["replica_types"]}
    slack = max(content["gap"], 2e-3) * cost
    for name, price in told["break_even_per_h"].items():
        if price < 0 or (content["instances"][name] == 0 and told["is_exact"] and price > 4 * offers[name] + slack):
            yield f"explain.break_even_per_h.{name}: {price}, it costs {offers[name]}"
    if told["next_request_per_h"] < -1e-9 or (told["next_step_per_h"] or 0) < -slack:
        yield f"explain: one more request costs {told['next_request_per_h']}, the next step {told['next_step_per_h']}"
    if told["cheaper"] is not None and told["cheaper"]["cost_per_h"] > cost:
        yield f"explain.cheaper: {told['cheaper']['cost_per_h']} of {cost}"
