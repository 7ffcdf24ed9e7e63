"""Which names of replica types a line ``NAME=URL`` of the balancer can hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from melange.errors import InputError

_UNTELLABLE = re.compile(r"^\s*#|^\s|\s$|=|://|[^\S ]|^$")


def check_tellable(names: Iterable[str]) -> None:
    """Refuse names that would not come back from such a line as they are.

    Raises
    ------
    InputError
        A name with an equals sign, a URL in it, or characters that are not printed.
    """
    strange = [name for name in names if not name.isprintable() or _UNTELLABLE.search(name)]
    if strange:
        raise InputError(
            f"names of replica types that the balancer cannot use: {', '.join(map(repr, strange))}",
            hint="rename them in the price list: no =, no ://, only printable characters",
        )
