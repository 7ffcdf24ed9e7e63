"""The words and tables of docs/validation.md."""

from __future__ import annotations

from collections.abc import Sequence

# What is wanted: at most, or between.
BARS: dict[str, tuple[float, float]] = {
    "rate": (0.0, 0.10),
    "rate_90": (0.0, 0.25),
    "tpot": (0.0, 0.10),
    "limit": (0.0, 0.20),
    "inside": (0.75, 0.85),
    "regret": (0.0, 0.03),
}


def percent(share: float) -> str:
    """A share in words, to a tenth of a percent.

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
    """A table whose last ``numbers`` columns are set right."""
    rule = ["---"] * (len(heads) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])


# The section of docs/validation.md that bench/sources.py writes, and the one that it stands before.
SECTION, NEXT = "## By source, each left out whole", "## By what was measured"


def section_of(page: str) -> str:
    """What bench/sources.py has written on a page; empty where it has not."""
    _, found, rest = page.partition(SECTION)
    return found + rest[: rest.index("\n## ") + 1] if found else ""


def with_section(page: str, section: str) -> str:
    """The page with that section in its place, whether it had one or not."""
    before, after = page.replace(section_of(page), "").split(NEXT, 1)
    return before + section + NEXT + after


PAGE = """# Validation

How wrong estimates are, on points that the fit has seen and on points that it has not, and what that costs. Written
by `python bench/validation.py MEASURED`; every figure comes from there, the tables of measurements themselves stay
out. What is estimated is explained in [the performance model](performance-model.md).

*Accelerator held out*: constants fitted again, in all eras, without any point of that accelerator, each in its
turn; *model held out*: the same without any point of that model, in whatever precision. Errors are of predicted
over measured, less 1. In brackets: 90 % of errors are below.

## Wanted and reached

{bars}

With measured points of one's own, rates under a limit get closer: `python bench/anchors.py MEASURED` says how much.
How far additive loads miss, what certificates cost and how a real vLLM compares is on [its own page](proof.md).

## By what was measured

TPOT of closed loops by concurrency; *saturation rate* is that of an endless queue, and of closed loops in which
requests wait so long for their first token (more than 15 % of their latency) that TPOT leaves the prompts out.

{quantity}

## By kind of model

{kinds}

## By accelerator

"Measured / predicted" is the median step time with that accelerator held out: above 1 it is slower than predicted.

{accelerators}

## By model

{models}

## Rate under a TPOT limit

Measured: the concurrency sweeps, rate against TPOT, between points on logarithms; limits of 10 to 60 ms and of 1.25
to 3 times the lowest TPOT, where they lie within what was measured. Predicted: the closed form, with no more
requests at once than were measured. A tight limit amplifies errors of the step.

{limits}

## Time to first token

The sweeps keep a number of requests going, whose prompts come in waves; the estimate is for Poisson arrivals. So
these are no errors of the estimate, but say how far the two lie apart (constants fitted).

{ttft}

## Intervals

Share of held-out points that lie between `low` and `high`, which are wanted to hold 80 %. *As shipped*: by the
quantiles in the era's file, which were taken from these very points. *From others*: by quantiles of points of the
same kind of model that are not of the accelerator or model in question; this is what a new one can expect. *Rate
under a limit*: measured rates within what the closed form gives with steps as much slower and faster as shipped.

{coverage}

## Regret

A case is a model in a precision under an engine, at saturation or under TPOT limits of 15, 30 and 60 ms, whose
sizes were measured on two accelerators and more; five workloads are drawn for each, of 3 to 40 replicas. Regret is the
cost of the mix chosen from held-out estimates, carried on measured capacities, over that of the best mix on measured
capacities, less 1. What it costs depends on what is still taken from estimates once measured capacities are known:

- *The mix*: the types. How many of each and which size goes where are planned again on measured capacities, with these
  types alone. This is what choosing from estimates costs whoever measures before, or soon after, renting.
- *With its shares*: the types and which size goes where. Every type has as many instances as its share needs.
- *As rented*: besides, no instance that turns out too many is given back; too few are filled up.

The last two are mostly whole instances: shares that fill whole instances on one set of capacities leave parts of
instances over on another, and a fleet of ten pays a tenth for each. With every capacity known to 5 % they still cost
more than the 3 % wanted of regret, so no estimate reaches it; the types are chosen right already. Hence: measure what
was rented, and plan again. *Two anchors*: the smallest and the largest size of every type measured where they would
run. Medians; in brackets 90 % of instances are below. Prices: the cheapest bundled on-demand offer of the accelerator.

{regret}

## What was tried

Held out as above, accelerator / model, by `python bench/tried.py MEASURED`:

{tried}

- TensorRT-LLM reserves the KV cache of a request at its full length, which its measured rates show.
- A server hands tokens on through one front end. Where rates stop rising with more accelerators (SGLang and
  TensorRT-LLM 1.0 with small models), it is what limits, and `t_stream` says so.
- TensorRT-LLM got a new backend with 1.0 and faster kernels after it, and its own benchmark runs without a server: one
  set of constants for all that is worse than three.
- Where fits start from was chosen again (a step's host work overlaps; a layer is some ten kernels). Starting values and
  the division into eras were chosen with all points in sight, so the figures here flatter a little.

What is left is not for want of a term that all replicas share. gpt-oss-120b is predicted too slow on B200 and too fast
on H200 under the same TensorRT-LLM, which has other kernels for it on each; DeepSeek-V3 mixes deployments under equal
labels; the vLLM 0.2.7 table jumps between neighbouring cells at long prompts. Rates under a limit amplify all of that,
and measured points bring them near ([anchors](anchors.md)).

## What was left out

{left_out}

The sweeps name model, precision, accelerator and degree. They do not say expert parallelism, data-parallel
attention and speculative decoding, and hold all of them. What no single replica explains is left out by what was
measured, never by how far a prediction is off. InferenceX draws lengths evenly between 0.8 and 1 of the label (its
issue 356): sizes are 0.9 of it.

Sources: concurrency sweeps of vLLM, SGLang and TensorRT-LLM: InferenceX and its like as distributed with
aiconfigurator-core (Apache-2.0), 2025-2026; saturation: TensorRT-LLM performance overview 0.15 and 1.0
(Apache-2.0); vLLM 0.2.7: a draft of the Mélange authors, February 2024.

## Silicon of our own

Nothing here was measured by us: no accelerator was at hand. Steps of a model by batch, context and chunk on an H100
or H200, which would tell the terms of the step apart, are still to be measured. Nothing was measured at all, by
anyone whose figures we have, on an L4, a T4, an A10G or with a dense model on an A100 under a modern vLLM, nor on AMD
or over PCIe since vLLM 0.8.
"""
