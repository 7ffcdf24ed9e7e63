"""The section on all differences to the paper, with their likely reasons and the underlying figures."""

from __future__ import annotations

import numpy as np

from melange.catalog.bundled import accelerators, find_model
from melange.units import count_of
from reproduction.evaluate import Result
from reproduction.published import FIGURE_9, SAVINGS, Published, implied_load
from reproduction.setting import (
    CHEAP,
    LIMITS_MS,
    LONGEST_ON_CHEAP,
    MODEL,
    PRICES,
    RATES,
    estimated,
    shares_of,
)
from reproduction.study import Study
from reproduction.text import SHORT_NAME, numbered, percent

LONG, FEW = 500, 25  # tokens of sizes that mostly need prefill


def differences(found: Study, published: Published) -> list[str]:
    """The section."""
    items = (
        prompts_of_table_3(found, published),
        saturation_in_figure_3b(found, published),
        broken_counts(published),
        mixes_too_cheap(found, published),
        fitted_types(found),
        other_types(found, published),
        price_of_the_limit(found),
        figure_9(found, published),
        lower_ends(found),
        upper_ends(found),
        tight_limit(found),
        left_out(found),
        documents(found),
    )
    return ["## Every difference, and its likely reason", "", *numbered(items)]


def prompts_of_table_3(found: Study, published: Published) -> str:
    """The prompts that Table 3 includes."""
    whole, short = found.tables[0].result, found.tables[2].result
    low, high, _ = implied_load(published.counts["A10G"])
    return f"""**Table 3 fits prompts up to 2,000 tokens, not the 10 x 6 grid.** Its counts imply a load of 1 request/s
    of {low:.2f}-{high:.2f} A10G. We find {short.load["A10G"]:.2f} for prompts up to 2,000 tokens and
    {whole.load["A10G"]:.2f} up to 12,000. The {percent(short.case.cut, 1)} of Arena's requests with longer prompts make
    the difference. An evaluation notebook of the authors of February 2024 (eval/eval.ipynb in litone01/melange-release
    on GitHub) bins requests up to 2,000 tokens and drops the rest. Prompts over 12,000 tokens
    ({percent(beyond(LONGEST_ON_CHEAP), 2)} of Arena) cannot have been in a table with fleets of L4 and A10G alone
    either, because these types do not serve them."""


def saturation_in_figure_3b(found: Study, published: Published) -> str:
    """The capacities of Figure 3b."""
    within, saturated, measured = found.figure_3b
    prefill = [size for size in published.margin if size[0] >= LONG and size[1] == FEW]
    lean = float(np.median([saturated.ratio[size] / measured.ratio[size] for size in prefill]))
    return f"""**Figure 3b shows saturation, not 120 ms.** The draft's saturation rates, which hold without any limit,
    give its printed figures within a point at {measured.exact(published)} of {len(published.margin)} sizes. Within 120
    ms, including waiting and the first token, an A10G has a lower rate for long prompts with short completions than at
    saturation. The fair comparison is therefore the estimate at saturation ({len(saturated.agrees)} winners of
    {len(published.margin)}; {len(within.agrees)} within 120 ms). For prompts of {LONG} tokens and more with completions
    of {FEW} the estimate gives the A100 {lean:.2f} times the measured margin."""


def broken_counts(published: Published) -> str:
    """Published counts that contradict each other."""
    broken = {name: implied_load(published.counts[name])[2] for name in PRICES}
    cells = "; ".join(f"{SHORT_NAME[name]} at {' and '.join(map(str, at))}" for name, at in broken.items() if at)
    return f"""**Counts of Table 3 that break the paper's own linear load** ({cells} requests/s): no load of 1 request/s
    gives these counts and those at higher rates. So no capacities reproduce them under the paper's formulation. Either
    they include one replica more than the formulation needs, or they come from another set of measurements."""


def mixes_too_cheap(found: Study, published: Published) -> str:
    """The reason why the published mixes cannot be reached."""
    of = found.tables[1:]
    shares = {rate: sorted(one.carried[rate] for one in of) for rate in (16, 32)}
    words = " and ".join(f"{percent(some[0])} to {percent(some[-1])} at {rate}" for rate, some in shares.items())
    cheapest = min(of, key=lambda one: one.result.answers[-1].cost_per_h)
    cost = cheapest.result.answers[-1].cost_per_h
    return f"""**The published mixes are cheaper than any capacities that we know allow.** The published fleets carry
    {words} requests/s, with estimated capacities or, where available, the draft's measured ones. At 32 requests/s the
    cheapest mix for prompts up to 2,000 tokens costs {cost:.2f} USD/h ({cheapest.words}); {published.mix_cost[32]:.2f}
    was published. The mixes of Table 3 must use capacities other than those of Figure 3b, with larger differences
    between types; those were not published."""


def fitted_types(found: Study) -> str:
    """The error of the estimate for types in the fit."""
    ours = " and ".join(f"{split.ratio[1]:.2f} ({SHORT_NAME[split.accelerator]})" for split in found.splits)
    apart = max(abs(split.estimated[rate] - split.measured[rate]) for split in found.splits for rate in RATES)
    return f"""**Estimated capacities of A10G and A100** are {ours} times the draft's saturation rates in the median.
    The constants were fitted on these two types, so this is the best case. Counts from estimated rates differ from
    those from measured rates by {count_of(apart, "replica")} at most. For these two types the remaining difference to
    Table 3 is not an error of the estimate."""


def other_types(found: Study, published: Published) -> str:
    """The error of the estimate for types that were not in the fit."""
    parts = []
    for name in ("L4", "H100-80GB"):
        low, high, _ = implied_load(published.counts[name])
        saturated, within = found.tables[2].result.load[name], found.tables[1].result.load[name]
        side = "too fast" if saturated <= low else "too slow" if saturated > high else "right"
        parts.append(
            f"{SHORT_NAME[name]} {saturated:.3f} at saturation, {within:.3f} within 120 ms, published "
            f"{low:.3f}-{high:.3f}, so estimated {side}"
        )
    held = ", ".join(SHORT_NAME[name] for name in PRICES if holds(found, published, name)) or "none"
    return f"""**L4 and H100 were not fitted on.** Load of 1 request/s: {"; ".join(parts)}. The 80 % interval of the
    estimate at saturation contains the published load of: {held}. For an H100 the likely reason is the host: vLLM 0.2
    prepares every step in Python while the GPU waits, and a faster GPU waits as long. The hosts of rented H100 differ
    from those of the A100 that the constants come from. An L4 is nearer, but 120 ms is not far above the
    {1e3 * fastest_on_l4():.0f} ms of a single request, so the limit affects it most."""


def holds(found: Study, published: Published, name: str) -> bool:
    """Whether the load implied by the published counts is within the estimate's interval."""
    low, high, _ = implied_load(published.counts[name])
    least, most = found.tables[2].interval[name]
    return least <= low and high <= most


def price_of_the_limit(found: Study) -> str:
    """The cost of the limit of 120 ms by type."""
    within, saturated = found.tables[1].result.load, found.tables[2].result.load
    parts = ", ".join(f"{SHORT_NAME[name]} {percent(within[name] / saturated[name] - 1)}" for name in PRICES)
    return f"""**What 120 ms costs.** The limit raises the estimated load: {parts}. Our time per output token includes
    waiting for a slot and for other prompts under Poisson arrivals. The published counts leave no room for that, which
    again looks like saturation."""


def figure_9(found: Study, published: Published) -> str:
    """The two capacities of Figure 9."""
    ratio = {name: found.size_9[name] / rate for name, rate in FIGURE_9.items()}
    a10g, a100 = FIGURE_9["A10G"], FIGURE_9["A100-80GB"]
    better = a100 / PRICES["A100-80GB"] / (a10g / PRICES["A10G"]) - 1
    printed = percent(published.margin[1000, 500] - 1)
    return f"""**Figure 9** needs {a10g:.3f} (A10G) and {a100:.1f} (A100) requests/s for [1000, 500]; the estimate
    within 120 ms is {ratio["A10G"]:.2f} and {ratio["A100-80GB"]:.2f} times that. With its capacities the A100 is
    {percent(better)} better per dollar. Figure 3b prints {printed} for the same size, so the two figures do not use the
    same capacities. The staircase has the same shape, with steps at other rates."""


def lower_ends(found: Study) -> str:
    """The reason for lower minimum savings."""
    none = sum(result.savings_pct[0] < 0.5 for result in found.results)
    high = [result.most_saved_at_high_rates for result in found.results]
    theirs = [SAVINGS[name, 120][0] for name in ("mixed", "Arena")]
    measured = found.tables[3].result
    return f"""**Lower ends of the savings.** In {none} of {len(found.results)} rows ours is 0: at some rate a fleet of
    one type is already the cheapest, which the solver proves for these capacities. With many replicas a mix saves only
    by sending each size to its cheapest type. That saves {percent(min(high))} to {percent(max(high))} here, with any
    planner. Measured rates of A10G and A100 do not change this: with them (L4 and H100 estimated) the lower end for
    Arena is {percent(measured.savings_pct[0] / 100)}. The paper's {theirs[0]}-{theirs[1]} % at 120 ms belong to mixes
    that these rates do not allow."""


def upper_ends(found: Study) -> str:
    """The cause of the upper ends of the savings."""
    top = [max(r.answers, key=lambda answer: max(answer.savings.values())).rate for r in found.results]
    return f"""**Upper ends** are rounding: a nearly idle H100 compared with a small fleet. Ours are reached at
    {min(top):g}-{max(top):g} requests/s and change in steps of whole replicas. For long documents they depend on how
    many A100 the first requests need, where the substitutes for PubMed matter most."""


def documents(found: Study) -> str:
    """The substitutes for PubMed, and H100 compared with A100."""
    ratios = [
        f"{r.divided_per_h['H100-80GB'] / r.divided_per_h['A100-80GB']:.2f} ({r.case.name}, {r.limit_ms} ms)"
        for r in found.results
        if r.case.published == "PubMed"
    ]
    return f"""**PubMed** is represented by substitutes: one too short (cut at 4,000 tokens), one with the right mean
    and an assumed shape. So the ranges for PubMed and the mixed workload can only be compared roughly. For PubMed at 40
    ms the authors' blog calls the H100 the clear winner over the A100. Our results come close but do not show this:
    without rounding, H100 cost {", ".join(ratios)} times as much as A100 for the same load. Either the A100 is
    estimated too fast near a tight limit, or PubMed's long tail decides."""


def tight_limit(found: Study) -> str:
    """The limit of 40 ms on the L4."""
    tight = arena_at(found, min(LIMITS_MS))
    absent = " and ".join(name for name in CHEAP if name not in tight.compared) or "none of the cheap types"
    weights, bandwidth = find_model(MODEL).weight_bytes(), accelerators()["L4"].bandwidth_bytes_per_s
    return f"""**40 ms without {absent}.** A single request on an L4 takes {1e3 * fastest_on_l4():.0f} ms for a token,
    because it reads {weights / 1e9:.1f} GB of weights for each token; at the datasheet's {bandwidth / 1e9:.0f} GB/s it
    would be {1e3 * weights / bandwidth:.0f} ms. So an L4 cannot meet 40 ms at any size in 16 bits. The paper mentions
    many more L4 and A10G at 40 ms. We find no capacity for the L4 at all, and so compare with one type less."""


def left_out(found: Study) -> str:
    """Requests that one of the compared types cannot serve."""
    shares = {r.case.name: r.left_out for r in found.results if r.left_out >= 5e-4 and r.limit_ms == min(LIMITS_MS)}
    words = ", ".join(f"{percent(share, 1)} of {name}" for name, share in shares.items()) or "none"
    return f"""**Requests left out at 40 ms** ({words}): these are long prompts with few output tokens. On a
    compared type, the prompt alone takes longer than 40 ms for each output token. The paper does not say what
    it did with them."""


def arena_at(found: Study, limit_ms: int) -> Result:
    """The result for Arena with short prompts under a limit."""
    return next(r for r in found.results if r.limit_ms == limit_ms and r.case.published == "Arena")


def beyond(tokens: int) -> float:
    """Share of Arena's requests with longer prompts."""
    return shares_of("arena", tokens)[1]


def fastest_on_l4() -> float:
    """Time per output token of a single request on an L4 [s]: the smallest limit in whole ms that it can meet."""
    able = (limit for limit in np.arange(40.0, 80.0) if estimated(float(limit), ("L4",)).max_request_rate.any())
    return float(next(able, np.nan)) / 1e3
