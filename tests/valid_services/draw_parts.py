"""Random numbers, shares and tables as a person would write them."""

from __future__ import annotations

import csv
import io
import math
import random
from collections.abc import Sequence
from typing import Any

Random = random.Random
Section = dict[str, Any]


def picked(rng: Random, some: Section, share: float) -> Section:
    """Each of these with a chance."""
    return {key: value for key, value in some.items() if rng.random() < share}


def shares_of(rng: Random, count: int) -> list[float]:
    """Shares in percent steps that add up to 1."""
    cuts = sorted(rng.sample(range(1, 100), count - 1))
    return [round((high - low) / 100, 2) for low, high in zip([0, *cuts], [*cuts, 100], strict=True)]


def rows_of(rows: Sequence[Sequence[object]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def between(rng: Random, low: float, high: float) -> float:
    """A log-uniform number between two values."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def rounded(value: float) -> float:
    """The value rounded to two significant digits, as in a file written by hand."""
    return float(f"{value:.2g}")
