"""The text and tables of docs/validation.md."""

from __future__ import annotations

from collections.abc import Sequence

# Targets: lower and upper end.
BARS: dict[str, tuple[float, float]] = {
    "rate": (0.0, 0.10),
    "rate_90": (0.0, 0.25),
    "tpot": (0.0, 0.10),
    "limit": (0.0, 0.20),
    "inside": (0.75, 0.85),
    "regret": (0.0, 0.03),
}


def percent(share: float) -> str:
    """A share as text, to a tenth of a percent.

    >>> percent(0.1234)
    '12.3 %'
    """
    return f"{share * 100:.1f} %"


def bar(name: str, value: float, wanted: tuple[float, float]) -> list[str]:
    """One row of the first table."""
    least, most = wanted
    words = f"{least * 100:g}-{most * 100:g} %" if least else f"<= {most * 100:g} %"
    return [name, words, percent(value), "met" if least <= value <= most else "**not met**"]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: int) -> str:
    """A table whose last ``numbers`` columns are right-aligned."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])


# The section of docs/validation.md that bench/sources.py writes, and the section after it.
SECTION, NEXT = "## By source, each held out", "## By measured quantity"


def section_of(page: str) -> str:
    """The section of bench/sources.py on a page; empty if there is none."""
    _, found, rest = page.partition(SECTION)
    return found + rest[: rest.index("\n## ") + 1] if found else ""


def with_section(page: str, section: str) -> str:
    """The page with this section inserted or replaced."""
    before, after = page.replace(section_of(page), "").split(NEXT, 1)
    return before + section + NEXT + after


# The section that bench/regret.py writes, and the section after it.
SHORTAGE, AFTER_SHORTAGE = "## Shortage", "## What was tried"
ON_SHORTAGE = """
The cases of [regret](#regret) are planned by closed form from held-out estimates with the default headroom. The fleet
then serves the traffic at measured capacities, which also determine the routing (`python bench/regret.py MEASURED
--write`). A fleet is
*short* if it cannot carry the traffic; *traffic short* is the mean share that it cannot carry. Regret is the cost of
the fleet, including the instances that it lacks for the same headroom, over that of the best plan on measured
capacities, minus 1.
*Measurements*: one figure for each used type, planned again each time, at most three. *Live factors*: one factor for
each type of the first fleet, then planned again. Goals after both: median regret <= 3 %, 90 % below 10 %, short fleets
<= 5 %. Small fleets pay for whole instances: the cases have 3 to 40 replicas.
"""


def with_shortage(page: str, found: str) -> str:
    """The page with the section on too small fleets inserted or replaced."""
    before, _, rest = page.partition(f"{SHORTAGE}\n")
    after = (rest or page)[(rest or page).index(AFTER_SHORTAGE) :]
    before = before if rest else page[: page.index(AFTER_SHORTAGE)]
    return f"{before}{SHORTAGE}\n{ON_SHORTAGE}\n{found}\n\n{after}"


PAGE = """# Validation

This page shows the accuracy of the estimates, on points that the fit has seen and on held-out points, and the cost of
errors. `python bench/validation.py MEASURED` writes it and computes every figure; the measurements themselves are not
included. The estimates are explained in [the performance model](performance-model.md).

*Accelerator held out*: for each accelerator, the constants of all eras are fitted again without any of its points.
*Model held out*: the same for each model, in any precision. Errors are predicted over measured, minus 1. In brackets:
90 % of errors are below.

## Goals and results

{bars}

Your own measurements improve rates under a limit: `python bench/anchors.py MEASURED` shows how much. The error of
additive loads, the cost of certificates and a comparison with a real vLLM are on [another page](proof.md).

## By measured quantity

*TPOT* is that of closed loops by concurrency. *Saturation rate* is the rate with an endless queue. It is also used for
closed loops in which requests wait so long for their first token (more than 15 % of their latency) that TPOT does not
include the prompts.

{quantity}

## By kind of model

{kinds}

## By accelerator

"Measured / predicted" is the median step time with that accelerator held out: above 1 it is slower than predicted.

{accelerators}

## By model

{models}

## Rate under a TPOT limit

Measured: the concurrency sweeps, rate against TPOT, interpolated on logarithms; limits of 10 to 60 ms and of 1.25
to 3 times the lowest TPOT, within the measured range. Predicted: the closed form, with at most the measured
concurrency. A tight limit amplifies errors of the step.

{limits}

## Time to first token

The sweeps keep a constant number of requests in flight, so their prompts arrive in waves. The estimate is for Poisson
arrivals. So the table shows the difference between the two arrival patterns, not errors of the estimate (constants
fitted).

{ttft}

## Intervals

The table shows the share of held-out points between `low` and `high`; the goal is 80 %. *As shipped*: with the
quantiles in the era's file, which were computed from these points. *From others*: with quantiles of points of the same
kind of model but another accelerator or model, which is the case for a new accelerator or model. *Rate under a limit*:
measured rates within the closed form's rates for the slow and fast steps as shipped.

{coverage}

## Regret

A case is a model in a precision under an engine, at saturation or under TPOT limits of 15, 30 and 60 ms, with
sizes that were measured on at least two accelerators. Each case has five random workloads, of 3 to 40 replicas. Regret
is the cost of the mix chosen from held-out estimates, at measured capacities, over that of the best mix at measured
capacities, minus 1. It depends on which decisions still use estimates once measured capacities are known:

- *The mix*: the types. Counts and routing are planned again on measured capacities, with only these types. This is the
  cost of choosing from estimates if you measure before, or soon after, renting.
- *With its shares*: the types and the routing. Every type has as many instances as its share needs.
- *As rented*: in addition, surplus instances are kept, and missing ones are added.

The last two are mostly an effect of whole instances. Shares that fill instances at one set of capacities leave parts
of them unused at another, and in a fleet of ten each instance is a tenth of the cost. Even with every capacity known to
5 % they miss the goal of 3 %, so no estimate can reach it; the chosen types are already right. So measure the rented
instances, and plan again. *Two anchors*: the smallest and the largest size of every type, measured at their planned
load. Medians; in brackets 90 % of cases are below. Prices: the cheapest bundled on-demand offer of the accelerator.

{regret}

## What was tried

Errors are held out as above, accelerator / model. `python bench/tried.py MEASURED` prints them:

{tried}

- TensorRT-LLM reserves the KV cache of a request at its full length; its measured rates confirm this.
- A server streams tokens through one front end. If rates stop rising with more accelerators (SGLang and TensorRT-LLM
  1.0 with small models), it is the bottleneck, modeled by `t_stream`.
- TensorRT-LLM got a new backend with 1.0 and faster kernels later, and its own benchmark runs without a server. One
  set of constants for all of this is worse than three.
- Starting values of the fits were revised (a step's host work overlaps; a layer is about ten kernels). Starting values
  and the division into eras were chosen with all points known, so the figures here are slightly optimistic.

The remaining errors are not caused by a missing common term. gpt-oss-120b is predicted too slow on B200 and too fast on
H200 under the same TensorRT-LLM, which uses different kernels for it; DeepSeek-V3 mixes deployments under equal labels;
the vLLM 0.2.7 table jumps between neighboring cells at long prompts. Rates under a limit amplify all of this, and
measured points correct them ([anchors](anchors.md)).

## What was left out

{left_out}

The sweeps record model, precision, accelerator and degree. They do not record expert parallelism, data-parallel
attention and speculative decoding, but include all of them. Points that no single replica can explain are left out. The
reason is always in the measurements, never a prediction error. InferenceX draws lengths evenly between 0.8 and 1 of
the label (its issue 356): sizes are 0.9 of it.

Sources: concurrency sweeps of vLLM, SGLang and TensorRT-LLM: InferenceX and similar ones, as distributed with
aiconfigurator-core (Apache-2.0), 2025-2026; saturation: TensorRT-LLM performance overview 0.15 and 1.0
(Apache-2.0); vLLM 0.2.7: a draft of the Mélange authors, February 2024.

## Our own measurements

We measured nothing here, because no accelerator was available. Steps of a model by batch, context and chunk on an H100
or H200, which would separate the terms of the step, are still to be measured. We have no measurements at all from an
L4, a T4, an A10G or of dense models on an A100 under a modern vLLM, nor from AMD or over PCIe since vLLM 0.8.
"""
