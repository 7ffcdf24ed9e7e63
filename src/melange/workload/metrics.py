"""A workload from production: the two histograms of sizes in a vLLM server's metrics."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError
from melange.files import read_text
from melange.workload.workload import MOST_TOKENS, Array, Buckets, Workload

_SAMPLE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+\S+)?")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_FAMILIES = {"input": "vllm:request_prompt_tokens", "output": "vllm:request_generation_tokens"}
_FINISHED = "vllm:request_success_total"
# Requests, or tokens of them, that a server counts: those of a century at a million a second.
_MOST_COUNTED = 1e16


def read_metrics(
    path: str | Path,
    *,
    request_rate: float | None = None,
    earlier: str | Path | None = None,
    elapsed_s: float | None = None,
    model: str | None = None,
) -> Workload:
    """The workload in the text of a vLLM server's ``/metrics``.

    Parameters
    ----------
    path
        The saved text.
    request_rate
        Total rate; a single text does not say in which time its requests came [1/s].
    earlier
        A text saved before; its counts are taken off.
    elapsed_s
        Time between both texts, from which the rate follows [s].
    model
        The ``model_name`` to take, where the server has several.

    Returns
    -------
    Workload
        On the server's own edges: the product of the marginal histograms of prompt and generated tokens. Within the
        buckets sizes lie at one fraction of the way between the edges, the one that makes the total of tokens right.

    Raises
    ------
    InputError
        Absent histograms, several models and none chosen, a counter that went back, no rate.
    """
    counts = _scrape(path, model)
    if earlier is not None:
        before = _scrape(earlier, model)
        counts = {key: value - before.get(key, 0.0) for key, value in counts.items()}
        if any(value < 0 for value in counts.values()):
            raise InputError(f"{path}: counts less than {earlier}", hint="the server started anew, or they are swapped")
    inputs, outputs = (_marginal(counts, axis, str(path)) for axis in ("input", "output"))
    requests = float(inputs.count.sum())
    if request_rate is None and elapsed_s is not None and earlier is not None and elapsed_s > 0:
        request_rate = requests / elapsed_s
    if request_rate is None:
        raise InputError(
            f"{path}: metrics count {requests:,.0f} requests and do not say in which time",
            hint="give the request rate, or an earlier text and the time between both",
        )
    buckets = Buckets(input_edges=inputs.edges, output_edges=outputs.edges)
    failed = sum(counts.get((_FINISHED, reason), 0.0) for reason in ("abort", "error"))
    independent = Caution(
        "independent-marginals",
        f"{path}: metrics hold prompt and output lengths apart; both are taken to be independent. "
        "A trace of requests says how they go together",
    )
    sizes = np.meshgrid(inputs.sizes, outputs.sizes, indexing="ij")
    return Workload(
        buckets=buckets,
        request_rate=np.outer(inputs.count, outputs.count),
        input_tokens=sizes[0],
        output_tokens=sizes[1],
        source=f"{Path(path).name} (vLLM metrics): {requests:,.0f} requests",
        requests=int(requests),
        failed_requests=int(failed),
        cautions=(independent, *_aborted(failed, requests, str(path))),
    ).at_rate(request_rate)


def _aborted(failed: float, requests: float, place: str) -> tuple[Caution, ...]:
    if not failed:
        return ()
    return (
        Caution(
            "failed-rows",
            f"{place}: {failed:,.0f} of {requests:,.0f} requests were aborted; their lengths are part of the "
            "histograms and cannot be told apart",
        ),
    )


def _scrape(path: str | Path, model: str | None) -> dict[tuple[str, str], float]:
    """Samples by name and by upper edge or reason, added up over the engines of one model."""
    counts: dict[tuple[str, str], float] = {}
    models: set[str] = set()
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.startswith("vllm:"):
            continue
        sample = _SAMPLE.fullmatch(line.strip())
        if sample is None:
            raise InputError(f'{path}:{number}: must be a sample such as name{{label="..."}} 1.0, got {line[:60]!r}')
        name = sample["name"]
        if not name.startswith((*_FAMILIES.values(), _FINISHED)):
            continue
        labels: dict[str, str] = dict(_LABEL.findall(sample["labels"] or ""))
        models.add(labels.get("model_name", ""))
        if model is None or labels.get("model_name") == model:
            key = (str(name), labels.get("le") or labels.get("finished_reason") or "")
            value = _number(sample["value"], f"{path}:{number}")
            if not 0 <= value <= _MOST_COUNTED:
                raise InputError(f"{path}:{number}: must count 0 to {_MOST_COUNTED:g}, got {sample['value'][:40]}")
            counts[key] = counts.get(key, 0.0) + value
    if model is None and len(models) > 1:
        raise InputError(f"{path}: holds several models: {', '.join(sorted(models))}", hint="name one of them")
    if not counts:
        known = f"; models: {', '.join(sorted(models))}" if models else ""
        raise InputError(
            f"{path}: no {' and '.join(_FAMILIES.values())} in it{known}",
            hint="save the text of http://server:8000/metrics",
        )
    return counts


class _Marginal:
    """One histogram: requests and mean size by bucket, empty buckets at the end left out."""

    def __init__(self, edges: tuple[int, ...], count: Array, token_sum: float) -> None:
        self.edges = edges
        self.count = count
        low = np.array([0, *edges[:-1]], float) + 1
        width = np.asarray(edges, float) - low
        spread = float((count * width).sum())
        fraction = (token_sum - float((count * low).sum())) / spread if spread > 0 else 1.0
        self.sizes = low + min(max(fraction, 0.0), 1.0) * width


def _marginal(counts: dict[tuple[str, str], float], axis: str, place: str) -> _Marginal:
    family = _FAMILIES[axis]
    cumulative = sorted(
        (_number(edge, f"{place}: le of {family}"), n)
        for (name, edge), n in counts.items()
        if name == f"{family}_bucket"
    )
    if any(not 0 < edge <= MOST_TOKENS for edge, _ in cumulative[:-1]):
        raise InputError(f"{place}: the edges (le) of {family} must be > 0 and at most {MOST_TOKENS:,} tokens")
    if len(cumulative) < 2 or not math.isinf(cumulative[-1][0]):
        raise InputError(f"{place}: the histogram {family} is absent or has no +Inf bucket")
    edges, above = [int(edge) for edge, _ in cumulative[:-1]], cumulative[-1][1]
    totals = np.array([n for _, n in cumulative[:-1]])
    if above > totals[-1]:
        raise InputError(
            f"{place}: {above - totals[-1]:,.0f} requests of {family} are larger than its last edge {edges[-1]:,}"
        )
    if not above > 0:
        raise InputError(f"{place}: {family} has counted no request")
    count = np.diff(totals, prepend=0.0)
    if (count < 0).any():
        raise InputError(f"{place}: the buckets of {family} must not decrease")
    used = int(np.flatnonzero(count)[-1]) + 1
    return _Marginal(tuple(edges[:used]), count[:used], counts.get((f"{family}_sum", ""), math.inf))


def _number(text: str, place: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{place}: must end in a number, got {text[:40]!r}") from None
