"""The one module that converts units: others compute in seconds, bytes and tokens, and users see ms, GB and others.

Conversion factors are named after both units (``MS_PER_S``), byte multiples after their unit (``GIB``).
"""

from __future__ import annotations

import math
from decimal import Decimal

S_PER_NS, S_PER_US, S_PER_MS = 1e-9, 1e-6, 1e-3
S_PER_MIN, S_PER_H, S_PER_DAY, S_PER_WEEK = 60, 3_600, 86_400, 604_800
US_PER_S, MS_PER_S = 1e6, 1e3
MIN_PER_H, MIN_PER_DAY = 60, 1_440
# A year has 8,760 hours, and a month a twelfth of that, as clouds bill.
H_PER_DAY, H_PER_WEEK, H_PER_MONTH, H_PER_YEAR = 24, 168, 730, 8_760
# Bytes: powers of 1,024 for memory, of 1,000 for bandwidth and model size.
KIB, MIB, GIB = 2**10, 2**20, 2**30
KB, MB, GB = 1e3, 1e6, 1e9
BYTES_PER_GBIT = 1.25e8  # networks are sold in bits
FLOPS_PER_TFLOPS = 1e12
PARAMETERS_PER_BILLION = 1e9
PARAMETERS_PER_MILLION = 1e6
TOKENS_PER_MTOK = 1e6
REQUESTS_PER_THOUSAND = 1e3
# A share below this is rounding error in sums over thousands of buckets, not a request.
_NONE = 1e-9


def ms(time_s: float) -> float:
    """A time in milliseconds [ms].

    >>> ms(0.25)
    250.0
    """
    return time_s * MS_PER_S


def percent(share: float, digits: int = 1) -> str:
    """A share, 0-1, in percent: the text is 0 % or 100 % only if the share is exactly none or all.

    Parameters
    ----------
    share
        A difference below 1e-9 from none or all counts as rounding error.
    digits
        Decimal places; more if fewer would round to none or all.

    >>> percent(0.5), percent(0.99996), percent(1e-5, 2), percent(0.9999999999999999), percent(0.0)
    ('50.0%', '99.996%', '0.001%', '100%', '0%')
    """
    if share < _NONE or share > 1.0 - _NONE:
        return "0%" if share < _NONE else "100%"
    text = f"{share:.{digits}%}"
    while float(text.rstrip("%")) in (0.0, 100.0):
        digits += 1
        text = f"{share:.{digits}%}"
    return text


def significant(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits, never with an exponent: large ones show all digits before the point.

    >>> significant(0.07123), significant(1234.5), significant(999.7), significant(0.00001234)
    ('0.0712', '1,234', '1,000', '0.0000123')
    """
    text = f"{value:.{digits}g}"
    if "e" not in text:
        return text
    return f"{value:,.0f}" if abs(value) >= 1 else f"{Decimal(text):f}"


def limit_in_ms(limit: float) -> str:
    """A limit in milliseconds, given in seconds, with all its digits and without an exponent.

    >>> limit_in_ms(0.0803), limit_in_ms(1600.0)
    ('80.3 ms', '1,600,000 ms')
    """
    return f"{ms(limit):,.6f}".rstrip("0").rstrip(".") + " ms"


def duration(time_s: float) -> str:
    """A time in words, with three significant digits.

    >>> duration(0.0564), duration(12.5)
    ('56.4 ms', '12.5 s')
    """
    return f"{significant(time_s)} s" if time_s >= 1 else f"{significant(ms(time_s))} ms"


def saved(cost: float, against: float | None) -> float | None:
    """The share of ``against`` that ``cost`` saves, at most 1; None if ``against`` is missing or close to zero."""
    if against is None or against <= 0:
        return None
    part = 1.0 - cost / against
    return part if math.isfinite(part) else None


def count_of(count: int, noun: str, plural: str = "") -> str:
    """A count with its noun in the singular or the plural.

    >>> count_of(1, "decision"), count_of(2_000, "decision"), count_of(0, "reply", "replies")
    ('1 decision', '2,000 decisions', '0 replies')
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"
