"""Bundled histograms of public traces, by name.

Each is stored on a fine grid (eight edges per octave, plus the round ones), written by ``bench/histograms.py``, so
that it can be rebinned to any edges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from melange.errors import Caution, InputError, unknown
from melange.workload.sizes import mean_sizes, oversized, thin_data
from melange.workload.workload import Array, Buckets, Workload

_DATA = Path(__file__).parent / "data"
# How far the sum of a mixture's shares may be from 1: for rounding of floats, not for mistakes of users.
_WHOLE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class FineHistogram:
    """A data set on its fine grid, with a row for each cell that holds requests.

    Parameters
    ----------
    about
        The data set and its source, one sentence.
    requests
        How many requests were observed.
    request_rate
        Mean arrivals per second; None where the data has no real arrival times [1/s].
    burstiness
        Coefficient of variation of the gaps between arrivals; None where it was not observed.
    low, high
        Edges of the cells (2, cells), input then output; the lower is excluded [tokens].
    weight
        Requests by cell (cells).
    token_sum
        Tokens by cell (2, cells), input then output [tokens].
    """

    about: str
    requests: int
    request_rate: float | None
    burstiness: float | None
    low: Array
    high: Array
    weight: Array
    token_sum: Array


def datasets() -> Mapping[str, str]:
    """The bundled data sets by name: a description with source, license and date.

    Examples
    --------
    >>> print(*datasets(), sep=", ")
    arena, arxiv-summarization, azure-code, azure-conversation, mooncake-conversation, sharegpt
    """
    return {name: _load(name).about for name in _names()}


def dataset(
    name: str | Mapping[str, float], *, buckets: Buckets | None = None, request_rate: float | None = None
) -> Workload:
    """A bundled data set, or a mixture of several, as a workload.

    Parameters
    ----------
    name
        A name from :func:`datasets`, or shares of requests by name that add up to 1.
    buckets
        The grid of sizes; the default grid where None.
    request_rate
        Total rate; None for the data set's own mean rate, where it has one [1/s].

    Raises
    ------
    InputError
        An unknown name; shares that are negative or do not add up to 1; a data set without arrival times and no
        ``request_rate``; buckets that end below the largest request.

    Examples
    --------
    >>> workload = dataset("azure-conversation")
    >>> round(workload.total_rate, 2), workload.requests
    (5.53, 19366)
    >>> mixture = dataset({"arena": 0.8, "arxiv-summarization": 0.2}, request_rate=10)
    >>> round(mixture.total_rate, 6)
    10.0
    """
    grid = Buckets() if buckets is None else buckets
    if grid.is_ordinal:
        raise InputError("a data set needs buckets with edges in tokens; these are only numbered")
    if isinstance(name, str):
        return _one(name, grid, request_rate)
    shares = _shares(name)
    if len(shares) == 1:
        return _one(next(iter(shares)), grid, request_rate)
    if request_rate is None:
        raise InputError(
            f"a mixture of data sets ({', '.join(shares)}) has no request rate",
            hint="set a request rate: workload.rate (--rate)",
        )
    parts = [_one(part, grid, request_rate * share) for part, share in shares.items()]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole + part
    mix = ", ".join(f"{share:.4g} {part}" for part, share in shares.items())
    return replace(whole.at_rate(request_rate), source=f"mixture of data sets: {mix}")


def _shares(mixture: Mapping[str, float]) -> dict[str, float]:
    """The shares above 0, checked."""
    for name, share in mixture.items():
        _check_name(name)
        if isinstance(share, bool) or not isinstance(share, int | float) or not (math.isfinite(share) and share >= 0):
            raise InputError(f"dataset.{name}: a share must be a number from 0 to 1, got {share!r}")
    total = sum(mixture.values())
    if abs(total - 1) > _WHOLE:
        raise InputError(
            f"dataset: the shares of a mixture must add up to 1, got {total:.6g}",
            hint="for example {arena: 0.8, arxiv-summarization: 0.2}",
        )
    return {name: float(share) for name, share in mixture.items() if share > 0}


def _one(name: str, grid: Buckets, request_rate: float | None) -> Workload:
    _check_name(name)
    fine = _load(name)
    rate = request_rate if request_rate is not None else fine.request_rate
    if rate is None:
        raise InputError(
            f"dataset {name} has no arrival times, only sizes", hint="set a request rate: workload.rate (--rate)"
        )
    edges = (grid.input_edges, grid.output_edges)
    mean = fine.token_sum / fine.weight
    is_larger = (mean[0] > edges[0][-1]) | (mean[1] > edges[1][-1])
    if is_larger.any():
        raise oversized(grid, fine.weight[is_larger].sum(), mean[0].max(), mean[1].max(), place=f"dataset {name}")
    i, o = (np.searchsorted(edges[axis], mean[axis]) for axis in (0, 1))
    requests, inputs, outputs = (np.zeros(grid.shape) for _ in range(3))
    np.add.at(requests, (i, o), fine.weight)
    np.add.at(inputs, (i, o), fine.token_sum[0])
    np.add.at(outputs, (i, o), fine.token_sum[1])
    mean_inputs, mean_outputs = mean_sizes(grid, requests, inputs, outputs)
    return Workload(
        buckets=grid,
        request_rate=requests,
        input_tokens=mean_inputs,
        output_tokens=mean_outputs,
        source=f"dataset {name}: {fine.about}",
        requests=fine.requests,
        burstiness=fine.burstiness,
        cautions=(*thin_data(grid, requests), *_cut_cells(name, fine, edges)),
    ).at_rate(rate)


def _cut_cells(name: str, fine: FineHistogram, edges: tuple[tuple[int, ...], tuple[int, ...]]) -> tuple[Caution, ...]:
    """A caution if an edge divides cells: all requests of such a cell count on one side."""
    is_cut = np.zeros(len(fine.weight), dtype=bool)
    for axis in (0, 1):
        for edge in edges[axis]:
            is_cut |= (fine.low[axis] < edge) & (edge < fine.high[axis])
    share = float(fine.weight[is_cut].sum() / fine.weight.sum())
    if share == 0:
        return ()
    return (
        Caution(
            "approximate-buckets",
            f"dataset {name}: bucket edges cut cells of its grid that hold {share:.1%} of the requests; these "
            "were assigned by their mean size; edges of the default grid avoid this",
        ),
    )


def _names() -> list[str]:
    return sorted(file.stem for file in _DATA.glob("*.json"))


def _check_name(name: str) -> None:
    if name not in (names := _names()):
        raise unknown("dataset", name, names)


@cache
def _load(name: str) -> FineHistogram:
    content = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))
    cells = {column: np.asarray(values, float) for column, values in content["cells"].items()}

    def pair(template: str) -> Array:
        return np.stack([cells[template.format(axis)] for axis in ("input", "output")])

    return FineHistogram(
        about=f"{content['source']}; {content['requests']:,} requests, {content['date']}, {content['license']}, "
        f"{content['url']}",
        requests=content["requests"],
        request_rate=content["request_rate"],
        burstiness=content["burstiness"],
        low=pair("{}_over"),
        high=pair("{}_upto"),
        weight=cells["requests"],
        token_sum=pair("{}_tokens"),
    )
