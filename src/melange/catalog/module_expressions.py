"""Regular expressions over names of modules, matched in a time that does not explode."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from melange.errors import InputError

# Python tries up to n^k 2^c ways to match k repeats and c choices in a name of n characters: below a second for these.
_MOST_REPEATS, _MOST_CHOICES = 3, 4
_REPEATED_GROUP = re.compile(r"\)[*+{]")


@lru_cache(maxsize=4096)
def expression(pattern: str) -> Callable[[str], bool]:
    """Whether a regular expression matches the beginning of a name.

    Python tries all ways to match, which takes years for repeats of repeats, such as ``(a+)+``, and for many choices.
    Such an expression is matched by RE2, in linear time; RE2 knows no look-ahead and no back-references.

    Raises
    ------
    InputError
        The expression is invalid, or RE2 is needed and does not know its syntax.

    >>> expression(".*(q|k)_proj")("layers.0.self_attn.k_proj"), expression("(.+)+!")("layers.0.self_attn.k_proj")
    (True, False)
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"quantization: {f're:{pattern}'!r} is not a valid regular expression: {error}") from error
    repeats, choices = sum(map(pattern.count, "*+{")), sum(map(pattern.count, "?|"))
    if repeats <= _MOST_REPEATS and choices <= _MOST_CHOICES and not _REPEATED_GROUP.search(pattern):
        return lambda name: compiled.match(name) is not None
    import pyarrow as pa
    import pyarrow.compute as pc

    def is_match(name: str) -> bool:
        return bool(pc.match_substring_regex(pa.array([name]), f"^(?:{pattern})")[0].as_py())

    try:
        is_match("")
    except pa.ArrowInvalid as error:
        raise InputError(
            f"quantization: {f're:{pattern}'!r} may take years to match: {error}",
            hint=f"leave out look-ahead and back-references, or use up to {_MOST_REPEATS} repeats (* + {{), none of a "
            f"group, and {_MOST_CHOICES} choices (? |)",
        ) from error
    return is_match
