"""A model's configuration that tracks which keys were read, and rejects keys that no rule reads.

All numbers are read through this class: integers >= 0, the same in every layer or one per layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from melange.catalog.harmless_keys import may_change
from melange.errors import InputError
from melange.files import Json

MEASURE_HINT = "plan with a profile measured for this model"


class Config:
    """A configuration, or its part about the language model.

    Parameters
    ----------
    content
        The keys.
    place
        The file, for errors.
    prefix
        Path of the keys within the file: ``text_config.``.
    """

    def __init__(self, content: Json, place: Path | str, prefix: str = "") -> None:
        self._content = content
        self._read: set[str] = set()
        self._children: dict[str, Config] = {}
        self.place, self.prefix = place, prefix

    def __contains__(self, key: str) -> bool:
        return self._content.get(key) is not None

    def items(self) -> Iterable[tuple[str, Any]]:
        """All keys and values; this does not mark them as read."""
        return self._content.items()

    def fault(self, key: str, text: str, hint: str = MEASURE_HINT) -> InputError:
        """An error about one key."""
        return InputError(f"{self.place}: {self.prefix}{key}: {text}", hint=hint)

    def ignore(self, *keys: str) -> None:
        """Mark keys as handled elsewhere, or as irrelevant."""
        self._read.update(keys)

    def value(self, *keys: str) -> Any:
        """The value of the first of these names that exists; None if none does."""
        self._read.update(keys)
        return next((self._content[key] for key in keys if self._content.get(key) is not None), None)

    def text(self, *keys: str, default: str = "") -> str:
        """A word, in lower case."""
        found = self.value(*keys)
        if found is not None and not isinstance(found, str):
            raise self.fault(self._named(keys), f"must be a word, got {found!r}")
        return (found or default).casefold()

    def flag(self, *keys: str, default: bool = False) -> bool:
        """True or false."""
        found = self.value(*keys)
        if found is None:
            return default
        if found not in (True, False):
            raise self.fault(self._named(keys), f"must be true or false, got {found!r}")
        return bool(found)

    def part(self, *keys: str) -> Config:
        """A configuration nested in this one; empty if there is none."""
        found = self.value(*keys)
        if found is not None and not isinstance(found, dict):
            raise self.fault(self._named(keys), f"must be an object, got {found!r}")
        key = self._named(keys)
        if key not in self._children:
            self._children[key] = Config(found or {}, self.place, f"{self.prefix}{key}.")
        return self._children[key]

    def number(self, *keys: str, default: int | None = None, least: int = 0) -> int:
        """One integer; a list of equal integers counts as one."""
        found, key = self._found(keys)
        if isinstance(found, list) and found and all(one == found[0] for one in found):
            found = found[0]
        if found is None:
            if default is None:
                raise self._absent(keys)
            return default
        return self._whole(found, key, least)

    def ratio(self, *keys: str, default: float = 0.0) -> float:
        """A number that need not be an integer."""
        found, key = self._found(keys)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < float("inf"):
            raise self.fault(key, f"must be a number >= 0, got {found!r}")
        return float(found)

    def by_layer(self, layers: int, *keys: str, default: int | None = None) -> tuple[int, ...]:
        """An integer for each layer: from one number, from a list, and from ``per_layer_config``."""
        found, key = self._found(keys)
        if isinstance(found, list):
            # Longer lists include layers that are not counted, such as those that predict several tokens.
            if len(found) > layers and len({str(one) for one in found}) == 1:
                found = None if found[0] is None else self._whole(found[0], key)
            elif len(found) != layers:
                raise self.fault(key, f"must be one number or one for each of {layers} layers, got {len(found)}")
        if isinstance(found, list):
            values = [default if one is None else self._whole(one, key) for one in found]
        else:
            values = [default if found is None else self._whole(found, key)] * layers
        for layer, (place, one) in self._overrides(layers, keys).items():
            values[layer] = default if one is None else self._whole(one, place)
        if any(one is None for one in values):
            raise self._absent(keys)
        return tuple(one for one in values if one is not None)

    def words(self, layers: int, *keys: str) -> tuple[str, ...]:
        """A word for each layer; empty if the key is absent."""
        found, key = self._found(keys)
        if found is None or found == []:
            return ()
        if not isinstance(found, list) or not all(isinstance(one, str | int) for one in found):
            raise self.fault(key, f"must be a list with a word for each layer, got {found!r}")
        if len(found) < layers:
            raise self.fault(key, f"must have an entry for each of {layers} layers, got {len(found)}")
        return tuple(str(one).casefold() for one in found[:layers])

    def indices(self, layers: int, *keys: str, first: int = 0) -> frozenset[int] | None:
        """The layers that a list names, counted from ``first``; None if the key is absent."""
        found, key = self._found(keys)
        if found is None:
            return None
        if not isinstance(found, list):
            raise self.fault(key, f"must be a list of layers, got {found!r}")
        numbers = [self._whole(one, key) - first for one in found]
        if any(not 0 <= one < layers for one in numbers):
            raise self.fault(key, f"must name layers {first} to {layers - 1 + first}, got {found!r}")
        return frozenset(numbers)

    def check_unread(self) -> None:
        """Reject a key that no rule has read if it may change layers, experts, caches or weights.

        The value decides: a value that is absent, zero, false, one or empty changes nothing.

        Raises
        ------
        InputError
            There is such a key; the error gives the key and its value.
        """
        for key, value in self._content.items():
            if key not in self._read and may_change(key, value):
                shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
                raise self.fault(
                    key, f"is an unknown key, and {shown} may change the model's layers, experts or caches"
                )
        overrides = self._content.get("per_layer_config")
        if isinstance(overrides, dict):
            for layer, keys in overrides.items():
                for key, value in keys.items() if isinstance(keys, dict) else ():
                    if key not in self._read and may_change(key, value):
                        raise self.fault(f"per_layer_config.{layer}.{key}", "is an unknown key for single layers")
        for child in self._children.values():
            child.check_unread()

    def _overrides(self, layers: int, keys: Sequence[str]) -> dict[int, tuple[str, Any]]:
        """The values that ``per_layer_config`` gives a key for single layers, with their place."""
        overrides = self._content.get("per_layer_config")
        if not overrides:
            return {}
        self._read.add("per_layer_config")
        if not isinstance(overrides, dict | list):
            raise self.fault("per_layer_config", "must be an object by layer")
        pairs = overrides.items() if isinstance(overrides, dict) else enumerate(overrides)
        found = {}
        for name, values in pairs:
            if not str(name).isdecimal() or int(name) >= layers or not isinstance(values, dict):
                raise self.fault(f"per_layer_config.{name}", f"must be an object for one of {layers} layers")
            for key in keys:
                if key in values:
                    found[int(name)] = (f"per_layer_config.{name}.{key}", values[key])
        return found

    def _found(self, keys: Sequence[str]) -> tuple[Any, str]:
        """The value under any of these names, and the name found; an error if several names contradict each other."""
        self._read.update(keys)
        given = [key for key in keys if self._content.get(key) is not None]
        if not given:
            return None, keys[0]
        single = [key for key in given if not isinstance(self._content[key], list)]
        for other in single[1:]:
            found, first = self._content[other], self._content[single[0]]
            if found != first:
                raise self.fault(other, f"says {found!r}, but {single[0]} says {first!r}", "keep only one of the two")
        return self._content[given[0]], given[0]

    def _whole(self, value: Any, key: str, least: int = 0) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.fault(key, f"must be a whole number >= {least}, got {value!r}", "correct config.json")
        return value

    def _named(self, keys: Sequence[str]) -> str:
        return next((key for key in keys if self._content.get(key) is not None), keys[0])

    def _absent(self, keys: Sequence[str]) -> InputError:
        others = f" (or {', '.join(keys[1:])})" if keys[1:] else ""
        kind = self._content.get("model_type") or "this model"
        return InputError(
            f"{self.place}: {self.prefix}{keys[0]}{others} is missing",
            hint=f"the keys of {kind} are not supported; write a config.json with LLaMA's keys",
        )
