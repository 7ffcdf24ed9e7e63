"""Names of replica types that the balancer's ``NAME=URL`` lines can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from melange.errors import InputError

_UNTELLABLE = re.compile(r"^\s*#|^\s|\s$|(?<!=)=(?!=)|=$|://|[^\S ]|^$")


def check_tellable(names: Iterable[str]) -> None:
    """Reject names that such a line could not return unchanged.

    Raises
    ------
    InputError
        A name with a single equals sign (an engine's release has two: ``vllm==0.11.0``), a URL in it, or unprintable
        characters.
    """
    strange = [name for name in names if not name.isprintable() or _UNTELLABLE.search(name)]
    if strange:
        raise InputError(
            f"names of replica types that the balancer cannot use: {', '.join(map(repr, strange))}",
            hint="rename them in the price list: no single =, no ://, only printable characters",
        )
