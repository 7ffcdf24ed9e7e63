"""A plan in two pools, for the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.disaggregated import DisaggregatedPlan
from melange.plan.plan import Plan
from melange.present.terminal.engine_words import engine_lines
from melange.present.terminal.layout import cautions, share_text, spaced, usd
from melange.present.terminal.plan_tables import mix_part, routes_part
from melange.profile.profile import PREFILL_POOL
from melange.units import count_of, duration, percent

_PURPOSE = {"prefill": "processes prompts", "decode": "generates tokens"}


def disaggregated_page(plan: DisaggregatedPlan) -> RenderableType:
    """The answer, then each pool's mix and routes."""
    parts: list[RenderableType] = [Text(_sentence(plan), style="bold"), Text(_terms(plan), style="dim")]
    for name, one in plan.plans.items():
        parts.append(Text(f"{name.capitalize()} pool ({_PURPOSE[name]}): {usd(one.cost_per_h)}/h", style="bold"))
        parts += [mix_part(one), routes_part(one), Text("\n".join(_settings(name, one)), style="dim")]
    told = dict.fromkeys((*plan.cautions, *plan.prefill.cautions, *plan.decode.cautions))
    parts.append(cautions(tuple(told)))
    return Group(*spaced(parts))


def _settings(name: str, plan: Plan) -> list[str]:
    """The engines' settings; prefix caches are shown for the pool that reads prompts."""
    return [line for line in engine_lines(plan) if name == PREFILL_POOL or not line.startswith("Prefix cache")]


def _sentence(plan: DisaggregatedPlan) -> str:
    cost = f"{usd(plan.cost_per_h)}/h in separate prefill and decode pools"
    if plan.attainment is None or plan.low is None or plan.target is None:
        held = "by closed form (nothing was simulated)"
    else:
        runs = f"{count_of(plan.seeds, 'simulation')} of both pools"
        met = f"{percent(plan.attainment, 2)} of the requests met the SLO in {runs}"
        held = f"{met}, {percent(plan.low, 2)} at least (target {share_text(plan.target)})"
        held += "" if plan.holds else "; the simulations do not prove it"
    if plan.savings is None:
        return f"{cost}: {held}."
    beside = f"{percent(abs(plan.savings))} {'less' if plan.savings >= 0 else 'more'} than"
    return f"{cost}: {held}; {beside} combined replicas ({usd(plan.aggregated_per_h or 0.0)}/h)."


def _terms(plan: DisaggregatedPlan) -> str:
    slo = plan.decode.slo
    first, rest = plan.prefill.slo, f"{slo}" if slo else ""
    moved = f"KV cache transfer takes {duration(plan.transfer_s)} on average"
    return f"{moved} | prefill replicas hold {first} | decode replicas hold {rest}, from a cached prompt"
