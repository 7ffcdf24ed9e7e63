"""A workload from production: the two size histograms in a server's metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError
from melange.workload.scrapes import Scrape, read_scrape
from melange.workload.workload import MOST_TOKENS, Array, Buckets, Workload


def read_metrics(
    path: str | Path,
    *,
    request_rate: float | None = None,
    earlier: str | Path | None = None,
    elapsed_s: float | None = None,
    model: str | Sequence[str] | None = None,
    max_context: int | None = None,
) -> Workload:
    """The workload from the text of a server's ``/metrics``: of vLLM, of vLLM on Ray, or of SGLang.

    Parameters
    ----------
    path
        The saved text.
    request_rate
        Total rate; a single text does not say over which time its requests arrived [1/s].
    earlier
        A text saved before; its counts are subtracted.
    elapsed_s
        Time between both texts, which gives the rate [s].
    model
        The ``model_name`` to read, if the server has several; the counts of several names are added.
    max_context
        Longest request of the model, prompt and completion together [tokens]: requests above the last edge of the
        server's histogram are planned for at this length. None: at the next step of the edges.

    Returns
    -------
    Workload
        On the server's own edges: the product of the marginal histograms of prompt and generated tokens. All buckets
        place their size at the same fraction of the way between the edges, so that the total of tokens is right.
        Requests above the last edge are planned for at the longest size that the model and the total of tokens allow.

    Raises
    ------
    InputError
        Missing or broken histograms, several models without a choice, a counter that decreased, no rate.
    """
    place = str(path)
    models = (model,) if isinstance(model, str) else tuple(model or ())
    scrape = read_scrape(path, models)
    if earlier is not None:
        scrape = scrape.since(read_scrape(earlier, models), place, str(earlier))
    inputs = _Marginal.of(scrape, scrape.dialect.input, max_context, place)
    outputs = _Marginal.of(scrape, scrape.dialect.output, max_context, place)
    requests = float(inputs.count.sum())
    if request_rate is None and elapsed_s is not None and earlier is not None and elapsed_s > 0:
        request_rate = requests / elapsed_s
    if request_rate is None:
        raise InputError(
            f"{path}: metrics count {requests:,.0f} requests, but not over which time",
            hint="set a request rate: workload.rate (--rate), or give an earlier file and the time between both",
        )
    buckets = Buckets(input_edges=inputs.edges, output_edges=outputs.edges)
    independent = Caution(
        "independent-marginals",
        f"{path}: metrics count prompt and output lengths separately; they are assumed to be independent. "
        "A request log shows how they are correlated",
    )
    input_tokens, output_tokens = _joint_sizes(inputs, outputs)
    named = f" of {', '.join(scrape.models)}" if models else ""
    return Workload(
        buckets=buckets,
        request_rate=np.outer(*(count / max(count.sum(), 1.0) for count in (inputs.count, outputs.count))),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        source=f"{Path(path).name} ({scrape.dialect.engine} metrics): {requests:,.0f} requests{named}",
        requests=int(requests),
        failed_requests=int(scrape.failed),
        cautions=(
            independent,
            *_aborted(scrape.failed, requests, place),
            *inputs.cautions(place),
            *outputs.cautions(place),
        ),
    ).at_rate(request_rate)


def _aborted(failed: float, requests: float, place: str) -> tuple[Caution, ...]:
    if not failed:
        return ()
    return (
        Caution(
            "failed-rows",
            f"{place}: {failed:,.0f} of {requests:,.0f} requests were aborted; their lengths are included in the "
            "histograms and cannot be removed",
        ),
    )


class _Marginal:
    """One histogram: requests and mean size by bucket, without empty buckets at the end.

    Requests above the server's last edge are in a bucket of their own, whose upper edge is the longest size.
    """

    def __init__(
        self, name: str, edges: Sequence[int], count: Array, token_sum: float, above: float, limit: int | None
    ) -> None:
        self.name, self.above, self.last_edge = name, above, edges[-1]
        self.is_told = limit is not None and limit > edges[-1]
        self.limit = limit if limit is not None and self.is_told else _next_step(edges)
        self.edges = (*edges, self.limit) if above else tuple(edges)
        self.count = np.append(count, above) if above else count
        low = np.array([0, *self.edges[:-1]], float) + 1
        width = np.asarray(self.edges, float) - low
        sizes = low.copy()
        if above:
            # At most what the model allows, and what the total of tokens allows if all other requests were shortest.
            rest = token_sum - float((self.count[:-1] * low[:-1]).sum())
            sizes[-1] = min(max(rest / above, low[-1]), float(self.limit))
        inner = slice(0, len(self.count) - bool(above))
        spread = float((self.count[inner] * width[inner]).sum())
        left = token_sum - float((self.count * sizes).sum())
        fraction = left / spread if spread > 0 else 1.0
        sizes[inner] += min(max(fraction, 0.0), 1.0) * width[inner]
        self.sizes = sizes

    @classmethod
    def of(cls, scrape: Scrape, name: str, max_context: int | None, place: str) -> _Marginal:
        """The histogram of the given name."""
        cumulative = sorted(scrape.cumulative.get(name, {}).items())
        if len(cumulative) < 2 or not math.isinf(cumulative[-1][0]):
            raise InputError(f"{place}: the histogram {name} is missing or has no +Inf bucket")
        edges = [int(edge) for edge, _ in cumulative[:-1]]
        if edges[-1] > MOST_TOKENS:
            raise InputError(f"{place}: the edges (le) of {name} must be at most {MOST_TOKENS:,} tokens")
        if edges[0] < 1 or any(edge != given for edge, (given, _) in zip(edges, cumulative, strict=False)):
            raise InputError(f"{place}: the edges of {name} must be whole numbers >= 1")
        totals = np.array([count for _, count in cumulative])
        if not totals[-1] > 0:
            raise InputError(f"{place}: {name} counts no requests")
        count = np.diff(totals, prepend=0.0)
        if (count < 0).any():
            raise InputError(f"{place}: the buckets of {name} must not decrease")
        above, count = float(count[-1]), count[:-1]
        if not above:
            used = int(np.flatnonzero(count)[-1]) + 1
            edges, count = edges[:used], count[:used]
        return cls(name, edges, count, scrape.tokens.get(name, math.inf), above, max_context)

    def cautions(self, place: str) -> tuple[Caution, ...]:
        """A caution about requests above the last edge."""
        if not self.above:
            return ()
        total = float(self.count.sum())
        where = (
            f"at the model's context of {self.limit:,} tokens"
            if self.is_told
            else f"at {self.limit:,} tokens, the next step of the edges, since the model's context length is not known"
        )
        if self.sizes[-1] < self.limit:
            where = f"at {self.sizes[-1]:,.0f} tokens, the most that the total of tokens allows"
        return (
            Caution(
                "overflow",
                f"{place}: {self.above:,.0f} of {total:,.0f} requests ({self.above / total:.2%}) of {self.name} are "
                f"larger than its last edge {self.last_edge:,}, by an unknown amount; they are planned {where}",
            ),
        )


def _next_step(edges: Sequence[int]) -> int:
    """An edge after the last one, for a server whose context length is unknown.

    vLLM's edges go 1, 2, 5, 10, ... up to the context length, so the next edge lies above it.
    """
    digits = 10 ** (len(str(edges[-1])) - 1)
    leading = edges[-1] / digits
    step = next((factor for factor in (1, 2, 5, 10) if factor > leading), 20)
    return int(step * digits)


def _joint_sizes(inputs: _Marginal, outputs: _Marginal) -> tuple[Array, Array]:
    """Sizes by bucket (I, O): if one of them fills the context, a prompt and its completion share it."""
    input_tokens, output_tokens = (axis.copy() for axis in np.meshgrid(inputs.sizes, outputs.sizes, indexing="ij"))
    if inputs.above:
        room = inputs.limit - output_tokens[-1]
        input_tokens[-1] = np.clip(input_tokens[-1], None, np.maximum(room, inputs.last_edge + 1))
    if outputs.above:
        room = outputs.limit - input_tokens[:, -1]
        output_tokens[:, -1] = np.clip(output_tokens[:, -1], None, np.maximum(room, outputs.last_edge + 1))
    return input_tokens, output_tokens
