"""The dataclasses of the workload stage: request rates by size.

Arrays have the axes (input bucket I, output bucket O). A bucket is a range of request sizes, lower edge
excluded and upper edge included (Mélange, arXiv 2404.14527, section 5.1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InputError, printable
from melange.files import Json, dump_document, read_as, write_document
from melange.records import records, shown, text, truth, value_of
from melange.workload.frozen_array import frozen_array
from melange.workload.prefix_reuse import PrefixReuse

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# The paper's edges (Figures 3 and 4), extended by doubling to 128k input and 32k output tokens.
PAPER_INPUT_EDGES = (25, 100, 250, 500, 1000, 2000, 4000, 8000, 12000, 16000)
PAPER_OUTPUT_EDGES = (25, 100, 250, 500, 1000, 2000)
DEFAULT_INPUT_EDGES = (*PAPER_INPUT_EDGES, 32000, 64000, 128000)
DEFAULT_OUTPUT_EDGES = (*PAPER_OUTPUT_EDGES, 4000, 8000, 16000, 32000)
# Most tokens of a request: a thousand times the longest context of any model.
MOST_TOKENS = 1_000_000_000
# Most buckets of a grid; the bundled grid has 130. A table of all buckets for a thousand replica types fits in memory.
_MOST_BUCKETS = 20_000
# Most prompt tokens of all classes on one axis: a 32-bit integer.
_MOST_ROW_TOKENS = 2**31 - 1
# Requests per second of a workload: from one in thirty years to a hundred times the rate of the largest service. Beyond
# these, programs are scaled so badly that the solver does not return.
LEAST_RATE, MOST_RATE = 1e-9, 1e7


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt and its completion.

    Parameters
    ----------
    arrival_s
        Arrival at the balancer [s].
    input_tokens, output_tokens
        Prompt length and generated length, both >= 1.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Buckets:
    """A grid of request sizes.

    Parameters
    ----------
    input_edges, output_edges
        Upper edges, ascending [tokens]; the first bucket starts at 1 token.
    is_ordinal
        True if a file numbers its buckets without stating their sizes (the authors' release): the edges are then 1, 2,
        3, ... and are not token counts.
    classes
        Names of the classes of requests (K), if each class has its own rows of sizes: the first axis of all tables then
        holds the input buckets of the first class, those of the second, and so on. Empty: one class.

    Examples
    --------
    >>> Buckets(input_edges=(25, 100), output_edges=(50,)).label(1, 0)
    '26-100 in, 1-50 out'
    """

    input_edges: tuple[int, ...] = DEFAULT_INPUT_EDGES
    output_edges: tuple[int, ...] = DEFAULT_OUTPUT_EDGES
    is_ordinal: bool = False
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for axis in ("input", "output"):
            edges = getattr(self, f"{axis}_edges")
            if len(edges) == 0:
                raise InputError(f"buckets.{axis}: at least one upper edge is needed")
            if any(not 1 <= edge <= MOST_TOKENS or int(edge) != edge for edge in edges):
                raise InputError(
                    f"buckets.{axis}: edges must be whole numbers, 1 to {MOST_TOKENS:,}, got {shown(list(edges))}"
                )
            if any(low >= high for low, high in itertools.pairwise(edges)):
                raise InputError(f"buckets.{axis}: edges must ascend, got {shown(list(edges))}")
            object.__setattr__(self, f"{axis}_edges", tuple(int(edge) for edge in edges))
        if self.shape[0] * self.shape[1] > _MOST_BUCKETS:
            raise InputError(
                f"buckets: at most {_MOST_BUCKETS:,} are planned for, got {self.shape[0]:,} x {self.shape[1]:,}"
            )
        if self.classes and len(self.classes) * self.input_edges[-1] > _MOST_ROW_TOKENS:
            most = _MOST_ROW_TOKENS // len(self.classes)
            raise InputError(f"buckets.input: with {len(self.classes)} classes the last edge must be <= {most:,}")

    @classmethod
    def ordinal(cls, inputs: int, outputs: int) -> Buckets:
        """Buckets that are numbered without known sizes, ``inputs`` x ``outputs`` of them."""
        return cls(
            input_edges=tuple(range(1, inputs + 1)),
            output_edges=tuple(range(1, outputs + 1)),
            is_ordinal=True,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Number of buckets along both axes (I, O); with classes, the first axis holds those of all (K I, O)."""
        return len(self.input_edges) * max(len(self.classes), 1), len(self.output_edges)

    @property
    def row_edges(self) -> tuple[int, ...]:
        """Upper edges of the rows on one axis (I,): the rows of a class begin at the last edge of the previous class.

        >>> Buckets(input_edges=(25, 100), output_edges=(50,), classes=("default", "batch")).row_edges
        (25, 100, 125, 200)
        """
        if not self.classes:
            return self.input_edges
        return tuple(k * self.input_edges[-1] + edge for k in range(len(self.classes)) for edge in self.input_edges)

    def row_tokens(self, input_tokens: npt.NDArray[Any], class_of: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
        """Positions of requests among ``row_edges`` (N,), from their prompts and the indices of their classes (N,).

        Raises
        ------
        InputError
            The buckets have classes and the requests have none, or the reverse.
        """
        if (class_of is None) == bool(self.classes):
            needed = f"of one of the classes {', '.join(self.classes)}" if self.classes else "of no class"
            raise InputError(f"requests: each must be {needed}", hint="simulate what the plan was made for")
        if class_of is None:
            return input_tokens
        last = self.input_edges[-1]
        return np.asarray(class_of.astype(np.int64) * last + np.minimum(input_tokens, last))

    def cells(
        self, input_tokens: npt.NDArray[Any], output_tokens: npt.NDArray[Any], class_of: npt.NDArray[Any] | None
    ) -> npt.NDArray[np.int64]:
        """The bucket of each request, flattened (N,); sizes beyond the last edge count in the last bucket."""
        i = np.minimum(np.searchsorted(self.row_edges, self.row_tokens(input_tokens, class_of)), self.shape[0] - 1)
        o = np.minimum(np.searchsorted(self.output_edges, output_tokens), self.shape[1] - 1)
        return np.asarray(i * self.shape[1] + o)

    @property
    def class_of_rows(self) -> npt.NDArray[np.int64] | None:
        """The index of each row's class (I, 1); None without classes."""
        return np.repeat(np.arange(len(self.classes)), len(self.input_edges))[:, None] if self.classes else None

    @property
    def of_one_class(self) -> Buckets:
        """The same sizes without classes."""
        return replace(self, classes=())

    def upper_sizes(self) -> tuple[Array, Array]:
        """The upper edges of every bucket: input tokens (I, O) and output tokens (I, O)."""
        inputs, outputs = np.meshgrid(
            np.asarray(self.input_edges * max(len(self.classes), 1), float),
            np.asarray(self.output_edges, float),
            indexing="ij",
        )
        return inputs, outputs

    def label(self, i: int, o: int) -> str:
        """The bucket at (i, o) in words."""
        if self.is_ordinal:
            return f"input size {i + 1}, output size {o + 1}"
        return f"{self.row_label(i)} in, {_range(self.output_edges, o)} out"

    def edge_label(self, axis: str, index: int) -> str:
        """The upper edge of a row (``input``) or column (``output``): ``1,000``; with its class, ``batch 1,000``."""
        if self.is_ordinal:
            return f"#{index + 1}"
        if axis == "output":
            return f"{self.output_edges[index]:,}"
        k, place = divmod(index, len(self.input_edges))
        return f"{f'{self.classes[k]} ' if self.classes else ''}{self.input_edges[place]:,}"

    def row_label(self, i: int) -> str:
        """The prompt range of a row, with its class if there are several."""
        k, place = divmod(i, len(self.input_edges))
        return f"{f'{self.classes[k]}, ' if self.classes else ''}{_range(self.input_edges, place)}"

    def to_json(self) -> Json:
        """As a JSON object."""
        content: Json = {"input_edges": list(self.input_edges), "output_edges": list(self.output_edges)}
        content |= {"is_ordinal": True} if self.is_ordinal else {}
        return content | ({"classes": list(self.classes)} if self.classes else {})

    @classmethod
    def from_json(cls, content: Json) -> Buckets:
        """From an object that holds what :meth:`to_json` makes."""
        return cls(
            input_edges=value_of(tuple[int, ...], content["input_edges"], "input_edges"),
            output_edges=value_of(tuple[int, ...], content["output_edges"], "output_edges"),
            is_ordinal=truth(content.get("is_ordinal", False), "is_ordinal"),
            classes=value_of(tuple[str, ...], content.get("classes", ()), "classes"),
        )


def _range(edges: tuple[int, ...], index: int) -> str:
    return f"{(edges[index - 1] if index else 0) + 1:,}-{edges[index]:,}"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Workload:
    """Request rates by request size.

    Parameters
    ----------
    buckets
        The grid of sizes.
    request_rate
        Arrivals per second by bucket (I, O) [1/s].
    input_tokens, output_tokens
        The size that each bucket is planned for (I, O) [tokens]: the mean of the requests observed in it, or its upper
        edge if the bucket is empty or the paper's convention is used.
    source
        Where the figures come from, in words.
    requests
        Number of requests observed; None if the histogram does not say.
    failed_requests
        Rows of the trace that were excluded because they failed (no output); counted so that they are not hidden.
    burstiness
        Coefficient of variation of the times between arrivals; 1 is Poisson; None if it was not observed.
    log_part_s
        The part of a log that the rate was measured in: its start and end, counted from the log's first arrival [s];
        None: all of a log, or no log.
    prefix_reuse
        The part of prompts that earlier prompts share; None: unknown.
    cautions
        Warnings about these figures.

    Raises
    ------
    InputError
        Rates that are negative, not finite or all zero; sizes below 1 token; wrong shapes.
    """

    buckets: Buckets
    request_rate: Array
    input_tokens: Array
    output_tokens: Array
    source: str = ""
    requests: int | None = None
    failed_requests: int = 0
    burstiness: float | None = None
    log_part_s: tuple[float, float] | None = None
    prefix_reuse: PrefixReuse | None = None
    cautions: tuple[Caution, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("request_rate", "input_tokens", "output_tokens"):
            values = frozen_array(getattr(self, name), f"workload.{name}", self.buckets.shape)
            object.__setattr__(self, name, values)
        _check_rates(self.request_rate, self.buckets)
        for name in ("input_tokens", "output_tokens"):
            sizes = getattr(self, name)
            if not ((sizes >= 1) & (sizes <= MOST_TOKENS)).all():
                raise InputError(f"workload.{name}: the size of a bucket must be 1 to {MOST_TOKENS:,} tokens")
        if self.log_part_s is not None and not 0 <= self.log_part_s[0] < self.log_part_s[1] < np.inf:
            raise InputError(f"workload.log_part_s must be a start and a later end, got {shown(list(self.log_part_s))}")
        object.__setattr__(self, "source", printable(self.source))

    @classmethod
    def at_upper_edges(cls, buckets: Buckets, request_rate: npt.ArrayLike, **details: Any) -> Workload:
        """A workload whose buckets are planned for at their upper edges, the paper's convention."""
        inputs, outputs = buckets.upper_sizes()
        return cls(
            buckets=buckets,
            request_rate=np.asarray(request_rate, float),
            input_tokens=inputs,
            output_tokens=outputs,
            **details,
        )

    @property
    def total_rate(self) -> float:
        """Arrivals per second over all buckets [1/s]."""
        return float(self.request_rate.sum())

    @property
    def input_token_rate(self) -> float:
        """Prompt tokens per second [1/s]; nan where the buckets are ordinal."""
        return float("nan") if self.buckets.is_ordinal else float((self.request_rate * self.input_tokens).sum())

    @property
    def output_token_rate(self) -> float:
        """Generated tokens per second [1/s]; nan where the buckets are ordinal."""
        return float("nan") if self.buckets.is_ordinal else float((self.request_rate * self.output_tokens).sum())

    def at_rate(self, request_rate: float) -> Workload:
        """The same mix of sizes at another total rate [1/s]."""
        if not (np.isfinite(request_rate) and request_rate > 0):
            raise InputError(f"workload.rate must be > 0 and finite, got {request_rate:g}")
        return replace(self, request_rate=self.request_rate * (request_rate / self.total_rate))

    def __add__(self, other: Workload) -> Workload:
        """Both workloads together: rates add up, and the size of a bucket is the mean over the requests of both."""
        if not isinstance(other, Workload):
            return NotImplemented
        if other.buckets != self.buckets:
            raise InputError("workloads can only be added on the same buckets", hint="use the same edges for both")
        total = self.request_rate + other.request_rate
        # If neither has requests in a bucket, its size represents none; the first workload's size is kept.
        share = np.divide(other.request_rate, total, out=np.zeros_like(total), where=total > 0)
        known = self.requests is not None and other.requests is not None
        return replace(
            self,
            request_rate=total,
            input_tokens=self.input_tokens + share * (other.input_tokens - self.input_tokens),
            output_tokens=self.output_tokens + share * (other.output_tokens - self.output_tokens),
            source=" + ".join(filter(None, (self.source, other.source))),
            requests=(self.requests or 0) + (other.requests or 0) if known else None,
            failed_requests=self.failed_requests + other.failed_requests,
            burstiness=None,
            log_part_s=None,
            prefix_reuse=None,
            cautions=tuple(dict.fromkeys((*self.cautions, *other.cautions))),
        )

    def with_upper_sizes(self) -> Workload:
        """The same rates, each bucket planned for at its upper edge (the paper's convention)."""
        inputs, outputs = self.buckets.upper_sizes()
        return replace(self, input_tokens=inputs, output_tokens=outputs)

    def to_json(self) -> Json:
        """As a JSON object."""
        content: Json = self.buckets.to_json() | {
            "request_rate": self.request_rate.tolist(),
            "input_tokens": self.input_tokens.tolist(),
            "output_tokens": self.output_tokens.tolist(),
            "source": self.source,
            "requests": self.requests,
            "failed_requests": self.failed_requests,
            "burstiness": self.burstiness,
            "warnings": [caution.to_json() for caution in self.cautions],
        }
        content |= {} if self.log_part_s is None else {"log_part_s": list(self.log_part_s)}
        return content | ({} if self.prefix_reuse is None else {"prefix_reuse": self.prefix_reuse.to_json()})

    @classmethod
    def from_json(cls, content: Json) -> Workload:
        """From the JSON object that :meth:`to_json` makes."""
        return cls(
            buckets=Buckets.from_json(content),
            request_rate=content["request_rate"],
            input_tokens=content["input_tokens"],
            output_tokens=content["output_tokens"],
            source=text(content.get("source", ""), "source"),
            requests=value_of(int | None, content.get("requests"), "requests"),
            failed_requests=value_of(int, content.get("failed_requests", 0), "failed_requests"),
            burstiness=value_of(float | None, content.get("burstiness"), "burstiness"),
            log_part_s=value_of(tuple[float, float] | None, content.get("log_part_s"), "log_part_s"),
            prefix_reuse=PrefixReuse.from_json(content["prefix_reuse"]) if "prefix_reuse" in content else None,
            cautions=records(Caution, content.get("warnings", ()), "warnings"),
        )

    def dumps(self) -> str:
        """The text of a ``workload.json``."""
        return dump_document("workload", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``workload.json``."""
        return write_document(path, "workload", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Workload:
        """Read a ``workload.json``."""
        return read_as(path, "workload", cls.from_json)


def _check_rates(request_rate: Array, buckets: Buckets) -> None:
    bad = np.argwhere(~np.isfinite(request_rate) | (request_rate < 0))
    if len(bad):
        cells = "; ".join(f"{buckets.label(i, o)}: {request_rate[i, o]:g}" for i, o in bad[:3])
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputError(f"workload.request_rate must be >= 0 and finite, got {cells}{more}")
    if request_rate.sum() > MOST_RATE:
        raise InputError(f"workload: at most {MOST_RATE:g} requests/s are planned for, got {request_rate.sum():g}")
    if 0 < request_rate.sum() < LEAST_RATE:
        raise InputError(f"workload: at least {LEAST_RATE:g} requests/s are planned for, got {request_rate.sum():g}")
    if not request_rate.sum() > 0:
        raise InputError("workload: no requests: every rate is 0")
