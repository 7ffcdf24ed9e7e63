"""All results for the page, computed once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.options import Options
from melange.plan.solve import solve
from melange.profile.profile import Profile
from melange.workload.workload import Buckets, Workload
from reproduction.evaluate import Result, carried, load_of, margins, names_of, run_case, same_winner
from reproduction.published import FIGURE_9, SAVINGS, Published, implied_load, profile_of
from reproduction.setting import LIMITS_MS, PRICES, RATES, Case, cases, estimated, workload_of
from reproduction.text import SHORT_NAME, percent

NEAR = 0.20  # counts within this share of the published ones
POINTS = 10  # savings within this many points
WINNERS = 0.85
EXACT = 0.01
LISTED = 4
STAIRS = tuple(rate / 4 for rate in range(1, 25))


@dataclass(frozen=True)
class Margins:
    """Figure 3b repeated: tokens per dollar of A100 over A10G, and the sizes at which the published type wins."""

    words: str
    ratio: dict[tuple[int, int], float]
    agrees: list[tuple[int, int]]

    def exact(self, published: Published) -> int:
        """Number of printed figures that these ratios reproduce, within rounding."""
        return sum(abs(self.ratio[size] - theirs) <= EXACT + 5e-3 for size, theirs in published.margin.items())


@dataclass(frozen=True)
class Counts:
    """One variant of Table 3.

    Its result, the load of 1 request/s by type at the high and the low end of the capacities' 80 % interval, and the
    share of the traffic that the published mixes carry by rate.
    """

    words: str
    result: Result
    interval: dict[str, tuple[float, float]]
    carried: dict[int, float]

    def misses(self, counts: dict[str, dict[int, int]]) -> tuple[list[str], int]:
        """Single-type counts that differ from the published ones by more than NEAR, as text; the number compared."""
        pairs = [
            (name, a.rate, a.count[name], counts[name][int(a.rate)]) for a in self.result.answers for name in a.count
        ]
        far = [
            f"{SHORT_NAME[name]} at {rate:g}: {ours}, published {theirs}"
            for name, rate, ours, theirs in pairs
            if abs(ours / theirs - 1) > NEAR + 1e-9
        ]
        return far, len(pairs)


@dataclass(frozen=True)
class Split:
    """Single-type count by accelerator and rate: published, from measured and from estimated saturation rates."""

    accelerator: str
    load: tuple[float, float]
    ratio: tuple[float, float, float]
    published: dict[int, int]
    measured: dict[int, int]
    estimated: dict[int, int]


@dataclass(frozen=True)
class Step:
    """One rate of Figure 9: cost of A10G only and of A100 only, and the mix with its cost [USD/h]."""

    rate: float
    a10g_per_h: float
    a100_per_h: float
    fleet: dict[str, int]
    cost_per_h: float


@dataclass(frozen=True)
class Study:
    """All results."""

    results: list[Result]
    tables: list[Counts]
    figure_3b: list[Margins]
    splits: list[Split]
    two_types: tuple[Result, Result]
    stairs: dict[str, list[Step]]
    size_9: dict[str, float]

    def savings(self) -> list[tuple[str, tuple[float, float], tuple[int, int]]]:
        """Our savings ranges and the published ones [%], by workload and limit, and for Arena at saturation."""
        rows = [
            (
                f"{result.case.name}, {result.limit_ms} ms",
                result.savings_pct,
                SAVINGS[result.case.published, result.limit_ms],
            )
            for result in self.results
        ]
        return rows + [
            (f"Arena, {one.words}", one.result.savings_pct, SAVINGS["Arena", 120]) for one in self.tables[2:]
        ]


def plan_all(say: Callable[[str], None]) -> list[Result]:
    """Results for every workload under both limits."""
    results = []
    for limit in LIMITS_MS:
        profile = estimated(limit)
        for case in cases():
            say(f"{case.words}, {limit} ms")
            results.append(run_case(profile, case, limit))
    return results


def study(published: Published, results: list[Result], say: Callable[[str], None]) -> Study:
    """The comparison with the published results."""
    say("Table 3")
    tables = tables_of(published, results)
    say("Figure 3b")
    figure = figure_3b(published)
    say("measured capacities")
    splits, two_types = measured_variant(published)
    say("Figure 9")
    within = estimated(120, ("A10G", "A100-80GB"))
    at = within.buckets.input_edges.index(1000), within.buckets.output_edges.index(500)
    size_9 = {name: float(rate[at]) for name, rate in zip(names_of(within), within.max_request_rate, strict=True)}
    stairs = {"published": staircase(FIGURE_9), "estimated": staircase(size_9)}
    return Study(results, tables, figure, splits, two_types, stairs, size_9)


def tables_of(published: Published, results: list[Result]) -> list[Counts]:
    """Variants of Table 3: all or short prompts, within the limit or at saturation, and with the draft's rates."""
    short, whole = (case for case in cases() if case.published == "Arena")
    within, saturated, mended = estimated(120), estimated(None), with_measured(estimated(None), published)
    rows = [
        ("prompts to 12,000, estimated, 120 ms", within, whole),
        ("prompts to 2,000, estimated, 120 ms", within, short),
        ("prompts to 2,000, estimated, saturation", saturated, short),
        ("prompts to 2,000, measured saturation where there is one", mended, short),
    ]
    done = {(result.case.name, result.limit_ms): result for result in results}
    tables = []
    for words, profile, case in rows:
        result = done[case.name, 120] if profile is within else run_case(profile, case, 0)
        shares = np.where((profile.max_request_rate > 0).all(axis=0), case.request_share, 0.0)
        loads = {rate: carried(profile, workload_of(shares, rate), published.mix[rate]) for rate in RATES}
        tables.append(Counts(words, result, interval_of(profile, workload_of(shares, 1.0)), loads))
    return tables


def interval_of(profile: Profile, workload: Workload) -> dict[str, tuple[float, float]]:
    """Load of a workload by type with all capacities at the high end of their intervals, and at the low end."""
    ends = zip(names_of(profile), profile.high, profile.low, strict=True)
    return {name: (load_of(high, workload), load_of(low, workload)) for name, high, low in ends}


def with_measured(profile: Profile, published: Published) -> Profile:
    """Estimated capacities, replaced by the draft's saturation rates if there are any."""
    rate = profile.max_request_rate.copy()
    for r, name in enumerate(names_of(profile)):
        table = published.measured.get(name)
        if table is not None:
            rate[r] = np.where(table > 0, table, rate[r])
    return replace(profile, max_request_rate=rate)


def figure_3b(published: Published) -> list[Margins]:
    """Winners within the limit, at saturation, and from the draft's saturation rates."""
    sizes = list(published.margin)
    two = {name: published.measured[name] for name in ("A10G", "A100-80GB")}
    profiles = {
        "estimated, 120 ms": estimated(120),
        "estimated, saturation": estimated(None),
        "measured, saturation": profile_of(two),
    }
    found = []
    for words, profile in profiles.items():
        ratio = margins(profile, sizes)
        found.append(Margins(words, ratio, same_winner(ratio, published.margin)))
    return found


def measured_variant(published: Published) -> tuple[list[Split], tuple[Result, Result]]:
    """Counts and mixes of the measured types only, at saturation, to find the source of differences to Table 3."""
    short = next(case for case in cases() if case.published == "Arena")
    names = tuple(name for name in PRICES if (published.measured.get(name, np.zeros((6, 6)))[:6] > 0).all())
    measured = profile_of({name: published.measured[name] for name in names})
    guessed = estimated(None, names)
    case = Case(short.name, short.words, names, short.published, short.request_share, short.cut)
    by_measured, by_estimate = run_case(measured, case, 0), run_case(guessed, case, 0)
    splits = []
    for r, name in enumerate(names):
        cells = case.request_share > 0
        ratio = guessed.max_request_rate[r][cells] / measured.max_request_rate[r][cells]
        low, middle, high = np.quantile(ratio, (0.1, 0.5, 0.9))
        low_load, high_load, _ = implied_load(published.counts[name])
        splits.append(
            Split(
                accelerator=name,
                load=(low_load, high_load),
                ratio=(float(low), float(middle), float(high)),
                published=published.counts[name],
                measured={int(a.rate): a.count[name] for a in by_measured.answers},
                estimated={int(a.rate): a.count[name] for a in by_estimate.answers},
            )
        )
    return splits, (by_measured, by_estimate)


def staircase(capacity: dict[str, float]) -> list[Step]:
    """Figure 9: by rate, the cost of A10G only and of A100 only, and fleet and cost of the mix."""
    one_size = Buckets(input_edges=(1000,), output_edges=(500,))
    profile = profile_of({name: np.array([[rate]]) for name, rate in capacity.items()}, one_size)
    steps = []
    for rate in STAIRS:
        workload = Workload.at_upper_edges(one_size, [[rate]])
        plan = solve(workload, profile, Options(headroom=0.0, gap=0.0))
        singles = [baseline.cost_per_h or float("inf") for baseline in plan.single_type.values()]
        fleet = {name: int(n) for name, n in zip(names_of(profile), plan.instances, strict=True)}
        steps.append(Step(rate, singles[0], singles[1], fleet, plan.cost_per_h))
    return steps


def bars_of(found: Study, published: Published) -> list[tuple[str, str, bool]]:
    """The targets for the three comparisons, the results, and whether the targets are met."""
    bars = []
    for margin in found.figure_3b[:2]:
        share = len(margin.agrees) / len(published.margin)
        words = f"{len(margin.agrees)} of {len(published.margin)} ({percent(share)})"
        bars.append(
            (f"Figure 3b: same winner in at least {percent(WINNERS)} of sizes; {margin.words}", words, share >= WINNERS)
        )
    for table in found.tables[:3]:
        far, of = table.misses(published.counts)
        listed = f" ({'; '.join(far)})" if 0 < len(far) <= LISTED else ""
        words = f"{of - len(far)} of {of}{listed}"
        bars.append((f"Table 3: single-type counts within {percent(NEAR)}; {table.words}", words, not far))
    for words, (low, high), (least, most) in found.savings():
        is_near = abs(low - least) <= POINTS and abs(high - most) <= POINTS
        value = f"{low:.1f}-{high:.1f} %, published {least}-{most} %"
        bars.append((f"Savings within {POINTS} points at both ends; {words}", value, is_near))
    return bars
