"""The traffic of a live service by size, from balancers, Prometheus, or a log of requests."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from melange.errors import InputError, MelangeError
from melange.parsing import parse_json
from melange.records import mapping
from melange.workload.scrapes import DIALECTS
from melange.workload.workload import Array, Buckets, Workload

if TYPE_CHECKING:
    from typing import Unpack

    from melange.workload.layouts import Naming

_TIMEOUT_S = 10.0
_MOST_BYTES = 64 << 20


class Traffic(Protocol):
    """A source of request rates."""

    def read(self, now_s: float, window_s: float) -> Array | None:
        """Arrivals per second by size over the window before now (I, O) [1/s]; None if nothing is known yet.

        Raises
        ------
        MelangeError
            The source does not answer, or its answer is not what was expected.
        """
        ...


class BalancerTraffic:
    """The sum of the rates that balancers count, each over its own window (``--window``).

    Parameters
    ----------
    urls
        URLs of the balancers.
    buckets
        Buckets of the plan.
    key
        The API key to send; empty: none.
    """

    def __init__(self, urls: Sequence[str], buckets: Buckets, key: str = "") -> None:
        self.urls, self.buckets = [url.rstrip("/") for url in urls], buckets
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def read(self, now_s: float, window_s: float) -> Array | None:
        """The sum of the balancers' rates."""
        found = [rate for url in self.urls if (rate := self._of(url)) is not None]
        return np.sum(found, axis=0) if found else None

    def _of(self, url: str) -> Array | None:
        place = f"{url}/workload.json"
        text = fetched(place, self.headers, absent=404)
        if text is None:  # it has completed no request yet
            return None
        workload = Workload.from_json(dict(mapping(parse_json(text, place), place)))
        if workload.buckets != self.buckets:
            raise MelangeError(
                f"{place}: counts other request sizes than the plan", hint="start the balancer with this plan"
            )
        return np.asarray(workload.request_rate)

    def outstanding(self, replica_url: str) -> float | None:
        """Outstanding requests of all balancers on a replica; None if a balancer does not answer."""
        total = 0.0
        for url in self.urls:
            try:
                text = fetched(f"{url}/metrics", self.headers)
            except MelangeError:
                return None
            for line in (text or "").splitlines():
                if line.startswith("melange_replica_outstanding{") and f'url="{replica_url}"' in line:
                    total += float(line.rpartition(" ")[2])
        return total


class PrometheusTraffic:
    """The size histograms of vLLM or SGLang in Prometheus.

    Prompts and completions have separate histograms: they are assumed to be independent.

    Parameters
    ----------
    url
        URL of Prometheus.
    buckets
        Buckets of the plan.
    selector
        Label selector, for example ``model_name="llama"``; empty: all series.
    """

    def __init__(self, url: str, buckets: Buckets, selector: str = "") -> None:
        self.url, self.buckets, self.selector = url.rstrip("/"), buckets, selector
        if buckets.is_ordinal:
            raise InputError(
                "--prometheus: the plan's buckets are only numbered, so token counts cannot be assigned to them"
            )
        _refuse_classes(buckets, "--prometheus: engines' metrics")

    def read(self, now_s: float, window_s: float) -> Array | None:
        """Rates from the increase of the histograms in the window."""
        for dialect in DIALECTS:
            inputs = self._grown(dialect.input, now_s, window_s)
            if not inputs:
                continue
            outputs = self._grown(dialect.output, now_s, window_s)
            first = spread(inputs, self.buckets.input_edges)
            second = spread(outputs, self.buckets.output_edges)
            total = first.sum()
            if total > 0 and second.sum() > 0:
                return np.asarray(np.outer(first, second / second.sum()) / window_s)
        return None

    def _grown(self, name: str, now_s: float, window_s: float) -> dict[float, float]:
        """Requests of the window up to each edge."""
        named = f'{{__name__="{name}_bucket"{f",{self.selector}" if self.selector else ""}}}'
        query = f"sum by (le) (increase({named}[{math.ceil(window_s)}s]))"
        place = f"{self.url}/api/v1/query"
        text = fetched(f"{place}?{urllib.parse.urlencode({'query': query, 'time': f'{now_s:.3f}'})}", {})
        content = mapping(parse_json(text or "", place), place)
        try:
            series = content["data"]["result"]
            return {float(one["metric"]["le"]): float(one["value"][1]) for one in series}
        except (KeyError, TypeError, ValueError, IndexError) as fault:
            said = str(content.get("error", fault))
            raise MelangeError(f"{place}: not a response of Prometheus: {said}") from fault


class LogTraffic:
    """A growing log of requests, with their arrivals as points in time.

    Parameters
    ----------
    path
        The file, folder or pattern, as ``workload.trace``.
    buckets
        Buckets of the plan.
    naming
        Columns and format of the log, as in ``read_trace``.
    """

    def __init__(self, path: str, buckets: Buckets, **naming: Unpack[Naming]) -> None:
        self.path, self.buckets, self.naming = path, buckets, naming
        _refuse_classes(buckets, f"{path}: logs")

    def read(self, now_s: float, window_s: float) -> Array | None:
        """The requests that arrived in the window."""
        from melange.workload.traces import read_trace

        if not Path(self.path).exists() and not any(mark in self.path for mark in "*?["):
            raise InputError(f"{self.path}: no such log")
        found = read_trace(
            self.path, buckets=self.buckets, start=_moment(now_s - window_s), end=_moment(now_s), **self.naming
        )
        return np.asarray(found.request_rate)


def _refuse_classes(buckets: Buckets, what: str) -> None:
    if buckets.classes:
        raise InputError(
            f"{what} do not contain request classes, but the plan has {', '.join(buckets.classes)}",
            hint="read the balancer, which knows classes by their priority: --balancer URL",
        )


def spread(cumulative: Mapping[float, float], edges: Sequence[int]) -> Array:
    """Requests in the plan's buckets from cumulative counts at other edges, spread evenly between two edges.

    Requests above the largest edge of the plan count in its last bucket.

    >>> spread({100.0: 8.0, 200.0: 10.0, math.inf: 11.0}, (50, 150, 1000)).tolist()
    [4.0, 5.0, 2.0]
    """
    counted = sorted(cumulative.items())
    found = np.zeros(len(edges))
    low, before = 0.0, 0.0
    lower = np.array([0, *edges[:-1]], float)
    upper = np.array([*edges[:-1], math.inf], float)
    for edge, count in counted:
        here = max(0.0, count - before)
        if math.isinf(edge) or edge <= low:
            found[int(np.searchsorted(edges, low, side="right").clip(0, len(edges) - 1))] += here
        else:
            part = np.clip(np.minimum(upper, edge) - np.maximum(lower, low), 0.0, None) / (edge - low)
            found += here * part
        low, before = edge, max(before, count)
    return found


def fetched(url: str, headers: Mapping[str, str], absent: int = 0) -> str | None:
    """The text at a URL; None if the response has the status ``absent``.

    Raises
    ------
    MelangeError
        No answer, or another status.
    """
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers)), timeout=_TIMEOUT_S) as answer:
            return str(answer.read(_MOST_BYTES).decode("utf-8", "replace"))
    except urllib.error.HTTPError as fault:
        with fault:
            if fault.code == absent:
                return None
            raise MelangeError(f"{url.partition('?')[0]}: answered {fault.code}: {_words(fault)}") from fault
    except (OSError, ValueError) as fault:
        reason: Any = getattr(fault, "reason", fault)
        raise MelangeError(f"{url.partition('?')[0]}: {getattr(reason, 'strerror', None) or reason}") from fault


def _words(fault: urllib.error.HTTPError) -> str:
    text = fault.read(2000).decode("utf-8", "replace")
    try:
        content = json.loads(text)
        return str(content.get("error", content))[:200]
    except (ValueError, AttributeError):
        return " ".join(text.split())[:200]


def _moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat()
