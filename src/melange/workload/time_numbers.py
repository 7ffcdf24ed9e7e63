"""Arrival times written as numbers: the unit that names or layouts state, checked against the values.

A time since 1970 shows its unit by its size: between 2000 and 2100 it has 9 or 10 digits in seconds, 12 or 13 in
milliseconds, and so on. Where this contradicts the stated unit, the stated unit is given up if it is impossible (tens
of thousands of years); otherwise both readings are possible, and the log is an error.
"""

from __future__ import annotations

from datetime import UTC, datetime

from melange.errors import InputError
from melange.units import S_PER_DAY, S_PER_MS, S_PER_NS, S_PER_US
from melange.workload.layouts import Layout, stated_unit, time_unit
from melange.workload.rows import lasting

# Times since 1970 in a log of requests to a language model: from the year 2000 to 2100. Chosen by judgment.
_SINCE_S, _UNTIL_S = 946_684_800.0, 4_102_444_800.0
# Longest plausible log: a longer one has rows in different units (seconds and milliseconds since 1970 are 50 years
# apart), or a first or last row without a real time (0, or the year 9999). Chosen by judgment.
LONGEST_S = 10 * 365.25 * S_PER_DAY
_NAME_BY_UNIT = {1.0: "seconds", S_PER_MS: "milliseconds", S_PER_US: "microseconds", S_PER_NS: "nanoseconds"}
_SUFFIX_BY_UNIT = {1.0: "_s", S_PER_MS: "_ms", S_PER_US: "_us", S_PER_NS: "_ns"}
# Dates written as digits, by their format: 20260301140509 is 2026-03-01 14:05:09.
_WORDS_BY_DIGITS = {"%Y%m%d%H%M%S": "YYYYmmddHHMMSS", "%Y%m%d%H%M": "YYYYmmddHHMM", "%Y%m%d": "YYYYmmdd"}
_EXAMPLE = "2026-03-01 14:05:09"


def epoch_unit(value: float) -> float | None:
    """Length of the unit in which a number is a time since 1970, between 2000 and 2100 [s]; None if there is none.

    >>> epoch_unit(1.7e9), epoch_unit(1.7e12), epoch_unit(86_400.0)
    (1.0, 0.001, None)
    """
    return next((unit_s for unit_s in _NAME_BY_UNIT if _SINCE_S <= value * unit_s < _UNTIL_S), None)


def digits_in(first: float, last: float) -> str | None:
    """The format in which both numbers are dates written as digits, between 2000 and 2100; None if there is none.

    >>> digits_in(20260301000000, 20260301001000), digits_in(20260301000000, 20260301006000)
    ('%Y%m%d%H%M%S', None)
    """
    for form, words in _WORDS_BY_DIGITS.items():
        scale = 10 ** (len(words) - 8)
        if all(20_000_101 * scale <= value < 21_000_101 * scale for value in (first, last)):
            try:
                moment_of(first, form), moment_of(last, form)
            except ValueError:
                return None
            return form
    return None


def moment_of(value: float, form: str) -> float:
    """A date written as digits as seconds since 1970 [s].

    >>> moment_of(20260301000000.5, "%Y%m%d%H%M%S")
    1772323200.5
    """
    return datetime.strptime(f"{int(value)}", form).replace(tzinfo=UTC).timestamp() + value % 1


def reading_of(layout: Layout, first: float, last: float, place: str) -> float | str:
    """How to read arrivals that are numbers: the length of their unit [s], or the format of dates written as digits.

    Parameters
    ----------
    layout
        The layout, which names the column and may state a unit.
    first, last
        Smallest and largest number.
    place
        The log, named in the error.

    Raises
    ------
    InputError
        Two readings are possible, or none is plausible; the error names them.
    """
    column = layout.arrival or ""
    stated_s = stated_unit(layout)
    form = digits_in(first, last)
    if form is not None and not (form == "%Y%m%d" and stated_s is not None):
        words = f"a date written as digits ({_WORDS_BY_DIGITS[form]})"
        if form == "%Y%m%d":
            hint = f"write a time of day too, as in {_EXAMPLE}; for seconds, {_from_zero(first)}"
            raise _contradiction(layout, first, last, 1.0, words, form, hint, place)
        if stated_s is not None and last * stated_s <= LONGEST_S:
            hint = f"write dates as {_EXAMPLE}; for {_NAME_BY_UNIT[stated_s]}, {_from_zero(first)}"
            raise _contradiction(layout, first, last, stated_s, words, form, hint, place)
        return form
    found_s = epoch_unit(last)
    if stated_s is None:
        return time_unit(column, last)
    if found_s is None or found_s == stated_s:
        return stated_s
    if found_s < stated_s:  # the stated unit would put the log at least 30,000 years after its origin
        return found_s
    if epoch_unit(first) == found_s and (last - first) * found_s <= LONGEST_S:
        name = _NAME_BY_UNIT[found_s]
        hint = (
            f"for {name} since 1970, {_restated(layout, found_s)}; for {_NAME_BY_UNIT[stated_s]}, {_from_zero(first)}"
        )
        raise _contradiction(layout, first, last, stated_s, f"a time in {name} since 1970", found_s, hint, place)
    return stated_s


def is_implausible(layout: Layout, last: float) -> bool:
    """Whether numbers without a stated unit are too large for seconds, and no time since 1970 in a finer unit."""
    unit_s = time_unit(layout.arrival or "", last)
    return stated_unit(layout) is None and unit_s != 1.0 and epoch_unit(last) is None


def implausible(layout: Layout, last: float, ends: str, place: str) -> InputError:
    """The error for such numbers."""
    unit_s = time_unit(layout.arrival or "", last)
    year = 1970 + last * unit_s / (365.25 * S_PER_DAY)
    return InputError(
        f"{place}: arrival times have no known unit: {ends}; as {_NAME_BY_UNIT[unit_s]} since 1970, the last would be "
        f"in the year {year:.0f}",
        hint=f"state the unit in the column's name: _s, _ms, _us or _ns; or write times as {_EXAMPLE}",
    )


def _contradiction(
    layout: Layout, first: float, last: float, stated_s: float, other: str, reading: float | str, hint: str, place: str
) -> InputError:
    """The error for numbers that have two readings."""
    ends = [moment_of(one, reading) if isinstance(reading, str) else one * reading for one in (first, last)]
    name = _NAME_BY_UNIT[stated_s]
    why = "by its name" if layout.unit_s is None else f"by the layout ({layout.name})"
    start = datetime.fromtimestamp(ends[0], UTC).strftime("%Y-%m-%d %H:%M:%S")
    stated = f" is in {name} {why}" if stated_unit(layout) is not None else f" may be in {name}"
    return InputError(
        f"{place}: {layout.arrival}{stated}, but {first:.17g} is also {other}. The log begins "
        f"{lasting(first * stated_s)} after 0 and lasts {lasting((last - first) * stated_s)}, or it begins at {start} "
        f"and lasts {lasting(ends[1] - ends[0])}",
        hint=hint,
    )


def _restated(layout: Layout, unit_s: float) -> str:
    """What states another unit than a layout or a name does."""
    if layout.unit_s is not None:
        return f"set columns: {{arrival: {layout.arrival}}}"
    column = layout.arrival or ""
    return f"rename the column to {column[: column.rindex('_')]}{_SUFFIX_BY_UNIT[unit_s]}"


def _from_zero(first: float) -> str:
    return f"subtract {first:.17g} from all of them"
