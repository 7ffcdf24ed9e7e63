"""The size histograms of a server's ``/metrics``, for all supported engines: counts by name and edge."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from melange.errors import InputError, some_of, unknown
from melange.files import read_text

# A sample may have a time after its value, and in OpenMetrics an exemplar with labels and a value of its own.
_SAMPLE = re.compile(
    r"(?P<name>[A-Za-z_:][\w:]*)"
    r'(?:\{(?P<labels>(?:[^"{}]|"(?:[^"\\]|\\.)*")*)\})?'
    r"\s+(?P<value>\S+)(?:\s+[^\s#]\S*)?(?:\s+#\s.*)?"
)
# A name can match at its first character only: otherwise 200,000 characters without a value take minutes.
_LABEL = re.compile(r'(?<!\w)(\w+)="((?:[^"\\]|\\.)*)"')
# Most requests, or tokens, that a server can count: those of a century at a million per second.
_MOST_COUNTED = 1e16
# Labels that divide one histogram into series whose counts are added.
_EDGE, _MODEL = "le", "model_name"


def labels_of(text: str) -> dict[str, str]:
    """The labels of a sample by name, as written: escapes are kept.

    >>> labels_of('le="100",model_name="a"')
    {'le': '100', 'model_name': 'a'}
    """
    return dict(_LABEL.findall(text))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """An engine's names for its histograms.

    Parameters
    ----------
    engine
        The engine, in words.
    input, output
        Names of the histograms of prompt and generated tokens.
    failed
        Names of the counters of failed requests, each with the labels that mark a failure.
    """

    engine: str
    input: str
    output: str
    failed: Mapping[str, tuple[str, tuple[str, ...]]]


_ABORTED = ("finished_reason", ("abort", "error"))
DIALECTS = (
    Dialect(
        engine="vLLM",
        input="vllm:request_prompt_tokens",
        output="vllm:request_generation_tokens",
        failed={"vllm:request_success_total": _ABORTED},
    ),
    # Ray adds its own prefix, and since 2.48 replaces the colon with an underscore.
    Dialect(
        engine="vLLM on Ray",
        input="ray_vllm_request_prompt_tokens",
        output="ray_vllm_request_generation_tokens",
        failed={"ray_vllm_request_success_total": _ABORTED, "ray_vllm_request_success": _ABORTED},
    ),
    Dialect(
        engine="vLLM on Ray",
        input="ray_vllm:request_prompt_tokens",
        output="ray_vllm:request_generation_tokens",
        failed={"ray_vllm:request_success_total": _ABORTED, "ray_vllm:request_success": _ABORTED},
    ),
    Dialect(
        engine="SGLang",
        input="sglang:prompt_tokens_histogram",
        output="sglang:generation_tokens_histogram",
        failed={"sglang:num_aborted_requests_total": ("", ())},
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """The counts in a text, added up over all servers in it.

    Parameters
    ----------
    dialect
        The engine's names that the text uses.
    models
        The models that were counted.
    cumulative
        Requests up to each edge, by histogram name and edge; the last edge is infinite.
    tokens
        Sum of the tokens, by histogram; absent if the text has no sum.
    failed
        Failed requests; the histograms include their sizes.
    """

    dialect: Dialect
    models: tuple[str, ...]
    cumulative: Mapping[str, Mapping[float, float]]
    tokens: Mapping[str, float]
    failed: float

    def since(self, earlier: Scrape, place: str, before: str) -> Scrape:
        """The counts that were added after an earlier text.

        Raises
        ------
        InputError
            Other edges, another engine, or a counter that decreased.
        """
        if earlier.dialect != self.dialect:
            raise InputError(f"{place}: is from {self.dialect.engine}, but {before} is from {earlier.dialect.engine}")
        cumulative = {}
        for name, counts in self.cumulative.items():
            old = earlier.cumulative.get(name, {})
            if old and set(old) != set(counts):
                raise InputError(f"{place}: {name} has different edges in {before}")
            cumulative[name] = {edge: count - old.get(edge, 0.0) for edge, count in counts.items()}
        tokens = {name: total - earlier.tokens.get(name, 0.0) for name, total in self.tokens.items()}
        failed = self.failed - earlier.failed
        everything = [*tokens.values(), failed, *(count for counts in cumulative.values() for count in counts.values())]
        if min(everything) < 0:
            raise InputError(
                f"{place}: counts less than {before}", hint="the server restarted in between, or the files are swapped"
            )
        return Scrape(dialect=self.dialect, models=self.models, cumulative=cumulative, tokens=tokens, failed=failed)


def read_scrape(path: str | Path, models: Sequence[str] = ()) -> Scrape:
    """The histograms of a text for the named models; if none is named, for its only model.

    Parameters
    ----------
    path
        The saved text of ``/metrics``; texts of several servers may follow each other.
    models
        Values of ``model_name`` to add up.

    Raises
    ------
    InputError
        No histogram of a known engine, several engines or models, a line that is not a sample, a count that is not a
        number, servers that count in different buckets.
    """
    found = _Samples(str(path))
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        found.add(line.strip(), number)
    return found.scrape(models)


class _Samples:
    """The samples of a text that belong to histograms of sizes, collected line by line."""

    def __init__(self, place: str) -> None:
        self._place = place
        # By dialect, model, histogram and series: the count at each edge, with the line.
        self._counts: dict[tuple[int, str, str, str], dict[float, float]] = {}
        self._tokens: dict[tuple[int, str, str], float] = {}
        self._failed: dict[tuple[int, str], float] = {}

    def add(self, line: str, number: int) -> None:
        """Add one line; comments and other metrics are skipped."""
        dialect = next((index for index, one in enumerate(DIALECTS) if line.startswith(_names(one))), None)
        if dialect is None:
            return
        at = f"{self._place}:{number}"
        sample = _SAMPLE.fullmatch(line)
        if sample is None:
            raise InputError(f'{at}: must be a sample such as name{{label="..."}} 1.0, got {line[:60]!r}')
        labels = labels_of(sample["labels"] or "")
        name, model = str(sample["name"]), labels.get(_MODEL, "")
        of = DIALECTS[dialect]
        for family in (of.input, of.output):
            if name == f"{family}_bucket":
                series = ",".join(f"{key}={value}" for key, value in sorted(labels.items()) if key != _EDGE)
                edges = self._counts.setdefault((dialect, model, family, series), {})
                edge = _edge(labels.get(_EDGE, ""), at)
                edges[edge] = edges.get(edge, 0.0) + _number(sample["value"], at)
            elif name == f"{family}_sum":
                key = (dialect, model, family)
                self._tokens[key] = self._tokens.get(key, 0.0) + _number(sample["value"], at)
        if name in of.failed:
            label, values = of.failed[name]
            if not label or labels.get(label) in values:
                self._failed[dialect, model] = self._failed.get((dialect, model), 0.0) + _number(sample["value"], at)

    def scrape(self, models: Sequence[str]) -> Scrape:
        """The collected counts for the given models."""
        dialects = {dialect for dialect, *_ in self._counts}
        if not dialects:
            names = ", ".join(
                f"{one.input} ({one.engine})" for one in DIALECTS if ":" in one.input or "_v" in one.input
            )
            raise InputError(
                f"{self._place}: no histogram of request sizes; known: {names}",
                hint="save the output of http://server:8000/metrics (SGLang: start it with --enable-metrics "
                "--collect-tokens-histogram)",
            )
        if len(dialects) > 1:
            engines = " and ".join(DIALECTS[one].engine for one in sorted(dialects))
            raise InputError(
                f"{self._place}: contains metrics of {engines}", hint="save one engine's metrics at a time"
            )
        dialect = dialects.pop()
        chosen = self._chosen({model for _, model, *_ in self._counts}, models)
        cumulative: dict[str, dict[float, float]] = {}
        for (_, model, family, _), counts in self._counts.items():
            if model in chosen:
                self._add_series(cumulative.setdefault(family, {}), counts, family)
        tokens: dict[str, float] = {}
        for (_, model, family), total in self._tokens.items():
            if model in chosen:
                tokens[family] = tokens.get(family, 0.0) + total
        failed = sum(count for (one, model), count in self._failed.items() if one == dialect and model in chosen)
        return Scrape(
            dialect=DIALECTS[dialect],
            models=tuple(sorted(chosen)),
            cumulative=cumulative,
            tokens=tokens,
            failed=failed,
        )

    def _chosen(self, there: set[str], models: Sequence[str]) -> set[str]:
        """The models to count."""
        for model in models:
            if model not in there:
                raise unknown("model", model, there, place=self._place)
        if not models and len(there) > 1:
            raise InputError(
                f"{self._place}: contains several models: {some_of(sorted(there))}",
                hint="name those to plan for: workload: {model: ...}, or --model; several are summed, for example "
                "a model and its LoRA adapters",
            )
        return set(models) or there

    def _add_series(self, totals: dict[float, float], counts: Mapping[float, float], family: str) -> None:
        """Add one server's histogram."""
        if totals and set(totals) != set(counts):
            raise InputError(
                f"{self._place}: the servers in this file count {family} in different buckets",
                hint="read them separately",
            )
        for edge, count in counts.items():
            totals[edge] = totals.get(edge, 0.0) + count


def _names(dialect: Dialect) -> tuple[str, ...]:
    """The beginnings of the lines of a dialect's metrics."""
    return (dialect.input, dialect.output, *dialect.failed)


def _number(text: str, place: str) -> float:
    """A count or a sum."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{place}: must end in a number, got {text[:40]!r}") from None
    if not 0 <= value <= _MOST_COUNTED:
        raise InputError(f"{place}: must end in a number, 0 to {_MOST_COUNTED:g}, got {text[:40]!r}")
    return value


def _edge(text: str, place: str) -> float:
    """An upper edge [tokens]; the last one is infinite."""
    try:
        value = float(text)
    except ValueError:
        raise InputError(f'{place}: must have an edge such as le="100.0", got le={text[:40]!r}') from None
    if text not in ("+Inf", "Inf") and not (math.isfinite(value) and value >= 0):
        raise InputError(f'{place}: must have an edge >= 0 such as le="100.0", got le={text[:40]!r}')
    return value
