"""The paper's setting: types, prices, workloads and limits (Mélange, arXiv 2404.14527, sections 4 and 6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from melange.catalog.bundled import find_model
from melange.catalog.offer import Offer
from melange.profile.estimate import estimate
from melange.profile.profile import Profile
from melange.replica.era import Era, find_era
from melange.slo import Slo
from melange.workload.datasets import dataset
from melange.workload.workload import PAPER_INPUT_EDGES, PAPER_OUTPUT_EDGES, Buckets, Workload

Array = npt.NDArray[np.float64]

ERA = "vllm-0.2"
MODEL = "meta-llama/Llama-2-7b-hf"
PRICES = {"L4": 0.70, "A10G": 1.01, "A100-80GB": 3.67, "H100-80GB": 7.516}  # USD/h, section 6.1
CHEAP = ("L4", "A10G")
LARGE = ("A100-80GB", "H100-80GB")
LONGEST_ON_CHEAP = 12000  # prompt tokens; the paper's limit on L4 and A10G
CONTEXT = 18000  # the largest bucket, 16,000 + 2,000 tokens; the model's own limit is 4,096
LIMITS_MS = (120, 40)
RATES = (1, 2, 4, 8, 16, 32)
SLICES = 8
NO_LIMIT_S = 1e3  # a time per token that is never reached
BUCKETS = Buckets(input_edges=PAPER_INPUT_EDGES, output_edges=PAPER_OUTPUT_EDGES)
SHORT = 2000  # prompt tokens; the end of the bins in the authors' notebook of February 2024

# PubMed: means in words of its training split (huggingface.co/datasets/ccdv/pubmed-summarization)
PUBMED_WORDS = (3043, 215)
TOKENS_PER_WORD = 1.4  # assumed
LOG_SPREAD = (0.6, 0.4)  # standard deviation of the logarithm of the length, assumed


@dataclass(frozen=True)
class Case:
    """One workload of the evaluation.

    ``compared`` are the single types that the paper compares its mix with, ``published`` is the paper's name for the
    workload, and ``cut`` is the share of the requests beyond its sizes.
    """

    name: str
    words: str
    compared: tuple[str, ...]
    published: str
    request_share: Array
    cut: float


def cases() -> tuple[Case, ...]:
    """The paper's three workloads, each in two variants."""
    everything = (*CHEAP, *LARGE)
    arena, arena_cut = shares_of("arena", LONGEST_ON_CHEAP)
    short, short_cut = shares_of("arena", SHORT)
    whole, _ = shares_of("arena")
    documents, documents_cut = shares_of("arxiv-summarization")
    pubmed, pubmed_cut = pubmed_like()
    return (
        Case("Arena to 2,000", "Arena, prompts up to 2,000 tokens", everything, "Arena", short, short_cut),
        Case("Arena to 12,000", "Arena, prompts up to 12,000 tokens", everything, "Arena", arena, arena_cut),
        Case("arXiv", "arXiv summarization up to 4,000 tokens", LARGE, "PubMed", documents, documents_cut),
        Case("PubMed-like", "lengths drawn around PubMed's means", LARGE, "PubMed", pubmed, pubmed_cut),
        Case("Arena + arXiv", "80 % Arena, 20 % arXiv", LARGE, "mixed", 0.8 * whole + 0.2 * documents, 0.0),
        Case("Arena + PubMed-like", "80 % Arena, 20 % PubMed-like", LARGE, "mixed", 0.8 * whole + 0.2 * pubmed, 0.0),
    )


def shares_of(name: str, longest: int | None = None) -> tuple[Array, float]:
    """Share of a data set's requests by size on the paper's grid, and the share of requests that were cut off."""
    outputs = (*PAPER_OUTPUT_EDGES, 8000)
    grid = Buckets(input_edges=PAPER_INPUT_EDGES, output_edges=outputs)
    rate = dataset(name, buckets=grid, request_rate=1.0).request_rate[:, : len(PAPER_OUTPUT_EDGES)].copy()
    if longest is not None:
        rate[np.asarray(PAPER_INPUT_EDGES) > longest] = 0.0
    kept = float(rate.sum())
    return rate / kept, 1.0 - kept


def pubmed_like() -> tuple[Array, float]:
    """Lognormal lengths, input and output independent, with PubMed's means; and the share beyond the grid."""
    axes = []
    for words, spread, edges in zip(PUBMED_WORDS, LOG_SPREAD, (PAPER_INPUT_EDGES, PAPER_OUTPUT_EDGES), strict=True):
        middle = math.log(words * TOKENS_PER_WORD) - spread**2 / 2
        below = [0.5 * (1 + math.erf((math.log(edge) - middle) / (spread * math.sqrt(2)))) for edge in edges]
        axes.append(np.diff([0.0, *below]))
    shares = np.outer(*axes)
    return shares / shares.sum(), float(1.0 - shares.sum())


def workload_of(request_share: Array, rate: float, kept: npt.NDArray[np.bool_] | None = None) -> Workload:
    """A mix of sizes at a rate, planned at the upper edges, with only the kept sizes."""
    shares = request_share if kept is None else np.where(kept, request_share, 0.0)
    return Workload.at_upper_edges(BUCKETS, shares).at_rate(rate)


def offers(accelerators: tuple[str, ...] = (*CHEAP, *LARGE)) -> list[Offer]:
    """One instance of each type at the paper's price."""
    return [
        Offer(
            provider="paper",
            region="",
            instance_type=name,
            accelerator=name,
            accelerators=1,
            cost_per_h=PRICES[name],
        )
        for name in accelerators
    ]


def era() -> Era:
    """The engine of the paper, with a context limit for its longest requests."""
    return find_era(ERA).with_settings(max_context=CONTEXT)


def estimated(limit_ms: float | None, accelerators: tuple[str, ...] = (*CHEAP, *LARGE)) -> Profile:
    """Estimated capacities at the upper edges under a limit on the mean latency per output token.

    L4 and A10G serve prompts up to the paper's limit. Without a limit: rates at saturation, with an endless queue.
    """
    if limit_ms is None:
        slo = Slo(tpot_s=NO_LIMIT_S, statistic="mean")
    else:
        slo = Slo(ntpot_s=limit_ms / 1e3, statistic="mean")
    profile = estimate(find_model(MODEL), offers(accelerators), slo, BUCKETS, engine=era())
    rate = profile.max_request_rate.copy()
    too_long = np.asarray(PAPER_INPUT_EDGES) > LONGEST_ON_CHEAP
    for r, name in enumerate(accelerators):
        if name in CHEAP:
            rate[r, too_long] = 0.0
    return replace(profile, max_request_rate=rate)
