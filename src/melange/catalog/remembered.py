"""Results of methods of a frozen value, cached on the value."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

Method = TypeVar("Method", bound=Callable[..., Any])
# The attribute with the cached results, for values without slots; not a field, so that values stay equal.
_PLACE = "_remembered"


def remembered(method: Method) -> Method:
    """A method of a frozen value without slots, computed once for each set of arguments.

    A cache with the value itself as key would hash all of its fields at every call.
    """
    name = method.__name__

    @wraps(method)
    def answer(self: Any, *arguments: Any, **named: Any) -> Any:
        kept = self.__dict__.get(_PLACE)
        if kept is None:
            kept = {}
            object.__setattr__(self, _PLACE, kept)
        key = (name, arguments, *named.items()) if named else (name, arguments)
        if key not in kept:
            kept[key] = method(self, *arguments, **named)
        return kept[key]

    return cast(Method, answer)
