"""Figures that the documents take from the code are those of the code."""

import re
from collections.abc import Iterator
from dataclasses import asdict, fields

import pytest

from documents import page
from melange.catalog.offer import STALE_AFTER_DAYS
from melange.deploy.live.health import _AWAY_S as AWAY_S
from melange.deploy.targets.gateways.gateway_options import GatewayOptions
from melange.deploy.targets.gateways.routes import STEP, TURNS
from melange.measure.load import _OFF_SHARE as OFF_SHARE
from melange.measure.load import _REFUSED as REFUSED
from melange.measure.search import _BEYOND as BEYOND
from melange.measure.search import START_SHARE, Effort
from melange.measure.window import _LATE_S as LATE_S
from melange.measure.window import BLOCKS
from melange.plan import suggest
from melange.plan.break_even import _EXACT_TYPES as EXACT_TYPES
from melange.plan.certificate import MOST_CARRIED
from melange.plan.cheapest import _MANY_BUCKETS as MANY_BUCKETS
from melange.plan.options import Options
from melange.plan.sweeps import _COARSE_LIMIT_FACTORS as COARSE_LIMIT_FACTORS
from melange.plan.sweeps import _COARSE_RATE_FACTORS as COARSE_RATE_FACTORS
from melange.plan.sweeps import _LIMIT_FACTORS as LIMIT_FACTORS
from melange.plan.sweeps import _MANY_TYPES as MANY_TYPES
from melange.plan.sweeps import _RATE_FACTORS as RATE_FACTORS
from melange.profile import aiconfigurator, percentiles
from melange.profile.correction import REFERENCE_BATCH
from melange.profile.searched_rates import _SAME_SIZE as SAME_SIZE
from melange.replica.era import Constants, find_era
from melange.replica.policy import FULL
from melange.validate import run_lengths
from melange.validate.certify import (
    bound,
    certify,
    diagnosis,
    headroom,
    judge,
    plan_trial,
    small_fleets,
    thinning,
    tolerance,
)
from melange.workload.sizes import THIN_WORKLOAD

GATEWAY = GatewayOptions()
IN_SECONDS = {"ns": 1e-9, "ms": 1e-3, "us": 1e-6}

# What pages say, with the figures of the code in it.
SAID = [
    (
        "docs/aiconfigurator.md",
        f"batches of {', '.join(map(str, aiconfigurator._BATCHES))} requests of "
        f"{', '.join(f'{one:,}' for one in aiconfigurator._CONTEXTS)} tokens, with "
        f"{', '.join(f'{one:,}' for one in aiconfigurator._CHUNKS)} more prompt tokens",
    ),
    (
        "docs/aiconfigurator.md",
        f"fewer than {aiconfigurator._LEAST_MEASURED * 100:g} % of a step measured, "
        f"or steps more than {aiconfigurator._WILD:g} times ours",
    ),
    ("docs/anchors.md", f"log(batch / {REFERENCE_BATCH:g})"),
    ("docs/anchors.md", f"a size within {SAME_SIZE * 100:g} % of a bucket's planned size"),
    (
        "docs/anchors.md",
        f"{suggest.START_MINUTES:g} minutes to start a replica, one warm-up round of all requests, "
        f"then {suggest.TURNS} rounds and at least {suggest.LEAST_REQUESTS} requests",
    ),
    ("docs/balance.md", f"{AWAY_S[0]:g} s, then {', '.join(f'{one:g}' for one in AWAY_S[1:])}"),
    ("docs/balance.md", f"A type whose replicas are {FULL:g} full"),
    ("docs/balance.md", f"(fewer than {THIN_WORKLOAD:,} requests)"),
    (
        "docs/deploy.md",
        f"(bytes of the body - {GatewayOptions().envelope_bytes}) / {GatewayOptions().bytes_per_token:g} tokens",
    ),
    ("docs/deploy.md", f"`{STEP} k mod {TURNS}`"),
    ("docs/design.md", f"The default is {Options().headroom:g}:"),
    ("docs/formulation.md", f"up to {MANY_BUCKETS} buckets"),
    ("docs/formulation.md", f"with at most {EXACT_TYPES} candidate types"),
    ("docs/measure.md", f"at least {Effort().requests} requests are counted ({BEYOND} beyond a percentile"),
    ("docs/measure.md", f"narrower than {Effort().narrow * 100:g} % of it"),
    ("docs/measure.md", f"are within {Effort().precision * 100:g} %"),
    ("docs/measure.md", f"It starts at {START_SHARE:g} of the profile's rate"),
    ("docs/measure.md", f"late by more than {LATE_S * 1e3:g} ms"),
    ("docs/measure.md", f"If fewer than {BLOCKS} times as many requests were counted"),
    ("docs/measure.md", f"by more than a token or {OFF_SHARE * 100:g} %"),
    ("docs/measure.md", f"(HTTP {', '.join(map(str, REFUSED))})"),
    ("docs/performance-model.md", f"{percentiles._REQUESTS:,} requests a rate"),
    (
        "docs/pictures.md",
        f"{len(RATE_FACTORS)} plans, from 1/12 to twice the rate "
        f"({len(COARSE_RATE_FACTORS)} with more than {MANY_TYPES} types)",
    ),
    (
        "docs/pictures.md",
        f"{len(LIMIT_FACTORS)} plans for each limit, {LIMIT_FACTORS[0]:g} to {LIMIT_FACTORS[-1]:g} times the service's "
        f"own, each on new estimates ({len(COARSE_LIMIT_FACTORS)} with more than {MANY_TYPES} types)",
    ),
    ("docs/proof.md", f"{diagnosis.REACH_REQUESTS:,} requests are simulated one by one"),
    ("docs/proof.md", f"(times {thinning._MARGIN:g})"),
    ("docs/design.md", f"with a margin of {thinning._MARGIN:g} between"),
    ("docs/proof.md", f"even with {MOST_CARRIED:g} times its closed-form capacity"),
    ("docs/design.md", f"limits of {tolerance._ROOM:g} times the time that the size takes alone"),
    ("docs/proof.md", f"at most {small_fleets._SMALL_FLEET} instances"),
    ("docs/proof.md", f"{judge._PROOF_RUNS} runs of at least {judge._PROOF_REQUESTS:,}"),
    (
        "docs/proof.md",
        f"{run_lengths._TOKEN_S:g} s per token without such a limit), and wait as long as TTFT allows. "
        "The shortest run has as many requests as arrive "
        f"in {run_lengths._STAYS:g} such times, at least {run_lengths.LEAST_REQUESTS:,}",
    ),
    ("docs/proof.md", f"within {run_lengths._SETTLING:g} times as long as a request may stay"),
    ("docs/proof.md", f"more than {judge._BY_FAR:g} times as many as allowed miss"),
    (
        "docs/proof.md",
        f"up to {judge._MOST_RUNS} runs of at least {judge._LEAST_RUN:,}; a proof has runs of {judge._PROOF_TIMES:g} "
        "times the shortest. If",
    ),
    (
        "docs/proof.md",
        f"No run has more than {run_lengths.MOST_REQUESTS:,} requests, and no more runs are made once they have "
        f"{judge._MOST_TRIED:,} requests in total, or {judge._MOST_PROVEN:,} for a proof",
    ),
    ("docs/proof.md", f"and up to {judge._MOST_PROOF_RUNS} if these leave it open"),
    ("docs/proof.md", f"assumed to serve {bound._CARRIED:g} times as much"),
    ("docs/proof.md", f"for about {judge._MOST_FURTHER_S:g} s of CPU in a whole search"),
    ("docs/proof.md", f"no further one begins after about {certify._MOST_S:g} s of CPU"),
    ("docs/proof.md", f"up to {judge._MOST_PROVEN // judge._PROOF_RUNS:,} requests"),
    ("docs/proof.md", f"The traffic may need at most {plan_trial.MOST_USED:.0%}".replace("%", " %")),
    ("docs/proof.md", f"At the end, up to {headroom._MOST_CHANCES} cheaper plans"),
    ("docs/proof.md", f"in {['zero', 'one', 'two', 'three', 'four', 'five', 'six'][len(certify._PASSES)]} passes"),
    ("src/melange/catalog/data/README.md", f"older than {STALE_AFTER_DAYS} days"),
]


@pytest.mark.parametrize(("name", "sentence"), SAID)
def test_thresholds_are_as_said(name: str, sentence: str) -> None:
    """A page that states a figure of the code is changed with it."""
    assert sentence in re.sub(r"\s+", " ", page(name))


def table() -> tuple[list[str], list[list[str]]]:
    """The eras of the performance model's table of constants, and its rows."""
    text = page("docs/performance-model.md").partition("| | vllm-0.2")[1:]
    lines = [line.strip("| ").split(" | ") for line in "".join(text).partition("\n\n")[0].splitlines()]
    return lines[0], lines[2:]


def named(label: str) -> Iterator[tuple[str, float]]:
    """The constants that a row's label names, and the size of the unit that it gives them in."""
    unit = re.findall(r"\[(\w+)\]", label)
    known = {field.name for field in fields(Constants)}
    for part in label.split(", "):
        own = re.findall(r"\[(\w+)\]", part) or unit
        name = part.partition(" [")[0].replace(" ", "_").replace("efficiency", "link_efficiency")
        yield (name, 1.0) if name in known else (f"{name}_s", IN_SECONDS[own[0]])


def test_the_constants_of_the_performance_model_are_those_of_their_files() -> None:
    """Cell by cell, to the digits that are shown; "not fitted" says nothing."""
    eras, rows = table()
    compared = 0
    for label, *cells in rows[:-2]:
        for era, cell in zip(eras, cells, strict=True):
            constants = asdict(find_era(era).constants)
            for (name, unit), shown in zip(named(label), cell.split(", "), strict=False):
                if shown != "not fitted":
                    half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
                    assert abs(constants[name] / unit - float(shown)) <= half * 1.001, f"{era}: {name}"
                    compared += 1
    assert compared > 80


def test_what_eras_do_with_prompts_and_memory_is_as_in_the_table() -> None:
    """Its last two rows: where KV cache is reserved, and how prompts are read."""
    eras, (*_, reserved, prompts) = table()
    for era, kv, reading in zip(eras, reserved[1:], prompts[1:], strict=True):
        settings = find_era(era).settings
        assert kv == ("full length" if settings.is_fully_reserved else "prompt"), era
        assert reading == ("chunks" if settings.is_chunked else "own step"), era


def test_intervals_elsewhere_and_the_number_of_constants_are_as_said() -> None:
    """The interval on an accelerator that no era was fitted on stands on two pages."""
    elsewhere = find_era("vllm").residuals_elsewhere
    assert elsewhere is not None
    low, high = f"{elsewhere.low:.2f}", f"{elsewhere.high:.2f}"
    assert f"{low}-{high}" in page("docs/performance-model.md")
    assert f"{low} to {high}" in page("docs/design.md")
    assert f"{len(fields(Constants))} per era" in page("docs/design.md")
