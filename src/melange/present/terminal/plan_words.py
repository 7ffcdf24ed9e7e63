"""The answer in words: mix, cost, share of requests that meet the SLO, and what is proven about the cost.

Every figure states its kind: certified (found and proven by simulation), simulated (the plan was simulated once,
unchanged), or closed form (nothing was simulated).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from melange.plan.certificate import Certificate
from melange.plan.plan import Plan
from melange.plan.simulation import Simulation
from melange.plan.switching import SwitchDecision
from melange.present.terminal.class_table import met_by_class
from melange.present.terminal.layout import LEAST_SHOWN, share_text, usd
from melange.profile.profile import ReplicaType
from melange.units import percent, significant

# A cheaper type that can serve this share of the requests is mentioned in the answer. A smaller share would name types
# that are no alternative; a larger one would hide that savings depend on few requests. Chosen by judgment.
_NEARLY_ALL = 0.99


# Smaller margins are shown as none: simulations are accurate to about this share. Chosen by judgment.
_NO_MARGIN = 0.005


def plan_sentence(plan: Plan) -> str:
    """The answer: mix, USD/h, USD per million tokens, share of requests that meet the SLO, savings."""
    answer = f"{_mix_and_cost(plan)}, {_held(plan)}"
    certificate = plan.certificate
    if certificate is None:
        return f"{_followed(answer, _closed_form_savings(plan))}{_nearly_alone(plan)}"
    savings = _certified_savings(plan, certificate)
    return _followed(answer, savings, is_apart=_is_beyond_reach(certificate))


def _followed(answer: str, savings: str, *, is_apart: bool = False) -> str:
    """The answer with its savings, in one sentence or apart; the answer alone if there is nothing to compare with."""
    if is_apart and savings:
        return f"{answer}. {savings[:1].upper()}{savings[1:]}."
    return f"{answer}{'; ' * bool(savings)}{savings}."


def _mix_and_cost(plan: Plan) -> str:
    mix = _and(_counted(plan.replica_types[r], int(plan.instances[r])) for r in used_types(plan))
    sentence = f"{mix}: {usd(plan.cost_per_h)}/h"
    per_mtok = plan.cost_per_mtok
    if per_mtok:
        sentence += f" ({usd(per_mtok['total'])} per million tokens, {usd(per_mtok['output'])} per million output)"
    if plan.served_fraction < 1:
        rate = plan.workload.total_rate * plan.served_fraction
        sentence += f", for {percent(plan.served_fraction)} of the requests ({significant(rate)}/s)"
    return sentence


def _held(plan: Plan) -> str:
    """The share of requests that meet the SLO, or a note that nothing was simulated."""
    if plan.certificate is not None:
        return _certified(plan.certificate, _under(plan, plan.certificate))
    if plan.simulation is not None:
        return _simulated(plan, plan.simulation)
    why = f": {plan.not_simulated}" if plan.not_simulated else ""
    if plan.slo is not None and not plan.slo.has_closed_form:  # rates under a percentile are simulated for each size
        return f"by sums of simulated rates (the plan itself was not simulated{why})"
    return f"by closed form (nothing was simulated{why})"


def _under(plan: Plan, certificate: Certificate) -> str:
    """What the simulated fleet lacked, or how much slower its steps were than estimated; empty if neither."""
    options, words = plan.options, []
    if options.spare_replicas or options.spare_total_replicas:
        words.append("the spare replicas lost")
    slower = max(certificate.slowed_by.values(), default=1.0) - 1.0
    if slower > 0:
        words.append(f"steps up to {percent(slower)} slower than estimated")
    return f" with {' and '.join(words)}" if words else ""


def _certified(certificate: Certificate, under: str) -> str:
    if certificate.classes and not _is_beyond_reach(certificate):
        held = f"certified: {met_by_class(certificate.classes)} met the limits of their class in simulation{under}"
        return f"{held}{_odds(certificate)}"
    held = f"{percent(certificate.attainment, 2)} of the simulated requests met the SLO{under}"
    if not _is_beyond_reach(certificate):
        return f"certified: {held} (target {share_text(certificate.target)}){_odds(certificate)}"
    wanted = share_text(certificate.wanted or certificate.target)
    why = f": {'; '.join(certificate.beyond_reach)}" if certificate.beyond_reach else ""
    return (
        f"certified for {share_text(certificate.target)} only: the target of {wanted} is infeasible for all "
        f"offered types. At most {percent(certificate.reach, 2)} of the requests can meet the SLO, and under this plan "
        f"{percent(certificate.attainment, 2)} do ({percent(certificate.low, 2)} at least){why}"
    )


def _odds(certificate: Certificate) -> str:
    """How likely the plan is to hold with the true step times; empty if the file lacks it."""
    if certificate.chance is None:
        return ""
    return f", and is {probability(certificate.chance)} likely to hold given the error of step times"


def _is_beyond_reach(certificate: Certificate) -> bool:
    """Whether no fleet can achieve what the SLO requires."""
    return certificate.wanted is not None and certificate.wanted > certificate.target


def _simulated(plan: Plan, shown: Simulation) -> str:
    """The result of one simulation of a plan that is proven under another statistic of the SLO."""
    is_other = plan.slo is not None and not plan.slo.is_on_requests
    proven = f"planned on the {plan.slo.statistic} of each limit" if plan.slo and is_other else "planned by closed form"
    held = f"{percent(shown.attainment, 2)} of the simulated requests individually met the limits"
    if shown.target is None:
        return f"{proven}: {held}"
    target = share_text(shown.target)
    if plan.holds:
        return f"{proven}: {held} (target {target})"
    if shown.target >= 1:
        return f"{proven}, not certified: {held}; no simulation can prove the target of {target}"
    return f"{proven}, not certified: {held}, which does not prove the target of {target}"


def _certified_savings(plan: Plan, certificate: Certificate) -> str:
    """Savings of the plan compared with the cheapest certified fleet of one type."""
    name, cost = certificate.single_type, certificate.single_type_per_h
    used = [plan.replica_types[r].name for r in used_types(plan)]
    if len(used) == 1 and name in (None, used[0]):
        return "no mix of types is cheaper, as far as searched"
    if name is None or cost is None:
        # Several required types exclude every single one: there is nothing to compare with.
        return "" if plan.options.require else "no certified fleet of a single type was found"
    replica_type = next(one for one in plan.replica_types if one.name == name)
    single = f"{_counted(replica_type, round(cost / replica_type.cost_per_h))}, {usd(cost)}/h"
    return f"{_less(plan.cost_per_h, cost)} the cheapest certified single type{_among(plan)} ({single})"


def _closed_form_savings(plan: Plan) -> str:
    """Savings of the plan compared with the cheapest single type, both by closed form."""
    best = plan.best_single
    if best is None:
        return _no_single_type(plan)
    name, baseline = best
    cost = baseline.cost_per_h or 0.0
    replica_type = next(candidate for candidate in plan.replica_types if candidate.name == name)
    single = f"{_counted(replica_type, baseline.instances)}, {usd(cost)}/h"
    kind = " by closed form" if plan.simulation is not None else ""
    return f"{_less(plan.cost_per_h, cost)} the cheapest single type{_among(plan)}{kind} ({single})"


def _no_single_type(plan: Plan) -> str:
    """That no single type serves everything, with the setting that prevents it; empty if several are required."""
    if all(one.served_fraction < 1 for one in plan.single_type.values()):
        return "no single type can serve all requests"
    if plan.options.require:
        return ""
    limit = "within the budget" if plan.options.budget_per_h is not None else "with the available instances"
    return f"no single type can serve all requests {limit}"


def _among(plan: Plan) -> str:
    """The single types that a plan is compared with, if they are not all: those that the service requires."""
    return " allowed by plan.require" if plan.options.require else ""


def _less(cost_per_h: float, other_per_h: float) -> str:
    """How much lower one cost is than another, with ``than``."""
    savings = 1.0 - cost_per_h / other_per_h
    if savings <= -LEAST_SHOWN:
        return f"{-savings:.1%} more than"
    return "the same as" if savings < LEAST_SHOWN else f"{savings:.1%} less than"


def _nearly_alone(plan: Plan) -> str:
    """A sentence on a type that would be cheaper alone except for a few requests; empty if there is none.

    Without it, savings that depend on 0.01 % of the requests would look larger than they are.
    """
    nearly = [
        (baseline.rest_cost_per_h, name, baseline.served_fraction)
        for name, baseline in plan.single_type.items()
        if baseline.rest_cost_per_h is not None and baseline.served_fraction >= _NEARLY_ALL
    ]
    single_cost_per_h = np.inf if plan.best_single is None else plan.best_single[1].cost_per_h or 0.0
    if not nearly or min(nearly)[0] >= single_cost_per_h:
        return ""
    cost, name, fraction = min(nearly)
    return f" {name} alone would cost {usd(cost)}/h, but cannot serve {percent(1 - fraction, 2)} of the requests."


def changes_sentence(plan: Plan, incumbent: Plan) -> str:
    """Instances to add and remove relative to the current plan, and how each plan was computed."""
    changes = plan.changes_from(incumbent)
    before = f"the current plan costs {usd(incumbent.cost_per_h)}/h, {_standing(incumbent)}"
    chosen = " The certified search minimizes cost, not changes." if plan.certificate else ""
    if not changes:
        return f"No change: this is the current fleet ({before}).{chosen}"
    listed = ", ".join(f"{count:+d} x {name}" for name, count in changes.items())
    return f"Changes: {listed} ({before}).{chosen}"


def decision_sentence(decision: SwitchDecision) -> str:
    """Whether to stay or to switch, and why."""
    return f"{'Switch' if decision.is_switch else 'Stay'}: {decision.reason}."


def _standing(plan: Plan) -> str:
    """How the current plan was computed, in a few words."""
    traffic = f"for {significant(plan.workload.total_rate, 4)} requests/s"
    if plan.certificate is not None:
        return f"certified {traffic} at {share_text(plan.certificate.target)}"
    return f"by {plan.kind} {traffic}" if plan.simulation is None else f"simulated {traffic}"


def proof(plan: Plan) -> str:
    """What is proven about the plan, in one or two sentences; on two lines for a certified plan."""
    if plan.certificate is not None:
        return _certainty(plan, plan.certificate)
    if plan.bound_per_h is None and plan.least_carbon is None:
        if plan.gap < 5e-5:
            return "Optimal: no plan within the budget serves more, under the closed form's assumptions."
        return f"Bound: no plan within the budget serves more than {plan.gap:.2%} above this ({plan.status})."
    if (beside := plan.least_carbon) is not None:
        least = "" if beside.bound_kg_per_h is None else f" less than {significant(beside.bound_kg_per_h)} kg CO2e/h"
        claim = f"Bound: no plan emits{least or ' less'}, with instances at full load less headroom,"
    elif plan.gap == 0 or plan.bound_per_h is None:
        claim = "Optimal: no cheaper plan exists"
    else:
        claim = (
            f"Bound: a better plan could save at most {plan.gap:.2%}; none costs less than {usd(plan.bound_per_h)}/h"
        )
    late = "" if plan.status == "optimal" else f"; the search stopped at the {plan.status}"
    rates = "the closed form's" if plan.slo is None or plan.slo.has_closed_form else "these"
    said = f"{claim} under {rates} assumptions (solved in {plan.solve_s:.2f} s{late})."
    if (shown := plan.simulation) is None:
        return said
    counted = _counted_requests(shown)
    once = (
        f"Simulated once: {percent(shown.attainment, 2)} of {counted} met the limits, {percent(shown.low, 2)} at least."
    )
    return f"{said} {once} {_simulated_requests(plan, shown)}".rstrip()


def _counted_requests(shown: Certificate | Simulation) -> str:
    """The size of the sample: what counts of each run."""
    runs = f"{shown.seeds} x " if shown.seeds > 1 else ""
    return f"{runs}{shown.requests:,} counted requests"


def _certainty(plan: Plan, certificate: Certificate) -> str:
    """Result of the simulation, its effect on cost, and the distance from the cheapest possible fleet."""
    counted = _counted_requests(certificate)
    shares = percent(certificate.attainment, 2), percent(certificate.low, 2)
    held = f"Certified: {shares[0]} of {counted} met the SLO, {shares[1]} at least"
    if certificate.classes:
        held = f"Certified by {counted}, each class separately; the closest to its target: {shares[1]} at least"
    price = certificate.price(plan.cost_per_h)
    before, met = f"{usd(certificate.cost_before_per_h)}/h", percent(certificate.attainment_before, 2)
    if abs(price) < LEAST_SHOWN:
        cost = f"Same cost as the closed-form plan ({before}, {met} met)"
    else:
        change = f"{abs(price):.1%} {'more' if price > 0 else 'less'}"
        cost = f"This costs {change} than the closed-form plan ({before}), with which {met} of the requests met the SLO"
    kept = ", ".join(f"{share:.0%} of {name}" for name, share in certificate.headroom.items())
    return (
        f"{held}. {cost}. Headroom: {kept}. Plans simulated: {certificate.plans}. "
        f"{_simulated_requests(plan, certificate)}\n"
        f"{margin_sentence(certificate)}"
        f"{_distance(plan)}"
    )


def margin_sentence(certificate: Certificate) -> str:
    """Error of step times, and the probability that the plan holds, as a line; empty if the file lacks them."""
    if certificate.margin is None or certificate.chance is None:
        return ""
    if abs(certificate.margin) < _NO_MARGIN:
        until = "none; the SLO is met with the estimated step times, but not if engine steps are slower"
    elif certificate.margin > 0:
        until = f"the SLO is met until engine steps are {percent(certificate.margin)} slower than estimated"
    else:
        until = f"the SLO is met only if engine steps are {percent(-certificate.margin)} faster than estimated"
    slower = ", ".join(f"{factor - 1:+.0%} on {name}" for name, factor in certificate.slowed_by.items())
    planned = f" Certified with slower steps: {slower}." if slower else ""
    odds = f"Given the error of step times, the plan holds with a probability of {probability(certificate.chance)}."
    return f"Margin: {until}. {odds}{planned}\n"


def probability(chance: float) -> str:
    """A probability to the nearest tenth: intervals of step times do not support more digits.

    >>> probability(0.68), probability(0.97)
    ('about 70%', 'more than 95%')
    """
    tenths = round(chance * 10)
    if tenths == 0:
        return "less than 5%"
    return "more than 95%" if tenths == 10 else f"about {tenths}0%"


def _simulated_requests(plan: Plan, shown: Certificate | Simulation) -> str:
    """The simulated requests, in a sentence; empty if the file lacks them."""
    known = shown.arrivals.replace(f"drawn from {plan.workload.source}", "drawn from the traffic above")
    return f"Requests: {known}." if known else ""


def _distance(plan: Plan) -> str:
    """How far a certified plan can be from the cheapest fleet that meets the SLO, or from that of least emissions."""
    if (beside := plan.least_carbon) is not None:
        if beside.bound_kg_per_h is None:
            return "Lower bound: none; fleets that emit less may exist."
        return (
            f"Lower bound: no fleet below {significant(beside.bound_kg_per_h)} kg CO2e/h can meet the SLO, assuming "
            f"that loads add up; this one emits {significant(beside.emitted_kg_per_h)} kg CO2e/h at full load less "
            "headroom."
        )
    if plan.bound_per_h is None:
        return "Lower bound: none; cheaper fleets may exist."
    if plan.gap <= 0:
        return "Optimal: no cheaper fleet can meet the SLO, assuming that loads add up."
    return (
        f"Lower bound: no fleet below {usd(plan.bound_per_h)}/h can meet the SLO, assuming that loads add up, so a "
        f"better plan could save at most {plan.gap:.1%}."
    )


def used_types(plan: Plan) -> list[int]:
    """Rented types, sorted by their number of requests, most first."""
    taken = (plan.share * plan.workload.request_rate).sum(axis=(1, 2))
    return sorted(np.flatnonzero(plan.instances).tolist(), key=lambda r: -taken[r])


def _counted(replica_type: ReplicaType, instances: int) -> str:
    """A number of instances of a type, with its accelerator if the name does not contain it."""
    offer = replica_type.offer
    if offer.accelerator in replica_type.name:
        return f"{instances} x {replica_type.name}"
    held = replica_type.accelerators
    each = f"{held} x " if held > 1 else ""
    return f"{instances} x {replica_type.name} ({each}{offer.accelerator})"


def _and(items: Iterable[str]) -> str:
    """Items as a list in words."""
    *first, last = [*items] or ["no replica"]
    return f"{', '.join(first)} and {last}" if first else last
