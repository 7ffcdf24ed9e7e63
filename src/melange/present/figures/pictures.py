"""The pictures of a service, with their captions and the numbers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from melange.plan.certificate import Certificate
from melange.plan.plan import Plan
from melange.plan.sweeps import (
    LimitSweep,
    SweepPoint,
    savings_against,
)
from melange.present.figures import by_limit, by_rate, by_size, by_type
from melange.present.figures import routing_grid as routes
from melange.present.figures.cells import Cell, margin_text
from melange.present.figures.efficiency import (
    is_distinguished,
    request_cost,
    typical_sizes,
    winners,
)
from melange.present.figures.picture import Picture, Variant
from melange.present.figures.theme import percent
from melange.present.study import Study
from melange.present.terminal.layout import LEAST_SHOWN, share_text
from melange.present.terminal.plan_tables import SHOWN_SHARE
from melange.profile.profile import Profile
from melange.units import REQUESTS_PER_THOUSAND, count_of, ms, significant

# Multiples of the service's rate; every sweep contains some of them. With more, bars get too thin for their labels.
_BAR_FACTORS = (0.25, 0.5, 1.0, 2.0)
# Number of types that are compared in pairs: 5 give 10 pairs to choose from, 6 would give 15.
_PAIRED = 5
# Number of representative request sizes, one row each, and how many of them get curves. More would show rare sizes, and
# take longer to read. Chosen by judgment.
_TYPICAL, _DRAWN = 6, 3


def picture_of_routes(study: Study) -> Picture:
    """Where each request size goes."""
    plan, workload = study.plan, study.workload
    rows = []
    for i, o in np.argwhere(workload.request_rate > 0).tolist():
        shares = [
            f"{plan.replica_types[r].name} {plan.share[r, i, o]:.0%}"
            for r in np.argsort(-plan.share[:, i, o], kind="stable")
            if plan.share[r, i, o] > SHOWN_SHARE
        ]
        part = workload.request_rate[i, o] / workload.total_rate
        rows.append((workload.buckets.label(i, o), f"{part:.2%}", ", ".join(shares) or "left out"))
    return Picture(
        name="routes",
        about="Where each request size goes",
        caption="A bar's length is the size's share of all requests (full width: the most frequent size), its colors "
        "are the replica types that serve it. Letters as in the table of types; two letters: the size is split.",
        variants=(Variant(label="", figure=routes.figure_routes(plan, study.legend)),),
        header=("Request size [tokens]", "Share of requests", "Goes to"),
        rows=tuple(rows),
        min_width=90 * int((workload.request_rate.sum(axis=0) > 0).sum()) + 90,
    )


def picture_of_winners(study: Study) -> Picture:
    """The cheapest type by request size."""
    profile, workload, found = study.profile, study.workload, study.found
    apart = is_distinguished(profile, found)
    rivalled = int((found.second >= 0).sum())
    rows = []
    for i, o in np.argwhere(found.best >= 0).tolist():
        first, second = (_name(study, int(r[i, o])) for r in (found.best, found.second))
        rows.append(
            (
                workload.buckets.label(i, o),
                first,
                significant(REQUESTS_PER_THOUSAND * found.cost[i, o], 4),
                second,
                margin_text(float(found.margin[i, o])),
            )
        )
    has_intervals = bool((profile.high > profile.low).any())
    certainty = (
        f" In {int(apart.sum()) or 'none'} of {rivalled} cells the winner stays ahead at the unfavorable ends of both "
        "80 % intervals; elsewhere a measurement could change the order."
        if has_intervals and rivalled
        else ""
    )
    return Picture(
        name="winners-by-size",
        about="The most cost-efficient type by request size",
        caption="Letter: the cheapest type per request on a fully used replica (price of the "
        "instance over its replicas and their maximum rate within the SLO). Number: extra cost of the second best. "
        "Black frames: sizes in this traffic. A plan rents whole instances, so a small fleet may differ." + certainty,
        variants=(Variant(label="", figure=by_size.figure_winners(profile, workload, found, study.legend)),),
        header=("Request size [tokens]", "Cheapest", "USD per 1,000 requests", "Second", "Extra cost"),
        rows=tuple(rows),
        min_width=_grid_width(profile),
    )


def picture_of_intervals(study: Study) -> Picture | None:
    """How certain the costs are; None if their error is not known."""
    profile, workload = study.profile, study.workload
    if not (profile.high > profile.low).any():
        return None
    cells = _drawn(study)
    rows: list[tuple[str, ...]] = []
    for cell in cells:
        for entry, costs in by_type.intervals(profile, study.legend, cell):
            ends = (significant(cost, 4) if np.isfinite(cost) else "cannot" for cost in costs)
            rows.append((workload.buckets.label(*cell), entry.label, *ends))
    return Picture(
        name="intervals",
        about="Cost of one request on each type, with uncertainty",
        caption="On fully used replicas. Whiskers: 80 % interval of the profile, cut at the right edge where the "
        "type may be unable to meet the SLO. If types err in the same direction, their order is more certain than "
        "overlapping whiskers suggest.",
        variants=tuple(
            Variant(
                label=f"{workload.buckets.label(*cell)} tokens",
                figure=by_type.figure_intervals(profile, workload, study.legend, cell),
            )
            for cell in cells
        ),
        choice="Request size",
        header=("Request size", "Replica type", "Low [USD/1,000]", "Estimate", "High"),
        rows=tuple(rows),
        min_width=600,
    )


def _drawn(study: Study) -> list[Cell]:
    """A medium request size, a short one and a long one."""
    cells = typical_sizes(study.workload, _TYPICAL)
    # The first is shown until the reader chooses another.
    return cells if len(cells) <= _DRAWN else [cells[k] for k in (len(cells) // 2, 0, len(cells) - 1)]


def picture_of_pairs(study: Study) -> Picture | None:
    """Two types compared; None if there is only one."""
    pairs = list(combinations(study.legend.of_compared[:_PAIRED], 2))
    if not pairs:
        return None
    variants = tuple(
        Variant(label=f"{a.label} and {b.label}", figure=by_size.figure_pair(study.profile, study.workload, a, b))
        for a, b in pairs
    )
    return Picture(
        name="two-types",
        about="Two types compared",
        caption="Color and letter: the cheaper of the two for a request of that size on a fully used replica. Number: "
        'extra cost of the other; "only": the other cannot serve it within the SLO. The stronger the color, the '
        "larger the lead (full from 50 % on). Black frames: sizes that occur in this traffic.",
        variants=variants,
        choice="Pair",
        min_width=_grid_width(study.profile),
    )


def pictures_by_rate(study: Study, points: Sequence[SweepPoint]) -> list[Picture]:
    """Cost by request rate, and savings."""
    legend, own, plan = study.legend, study.workload.total_rate, study.plan
    gap = max((point.plan.gap for point in points if point.plan), default=0.0)
    proven = "proven cheapest" if gap == 0 else f"proven within {gap:.2%} of the cheapest"
    missing = sum(point.plan is None for point in points)
    entries = by_rate.able_entries(points, legend)
    unable = [entry.label for entry in legend.of_compared if entry not in entries]
    cannot = f" Cannot serve this traffic alone: {', '.join(unable)}." if unable else ""
    lost = f" At {count_of(missing, 'rate')} no plan was found." if missing else ""
    budget = " The budget does not apply here." if study.options.budget_per_h is not None else ""
    chosen = [point for point in points if np.isclose(point.at / own, _BAR_FACTORS).any()]
    header = ("Rate [1/s]", "Kind", "Mix [USD/h]", "Gap", *(f"Only {entry.label} [USD/h]" for entry in entries))
    return [
        Picture(
            name="cost-by-rate",
            about="Cost by request rate",
            caption=(
                f"The same mix of sizes at other rates; every point is a separate plan, by closed form and {proven} "
                f"under it.{_simulated_words(plan)} Between points the line shows the cost of the next plan, which "
                f"also serves those rates.{cannot}{lost}{budget}"
            ),
            variants=(Variant(label="", figure=by_rate.figure_cost_by_rate(points, legend, plan)),),
            header=header,
            rows=(
                *_certified_row(plan, own, len(entries)),
                *(_rate_row(point, [by_rate.points_name(points, entry) for entry in entries]) for point in points),
            ),
        ),
        Picture(
            name="savings",
            about="Savings of the mix over one type alone",
            caption="1 - cost of the mix / cost of the cheapest fleet of that type alone, under the same settings, "
            "both by closed form." + cannot + budget,
            variants=(Variant(label="", figure=by_rate.figure_savings(chosen, legend)),),
            header=("Rate [1/s]", *(f"Against only {entry.label}" for entry in entries)),
            rows=tuple(_savings_row(p, [by_rate.points_name(points, entry) for entry in entries]) for p in chosen),
            min_width=140 + 22 * len(entries) * len(chosen),
        ),
    ]


def picture_of_cost_by_limit(study: Study, sweeps: Sequence[LimitSweep]) -> Picture:
    """Cost of the service against its SLO."""
    plan = study.plan
    rows = [
        (
            by_limit.LIMIT_NAME_BY_METRIC[sweep.metric],
            f"{ms(point.at):,.0f}",
            point.plan.kind if point.plan else "",
            f"{point.plan.cost_per_h:,.2f}" if point.plan else "cannot be met",
            f"{point.plan.gap:.2%}" if point.plan else "",
            _mix(point.plan) if point.plan else "",
        )
        for sweep in sweeps
        for point in sweep.points
    ]
    if plan.certificate is not None:
        own = (f"{ms(sweeps[0].own):,.0f}", plan.kind, f"{plan.cost_per_h:,.2f}", _gap(plan), _mix(plan))
        rows.insert(0, (by_limit.LIMIT_NAME_BY_METRIC[sweeps[0].metric], *own))
    unmet = [sweep for sweep in sweeps if any(point.plan is None for point in sweep.points)]
    words = [
        f" No plan meets {by_limit.LIMIT_NAME_BY_METRIC[sweep.metric].lower()} of "
        f"{', '.join(f'{ms(point.at):,.0f}' for point in sweep.points if point.plan is None)} ms."
        for sweep in unmet
    ]
    others = " The other limits stay as they are." if len(sweeps) > 1 else ""
    return Picture(
        name="cost-by-slo",
        about="Cost of a tighter or looser SLO",
        caption=(
            "Capacities are estimated again for every limit. Every point is a plan by closed form, with its proof "
            f"(whiskers reach down to the proven bound, if it is lower).{_simulated_words(plan)} Between points the "
            f"line shows the tighter limit's cost.{others}{''.join(words)}"
        ),
        variants=tuple(
            Variant(
                label=by_limit.LIMIT_NAME_BY_METRIC[sweep.metric],
                figure=by_limit.figure_cost_by_limit(sweep, study.legend, plan),
            )
            for sweep in sweeps
        ),
        choice="Limit",
        header=("Limit", "[ms]", "Kind", "Mix [USD/h]", "Gap", "Mix"),
        rows=tuple(rows),
    )


def pictures_by_limit(study: Study, sweep: LimitSweep) -> list[Picture]:
    """The cheapest type, and the cost of requests on each, as one limit varies."""
    cells = typical_sizes(study.workload, _TYPICAL)
    drawn = _drawn(study)
    assumed = "On fully used replicas; capacities are estimated again for every limit."
    return [
        Picture(
            name="winners-by-slo",
            about="The most cost-efficient type by SLO",
            caption=f"Letter: the cheapest type for such a request; number: USD per 1,000 requests. {assumed} "
            f"Black frame: this service's own limit. "
            f"Sizes: the busiest bucket of each of {len(cells)} parts of equal traffic, short to long.",
            variants=(
                Variant(label="", figure=by_limit.figure_winners_by_limit(sweep, study.legend, study.workload, cells)),
            ),
            header=("Limit [ms]", "Request size [tokens]", "Cheapest", "USD per 1,000 requests"),
            rows=tuple(_winner_rows(study, sweep, cells)),
            min_width=60 * len(sweep.points) + 160,
        ),
        Picture(
            name="request-cost-by-slo",
            about="Cost of one request size by SLO",
            caption=f"{assumed} A line begins at the tightest limit that its type can meet, which may be above the "
            "picture; hover for 80 % intervals.",
            variants=tuple(
                Variant(
                    label=f"{study.workload.buckets.label(*cell)} tokens",
                    figure=by_limit.figure_request_cost(sweep, study.legend, study.workload, cell),
                )
                for cell in drawn
            ),
            choice="Request size",
            header=(
                "Limit [ms]",
                "Request size",
                *(f"{entry.label} [USD/1,000]" for entry in study.legend.of_compared),
            ),
            rows=tuple(
                (f"{ms(point.at):,.0f}", study.workload.buckets.label(*cell), *_request_costs(study, point, cell))
                for cell in drawn
                for point in sweep.points
            ),
        ),
    ]


def _winner_rows(study: Study, sweep: LimitSweep, cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for point in sweep.points:
        found = winners(request_cost(point.profile), study.compared)
        for cell in cells:
            cost = REQUESTS_PER_THOUSAND * found.cost[cell]
            shown = significant(cost, 4) if np.isfinite(cost) else "-"
            size = by_limit.size_name(study.workload, cell)
            rows.append((f"{ms(point.at):,.0f}", size, _name(study, int(found.best[cell])), shown))
    return rows


def _request_costs(study: Study, point: SweepPoint, cell: Cell) -> list[str]:
    costs = [by_limit.cost_at_limits([point.profile], entry.r, cell)[0] for entry in study.legend.of_compared]
    return ["-" if np.isnan(cost) else significant(cost, 4) for cost in costs]


def _rate_row(point: SweepPoint, names: list[str]) -> tuple[str, ...]:
    if point.plan is None:
        return (significant(point.at, 4), "", "no plan", "", *("" for _ in names))
    costs = [point.plan.single_type[name].cost_per_h for name in names]
    singles = ("-" if cost is None else f"{cost:,.2f}" for cost in costs)
    return (
        significant(point.at, 4),
        point.plan.kind,
        f"{point.plan.cost_per_h:,.2f}",
        f"{point.plan.gap:.2%}",
        *singles,
    )


def _certified_row(plan: Plan, rate: float, singles: int) -> list[tuple[str, ...]]:
    """The row of the service's own plan if it is certified; the cost of its single types is unknown."""
    if plan.certificate is None:
        return []
    return [(significant(rate, 4), plan.kind, f"{plan.cost_per_h:,.2f}", _gap(plan), *("" for _ in range(singles)))]


def _gap(plan: Plan) -> str:
    return "not known" if plan.bound_per_h is None else f"{plan.gap:.2%}"


def _simulated_words(plan: Plan) -> str:
    """Which points of a curve were simulated, and why a certified plan's point is not on it."""
    certificate, shown = plan.certificate, plan.simulation
    if certificate is not None:
        star = f" Star: this service's certified plan, {plan.cost_per_h:,.2f} USD/h"
        return f"{star}{_against_closed_form(certificate, plan.cost_per_h)}. No other point was simulated."
    if shown is not None:
        held = f"{shown.attainment:.2%} of the requests met the limits"
        return f" Only the service's own plan was simulated: {held}."
    return " No plan was simulated."


def _against_closed_form(certificate: Certificate, cost_per_h: float) -> str:
    """Why the certified plan costs more or less than the closed form; empty if it costs the same."""
    before = f". By closed form it would be {certificate.cost_before_per_h:,.2f}"
    price = certificate.price(cost_per_h)
    if abs(price) < LEAST_SHOWN:
        return ""
    if price < 0:
        return f"{before}: the simulation finds capacity that summed loads with headroom do not count"
    return (
        f"{before}, but in simulation only {certificate.attainment_before:.2%} of its requests meet the SLO "
        f"(target {share_text(certificate.target)})"
    )


def _savings_row(point: SweepPoint, names: list[str]) -> tuple[str, ...]:
    saved = [savings_against(point.plan, name) if point.plan else np.nan for name in names]
    return (significant(point.at, 4), *("-" if np.isnan(value) else percent(value) for value in saved))


def _mix(plan: Plan) -> str:
    return ", ".join(
        f"{int(count)} x {t.name}" for t, count in zip(plan.replica_types, plan.instances, strict=True) if count
    )


def _name(study: Study, r: int) -> str:
    return study.profile.replica_types[r].name if r >= 0 else "-"


def _grid_width(profile: Profile) -> int:
    return 62 * profile.buckets.shape[1] + 110
