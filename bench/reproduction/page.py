"""The text of docs/reproduction.md, with all figures computed."""

from __future__ import annotations

import hashlib
from datetime import date
from importlib import resources

from melange.installed import version
from melange.replica.era import find_era
from reproduction.differences import differences
from reproduction.evaluate import Answer, Result
from reproduction.published import FIGURE_9, SAVINGS, Published, implied_load
from reproduction.setting import ERA, LIMITS_MS, LOG_SPREAD, PRICES, PUBMED_WORDS, RATES, TOKENS_PER_WORD
from reproduction.study import EXACT, Split, Study, bars_of
from reproduction.text import SHORT_NAME, fleet_of, percent, prose, sentence, table

# Variants with an interval from estimates alone and with two finite ends; within 120 ms, a slow L4 serves nothing.
INTERVALS = ("prompts to 2,000, estimated, saturation",)


def page(found: Study, published: Published, today: date) -> str:
    """The whole page."""
    parts = (
        opening(today),
        bars(found, published),
        setting(found.results),
        table_3(found, published),
        figure_3b(found, published),
        savings(found),
        costs(found.results),
        measured(found),
        figure_9(found),
        differences(found, published),
    )
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def opening(today: date) -> list[str]:
    """The purpose of the page, and how it was made."""
    text = (resources.files("melange.replica") / "constants" / f"{ERA}.toml").read_bytes()
    made = f"""Written by `make reproduce` (`bench/reproduce.py`) on {today}, melange {version()}, constants of engine
    era {ERA} of {find_era(ERA).date} (sha256 {hashlib.sha256(text).hexdigest()[:12]}). Published figures are the
    paper's: Table 3, Figures 3b, 9 and 11. We measured nothing on this page."""
    what = """This page repeats the evaluation of [Mélange (Griggs et al., 2024)](https://arxiv.org/abs/2404.14527) with
    estimated capacities, and compares it with the published results."""
    return ["# Reproduction", "", *prose(what), "", *prose(made)]


def bars(found: Study, published: Published) -> list[str]:
    """The targets and the results."""
    rows = [(words, value, "yes" if met else "**no**") for words, value, met in bars_of(found, published)]
    why = """All signs are that Table 3 and Figure 3b were not made in the setting that the paper describes (see the end
    of the page). So both are compared at least twice: as described, and as they seem to have been made."""
    return ["## What was asked for", "", *prose(why), "", *table(("bar", "found", "met"), rows)]


def setting(results: list[Result]) -> list[str]:
    """The paper's setting, and our own choices."""
    prices = ", ".join(f"{SHORT_NAME[name]} {price:g}" for name, price in PRICES.items())
    words, abstract = PUBMED_WORDS
    theirs = f"""As in the paper: Llama-2-7b under vLLM 0.2.7; {prices} USD/h; the 10 x 6 grid of sizes at its upper
    edges; {", ".join(map(str, RATES))} requests/s; 8 slices a bucket; no headroom; mean latency per output token
    (`statistic: mean`), including the first token, of at most {" or ".join(map(str, LIMITS_MS))} ms; L4 and A10G serve
    prompts up to 12,000 tokens."""
    ours = """Ours: capacities are estimated. Single types are those that the paper compares with in that workload,
    except types that cannot serve 95 % of the requests within the limit. The few sizes that a compared type cannot
    serve are left out of all plans, so every plan carries the same requests."""
    documents = f"""PubMed is not bundled, so two substitutes are used. *arXiv* is the same kind of task with real token
    counts, but its documents are cut at 4,000 tokens, while PubMed has longer ones. *PubMed-like* draws lognormal
    lengths around the means on PubMed's data card ({words:,} words in, {abstract} out); {TOKENS_PER_WORD} tokens a word
    and a standard deviation of {LOG_SPREAD[0]} (in) and {LOG_SPREAD[1]} (out) of the logarithm are assumed."""
    seen = {result.case.name: result.case for result in results}
    rows = [
        (case.words, f"{percent(case.cut, 1)}", ", ".join(SHORT_NAME[n] for n in case.compared))
        for case in seen.values()
    ]
    header = ("workload", "requests of other sizes, cut", "compared with")
    return ["## Setting", "", *prose(theirs), "", *prose(ours), "", *prose(documents), "", *table(header, rows)]


def table_3(found: Study, published: Published) -> list[str]:
    """Counts of the single types, the implied loads, and the mixes."""
    load = """These counts imply the load of 1 request/s, in replicas: `count = ceil(rate x load)` limits the load to an
    interval. The table shows the interval that remains when all rates are combined, from the highest down."""
    mix = """The mix is given as published, and ours for the same requests. *Carries* is the largest share of the
    requests that the published fleet can carry with that table's capacities, over all ways to route them."""
    lines = [
        "## Table 3: Arena, 120 ms",
        "",
        "Replicas of each type alone, by requests/s:",
        "",
        *table(("", *map(str, RATES)), count_rows(found, published)),
        "",
        *prose(load),
        "",
        *table(("", *(SHORT_NAME[name] for name in PRICES)), load_rows(found, published)),
        "",
        *prose(mix),
    ]
    for counts in found.tables:
        rows = [mix_row(answer, published, counts.carried[int(answer.rate)]) for answer in counts.result.answers]
        header = ("requests/s", "published", "USD/h", "ours", "USD/h", "carries")
        lines += ["", f"*{sentence(counts.words)}*", "", *table(header, rows)]
    return lines


def count_rows(found: Study, published: Published) -> list[list[str]]:
    """The published counts of every type, and ours in each variant."""
    rows = []
    for name in PRICES:
        rows.append([f"**{SHORT_NAME[name]}, published**", *(str(published.counts[name][rate]) for rate in RATES)])
        rows.extend([one.words, *(str(answer.count[name]) for answer in one.result.answers)] for one in found.tables)
    return rows


def load_rows(found: Study, published: Published) -> list[list[str]]:
    """Implied loads, rates that contradict them, and our loads."""
    implied = [implied_load(published.counts[name]) for name in PRICES]
    rows = [
        ["published, implied", *(f"{low:.3f}-{high:.3f}" for low, high, _ in implied)],
        ["contradicted by the count at", *(", ".join(map(str, broken)) or "-" for _, _, broken in implied)],
    ]
    for one in found.tables:
        rows.append([one.words, *(f"{one.result.load[name]:.3f}" for name in PRICES)])
        if one.words in INTERVALS:
            ends = (one.interval[name] for name in PRICES)
            rows.append(["its 80 % interval", *(f"{low:.3f}-{high:.3f}" for low, high in ends)])
    return rows


def mix_row(answer: Answer, published: Published, carries: float) -> list[str]:
    """One rate of the mix."""
    rate = int(answer.rate)
    theirs, cost = fleet_of(published.mix[rate]), f"{published.mix_cost[rate]:.2f}"
    return [str(rate), theirs, cost, fleet_of(answer.fleet), cost_of(answer), f"{percent(carries)}"]


def cost_of(answer: Answer) -> str:
    """USD/h of the mix."""
    return f"{answer.cost_per_h:.2f}" + ("" if answer.is_proven else " (unproven)")


def figure_3b(found: Study, published: Published) -> list[str]:
    """Winners, and differences of the ratios."""
    what = """The ratio is tokens per dollar of the A100 over those of the A10G; above 1 the A100 wins. The paper's
    figure prints abs(ratio - 1), which understates a win of the A10G."""
    rows = []
    for margin in found.figure_3b:
        errors = sorted(abs(margin.ratio[size] / theirs - 1) for size, theirs in published.margin.items())
        winners = f"{len(margin.agrees)} of {len(published.margin)}"
        exact = f"{margin.exact(published)} of {len(published.margin)}"
        rows.append((margin.words, winners, f"{percent(errors[len(errors) // 2], 1)}", exact))
    header = ("capacities", "same winner", "median difference of the ratio", f"within {100 * EXACT:.0f} point of print")
    agreed = set.intersection(*(set(margin.agrees) for margin in found.figure_3b))
    missed = [
        (f"{i:,} in, {o:,} out", f"{theirs:.2f}", *(f"{margin.ratio[i, o]:.2f}" for margin in found.figure_3b))
        for (i, o), theirs in published.margin.items()
        if (i, o) not in agreed
    ]
    lines = ["## Figure 3b: A10G or A100 by size", "", *prose(what), "", *table(header, rows), ""]
    sizes = ("size", "published", *(margin.words for margin in found.figure_3b))
    return [*lines, "Sizes at which not all name the same winner:", "", *table(sizes, missed)]


def savings(found: Study) -> list[str]:
    """Savings ranges compared with the paper's."""
    what = """Savings are the lowest and highest over all rates and compared types. *At high rates*: the most that any
    mix can save against the cheapest compared type with these capacities, if the fleet is so large that rounding does
    not matter."""
    rows = []
    named = [(f"{result.case.name}, {result.limit_ms} ms", result.limit_ms, result) for result in found.results]
    named += [(one.words, 120, one.result) for one in found.tables[2:]]
    for words, limit, result in named:
        low, high = result.savings_pct
        asked = SAVINGS[result.case.published, limit]
        rows.append(
            (
                words,
                f"{asked[0]}-{asked[1]} %",
                f"{low:.0f}-{high:.0f} %",
                f"{percent(result.most_saved_at_high_rates)}",
                ", ".join(SHORT_NAME[name] for name in result.compared),
                f"{percent(result.left_out, 1)}",
            )
        )
    header = ("workload, limit", "published", "ours", "at high rates", "compared with", "requests left out")
    return ["## Savings against one type", "", *prose(what), "", *table(header, rows)]


def costs(results: list[Result]) -> list[str]:
    """Cost of the mix and its fleet by rate, and the cheapest single type."""
    rows = []
    for result in results:
        for answer in result.answers:
            name, cost = min(answer.single_cost_per_h.items(), key=lambda item: item[1])
            setting_of = f"{result.case.name}, {result.limit_ms} ms", f"{answer.rate:g}"
            single = f"{answer.count[name]} {SHORT_NAME[name]}", f"{cost:.2f}"
            rows.append((*setting_of, fleet_of(answer.fleet), cost_of(answer), *single))
    proven = sum(answer.is_proven for result in results for answer in result.answers)
    what = f"{proven} of {len(rows)} are proven to be the cheapest under these capacities and slices."
    header = ("workload, limit", "requests/s", "mix", "USD/h", "cheapest single type", "USD/h")
    return ["## Our mixes", "", what, "", *table(header, rows)]


def measured(found: Study) -> list[str]:
    """Whether differences come from the planning or from the capacities."""
    what = """A draft of the authors (February 2024) has saturation rates of A10G and A100, without a limit on latency.
    With these rates, for prompts up to 2,000 tokens, only the planning can differ from Table 3. The difference between
    these plans and those from estimates, also at saturation, is the error of the capacities."""
    ratios = f"Estimated over measured saturation rate: {'; '.join(map(ratio_of, found.splits))}."
    rows = [row for split in found.splits for row in split_rows(split)]
    mixes = [
        (f"{a.rate:g}", fleet_of(a.fleet), cost_of(a), fleet_of(b.fleet), cost_of(b))
        for a, b in zip(*(result.answers for result in found.two_types), strict=True)
    ]
    most = [f"{percent(result.most_saved_at_high_rates, 1)}" for result in found.two_types]
    end = f"At high rates these two types can save at most {most[0]} (measured) and {most[1]} (estimated) against one."
    lines = ["## Planning or capacities?", "", *prose(what), ""]
    lines += [*table(("replicas alone, by requests/s", *map(str, RATES)), rows), "", *prose(ratios), ""]
    header = ("requests/s", "from measured", "USD/h", "from estimated", "USD/h")
    return [*lines, "Mixes of these types only:", "", *table(header, mixes), "", *prose(end)]


def split_rows(split: Split) -> list[tuple[str, ...]]:
    """Counts of one type: published, from measured and from estimated rates."""
    ways = {"published": split.published, "measured": split.measured, "estimated": split.estimated}
    name = SHORT_NAME[split.accelerator]
    return [(f"{name}, {way}", *(str(counts[rate]) for rate in RATES)) for way, counts in ways.items()]


def ratio_of(split: Split) -> str:
    """Estimated over measured rates as text."""
    low, middle, high = split.ratio
    return f"{SHORT_NAME[split.accelerator]} {middle:.2f} in the median, 80 % of sizes within {low:.2f}-{high:.2f}"


def figure_9(found: Study) -> list[str]:
    """The staircase."""
    ours = " and ".join(f"{rate:.3f} ({SHORT_NAME[name]})" for name, rate in found.size_9.items())
    theirs = " and ".join(f"{rate:.3f} ({SHORT_NAME[name]})" for name, rate in FIGURE_9.items())
    what = f"""Size [1000, 500], 120 ms, A10G and A100. Capacities of {theirs} requests/s reproduce the figure exactly;
    the estimate is {ours}. USD/h:"""
    rows = []
    for a, b in zip(found.stairs["published"], found.stairs["estimated"], strict=True):
        cells = [(s.a10g_per_h, s.a100_per_h, s.cost_per_h, s.fleet) for s in (a, b)]
        columns = [f"{x:.2f} | {y:.2f} | {z:.2f} ({fleet_of(fleet)})" for x, y, z, fleet in cells]
        rows.append((f"{a.rate:g}", *columns))
    header = ("requests/s", "A10G only", "A100 only", "mix", "estimated: A10G only", "A100 only", "mix")
    return ["## Figure 9: one size, by rate", "", *prose(what), "", *table(header, rows)]
