"""Write docs/validation.md: errors of estimates on fitted and held-out points, and the cost of these errors.

    python bench/validation.py MEASURED

MEASURED is a folder with the files that bench/measured.py reads; the script does nothing if it is missing. Every
accelerator and every model is held out of a separate fit (bench/calibrate.py), so the results do not depend on the
current constants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from calibrate import FITTED, HeldOut, hold_out
from curves import Curve, curves_of, rate_errors
from errors_held_out import HELD, RATES, STEPS, TITLES, of_quantity, pooled, rate_error, relative, residuals_of
from measured import Measured, Point, read_points
from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators
from melange.replica.capacity import mean_step_s, prompt_times_s, ttft_s
from melange.replica.era import Residuals, find_era, kind_of
from pages import BARS, PAGE, bar, percent, section_of, table, with_section, with_shortage
from regret import Regrets, almost_known, cases, regrets
from shortage import shortage_table
from table import Table
from tried import tried

Array = npt.NDArray[np.float64]

LEAST = 5
# Parts of the names of mixture-of-experts models.
ROUTED = ("gpt-oss", "MiniMax", "Kimi")
FLEETS = (3, 8, 20, 40)


def by_quantity(all_held: Mapping[str, HeldOut]) -> str:
    """Errors of each era by measured quantity."""
    rows = []
    for name, held in all_held.items():
        for title, quantities in (("TPOT", STEPS), ("saturation rate", RATES)):
            chosen = of_quantity(held, quantities)
            if chosen.sum() < LEAST:
                continue
            change = relative if title == "TPOT" else rate_error
            row = [name, title, f"{chosen.sum()}"]
            for kind in TITLES:
                error = change(residuals_of(held, kind)[chosen])
                row.append(f"{percent(np.median(error))} ({percent(np.quantile(error, 0.9))})")
            rows.append(row)
    return table(["era", "of", "points", *TITLES.values()], rows, numbers=4)


def by_group(all_held: Mapping[str, HeldOut], title: str, key: Callable[[Point], str]) -> str:
    """Median errors of step times by group: fitted, accelerator and model held out."""
    rows = []
    for name, held in all_held.items():
        groups = np.array([key(point) for point in held.points])
        for group in sorted(set(groups)):
            chosen = groups == group
            errors = [percent(np.median(relative(residuals_of(held, kind)[chosen]))) for kind in TITLES]
            bias = np.exp(np.median(held.accelerator[chosen]))
            rows.append([name, group, f"{chosen.sum()}", *errors, f"{bias:.2f}"])
    return table(["era", title, "points", *TITLES.values(), "measured / predicted"], rows, numbers=5)


def by_limit(curves: Mapping[str, Sequence[Curve]]) -> str:
    """Errors of the maximum rate under a TPOT limit."""
    rows = []
    for name, listed in curves.items():
        if not listed:
            continue
        cells = []
        for kind in TITLES:
            error = rate_errors(listed, kind)
            cells.append(f"{percent(np.median(error))} ({percent(np.quantile(error, 0.9))})")
        rows.append([name, f"{len(listed)}", f"{len(rate_errors(listed, 'fitted'))}", *cells])
    return table(["era", "curves", "limits", *TITLES.values()], rows, numbers=5)


def coverage_of_steps(held: HeldOut, kind: str) -> Array:
    """Whether each held-out point is within the residuals of other accelerators or models of the same kind."""
    residuals = residuals_of(held, kind)
    groups = np.array([getattr(point, kind) if kind == "accelerator" else point.model.name for point in held.points])
    kinds = np.array([kind_of(point.model) for point in held.points])
    inside = np.full(len(groups), np.nan)
    for place, (group, of_kind) in enumerate(zip(groups, kinds, strict=True)):
        others = residuals[(groups != group) & (kinds == of_kind)]
        if len(others) >= LEAST:
            low, high = np.quantile(others, (0.1, 0.9))
            inside[place] = low <= residuals[place] <= high
    return inside[np.isfinite(inside)]


def shipped_coverage(held: HeldOut, kind: str) -> Array:
    """Whether each held-out point is within the shipped interval for its kind."""
    residuals = residuals_of(held, kind)
    known = [find_era(held.era.name).known_of(point.model, accelerators()[point.accelerator]) for point in held.points]
    low = np.log([one.low for one in known])
    high = np.log([one.high for one in known])
    return ((low <= residuals) & (residuals <= high)).astype(float)


def coverage_of_rates(curves: Sequence[Curve], kind: str) -> Array:
    """Whether measured maximum rates are between low and high."""
    inside = []
    for curve in curves:
        limits_s = curve.limits_s()
        if not len(limits_s):
            continue
        point = curve.points[0]
        residuals: Residuals = find_era(curve.held.era.name).known_of(point.model, accelerators()[point.accelerator])
        low, high = curve.interval(limits_s, curve.held.constants_for(point, kind), residuals)
        measured = curve.measured(limits_s)
        inside.append((low <= measured * (1 + 1e-9)) & (measured <= high * (1 + 1e-9)))
    return np.concatenate(inside).astype(float) if inside else np.array([])


def coverage(all_held: Mapping[str, HeldOut], curves: Mapping[str, Sequence[Curve]]) -> str:
    """Share of held-out points within the 80 % intervals."""
    rows = []
    for name, held in all_held.items():
        row = [name]
        for kind in HELD:
            others = coverage_of_steps(held, kind)
            row.append(percent(shipped_coverage(held, kind).mean()))
            row.append(percent(others.mean()) if len(others) else "-")
            rates = coverage_of_rates(curves[name], kind)
            row.append(percent(rates.mean()) if len(rates) else "-")
        rows.append(row)
    heads = ["as shipped", "from others", "rate under a limit"]
    return table(["era", *(f"{kind}: {head}" for kind in HELD for head in heads)], rows, numbers=6)


def first_tokens(all_held: Mapping[str, HeldOut]) -> str:
    """TTFT of closed loops, compared with that of Poisson arrivals at the same number of running requests."""
    rows = []
    for name, held in all_held.items():
        points = [point for point in held.points if not point.is_saturated]
        if not points:
            continue
        side_by_side = Table(points, held.era)
        replicas = side_by_side.replicas(held.era.constants)
        batch = side_by_side.running(replicas)
        step_s = mean_step_s(replicas, side_by_side.sizes, batch)
        slots = np.maximum(side_by_side.most, batch * 1.001)
        predicted = ttft_s(replicas, side_by_side.sizes, batch, slots, step_s)[:, 0, 0]
        alone = prompt_times_s(replicas, side_by_side.sizes, batch)[0][:, 0, 0]
        measured = np.array([point.first_s for point in points])
        error = np.abs(predicted / measured - 1)
        low, high = np.quantile(measured / predicted, (0.1, 0.9))
        rows.append(
            [
                name,
                f"{len(points)}",
                percent(np.median(error)),
                f"{np.median(measured / predicted):.2f}",
                f"{low:.2f}-{high:.2f}",
                f"{np.median(measured / alone):.2f}",
            ]
        )
    heads = ["era", "points", "median error", "measured / predicted", "10-90 %", "measured / own prompt alone"]
    return table(heads, rows, numbers=5)


def left_out(measured: Mapping[str, Measured]) -> str:
    """The number of used rows, and of rows left out, by reason."""
    rows = []
    for name, found in measured.items():
        rows.append([name, "points that count", f"{len(found.points)}"])
        rows += [[name, f"left out: {reason}", f"{count}"] for reason, count in sorted(found.left_out.items())]
    return table(["era", "rows", "number"], rows, numbers=1)


def regret_table(all_held: Mapping[str, HeldOut]) -> tuple[str, dict[str, Regrets]]:
    """Regret by held-out property, kind of case, size of the fleet, and with better estimates."""
    rows, regrets_by_kind = [], {}
    for kind in HELD:
        listed = cases(all_held.values(), kind)
        found = regrets_by_kind[kind] = regrets(listed)
        names = np.array(found.names)
        groups = {
            "all": np.ones(len(names), bool),
            "dense models": np.array([not any(one in name for one in ROUTED) for name in names]),
            "saturation": np.array([name.endswith("saturation") for name in names]),
        }
        groups |= {
            f"{low}-{high} replicas of the best type": (found.replicas >= low) & (found.replicas < high)
            for low, high in pairwise(FLEETS)
        }
        rows += [_regret_row(TITLES[kind], group, found, chosen) for group, chosen in groups.items()]
        anchored = regrets(cases(all_held.values(), kind, anchors=2))
        rows.append(_regret_row(TITLES[kind], "under limits, two anchors a type", anchored))
        rows.append(_regret_row(TITLES[kind], "all, every capacity known to 5 %", regrets(almost_known(listed))))
        rows.append([TITLES[kind], "no plan from estimates", f"{found.without}", "", "", ""])
    heads = ["", "instances of", "number", "the mix", "with its shares", "as rented"]
    return table(heads, rows, numbers=4), regrets_by_kind


def _regret_row(title: str, group: str, found: Regrets, chosen: npt.NDArray[np.bool_] | None = None) -> list[str]:
    """Medians, with 90 % quantiles in brackets."""
    picked = np.ones(len(found.names), bool) if chosen is None else chosen
    values = [values[picked] for values in (found.mix, found.with_shares, found.as_rented)]
    cells = [f"{percent(np.median(one))} ({percent(np.quantile(one, 0.9))})" for one in values]
    return [title, group, f"{picked.sum()}", *cells]


def main() -> None:
    """Fit, hold out, and write the page."""
    arguments = parser_of(__doc__).parse_args()
    if is_missing(arguments.measured):
        return
    measured = {name: read_points(arguments.measured, name) for name in FITTED}
    known = {name: find_era(name) for name in FITTED}
    all_held = hold_out(known, {name: found.points for name, found in measured.items()})
    curves = {name: curves_of(held) for name, held in all_held.items()}
    regret_text, regrets_by_kind = regret_table(all_held)
    every_curve = [curve for listed in curves.values() for curve in listed]
    inside = {
        kind: np.concatenate([shipped_coverage(held, kind) for held in all_held.values()]).mean() for kind in HELD
    }
    rows = []
    for kind in HELD:
        rate = pooled(all_held, kind, RATES)
        rows += [
            bar(f"saturation rate, {TITLES[kind]}: median", np.median(rate), BARS["rate"]),
            bar(f"saturation rate, {TITLES[kind]}: 90 % of errors below", np.quantile(rate, 0.9), BARS["rate_90"]),
            bar(f"TPOT, {TITLES[kind]}: median", np.median(pooled(all_held, kind, STEPS)), BARS["tpot"]),
            bar(
                f"rate under a TPOT limit, {TITLES[kind]}: median",
                np.median(rate_errors(every_curve, kind)),
                BARS["limit"],
            ),
            bar(f"80 % intervals, {TITLES[kind]}: points inside", inside[kind], BARS["inside"]),
            *(
                bar(f"regret, {TITLES[kind]}: median, {words}", np.median(values), BARS["regret"])
                for words, values in (
                    ("the mix", regrets_by_kind[kind].mix),
                    ("the mix with its shares", regrets_by_kind[kind].with_shares),
                    ("as rented", regrets_by_kind[kind].as_rented),
                )
            ),
        ]
    page = PAGE.format(
        bars=table(["", "wanted", "reached", ""], rows, numbers=2),
        quantity=by_quantity(all_held),
        kinds=by_group(all_held, "kind of model", lambda point: kind_of(point.model)),
        accelerators=by_group(all_held, "accelerator", lambda point: point.accelerator),
        models=by_group(
            all_held, "model", lambda point: f"{point.model.name.split('/')[-1]} {point.model.weight_dtype}"
        ),
        limits=by_limit(curves),
        ttft=first_tokens(all_held),
        coverage=coverage(all_held, curves),
        regret=regret_text,
        tried=tried(known, {name: found.points for name, found in measured.items()}, all_held),
        left_out=left_out(measured),
    )
    page = with_shortage(page, shortage_table({TITLES[kind]: cases(all_held.values(), kind) for kind in HELD}))
    path = Path(__file__).parents[1] / "docs" / "validation.md"
    page = with_section(page, section_of(path.read_text(encoding="utf-8")))
    path.write_text(page, encoding="utf-8")
    print(page[: page.index("## ")] + table(["", "wanted", "reached", ""], rows, numbers=2))


if __name__ == "__main__":
    main()
