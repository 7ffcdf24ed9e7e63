"""The latency objective of a service."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from melange.errors import InputError
from melange.units import ms

METRICS = ("ttft", "tpot", "ntpot", "latency")
_STATISTIC = re.compile(r"mean|p(\d{1,2}(\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Limits on latency, each on one statistic, and the share of requests that must meet them.

    Parameters
    ----------
    ttft_s
        Limit on the time to first token, queueing included [s].
    tpot_s
        Limit on (latency - TTFT) / (output tokens - 1) [s].
    ntpot_s
        Limit on latency / output tokens [s]: what the Mélange paper calls TPOT.
    latency_s
        Limit on the time from arrival to the last token [s].
    statistic
        What the limits bind: ``mean`` or a percentile, ``p50`` to ``p99.9``.
    attainment
        Share of arrived requests that must meet every limit, 0-1; None where nothing was asked for.

    Raises
    ------
    InputError
        No limit at all, a limit that is not positive and finite, an unknown statistic.

    Examples
    --------
    >>> print(Slo(tpot_s=0.12))
    mean TPOT <= 120 ms
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    ntpot_s: float | None = None
    latency_s: float | None = None
    statistic: str = "mean"
    attainment: float | None = None

    def __post_init__(self) -> None:
        limits = self.limits
        if not limits:
            raise InputError("slo: at least one limit is needed", hint="for example slo: {tpot_ms: 120}")
        for metric, limit in limits.items():
            if not (math.isfinite(limit) and limit > 0):
                raise InputError(f"slo.{metric}_ms must be > 0 and finite, got {ms(limit):g}")
        if not _STATISTIC.fullmatch(self.statistic):
            raise InputError(f"slo.statistic must be 'mean' or 'p50' to 'p99.9', got {self.statistic!r}")
        if self.attainment is not None and not 0 < self.attainment <= 1:
            raise InputError(f"slo.attainment must be in (0, 1], got {self.attainment:g}")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by metric (``ttft``, ``tpot``, ``ntpot``, ``latency``) [s]."""
        pairs = ((metric, getattr(self, f"{metric}_s")) for metric in METRICS)
        return {metric: limit for metric, limit in pairs if limit is not None}

    @property
    def is_on_mean(self) -> bool:
        """Whether the limits bind means, which have a closed form, and not a percentile."""
        return self.statistic == "mean"

    @property
    def tail(self) -> float:
        """Share of requests beyond the statistic, 0-1: 0.01 of a p99; 1 of a mean, which all of them make.

        >>> round(Slo(tpot_s=0.06, statistic="p99").tail, 6), Slo(tpot_s=0.06).tail
        (0.01, 1.0)
        """
        return 1.0 if self.is_on_mean else 1.0 - float(self.statistic[1:]) / 100

    def on_mean(self) -> Slo:
        """The same limits on the mean: those that the closed form can hold."""
        return replace(self, statistic="mean")

    def to_json(self) -> dict[str, Any]:
        """As a JSON object, in seconds."""
        content: dict[str, Any] = {f"{metric}_s": limit for metric, limit in self.limits.items()}
        content["statistic"] = self.statistic
        if self.attainment is not None:
            content["attainment"] = self.attainment
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Slo:
        """From the JSON object that :meth:`to_json` makes."""
        return cls(**content)

    def __str__(self) -> str:
        parts = [f"{self.statistic} {m.upper()} <= {ms(limit):g} ms" for m, limit in self.limits.items()]
        text = ", ".join(parts)
        return f"{text}, for {self.attainment:.3%} of requests" if self.attainment is not None else text
