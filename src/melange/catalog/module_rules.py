"""Which modules a pattern in a quantization config matches; lists of thousands of modules use look-up, not search."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from melange.catalog.module_expressions import expression
from melange.catalog.module_names import PREFIXES, names_of
from melange.errors import InputError

# Longest pattern [characters]: names of modules are far shorter, and the time to match grows with the square of this.
_LONGEST = 1_000
_OF_ONE_LAYER = re.compile(r"layers\.(\d+)(?=[.*]|$)")


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern matches a module or a module that contains it: whole names only, never a part of a name.

    ``re:`` marks a regular expression, ``*`` matches anything, and all else is a list of module names.

    >>> matches("model.layers.1", "model.layers.1.self_attn.q_proj"), matches("layers.1", "model.layers.11.mlp.up_proj")
    (True, False)
    """
    if pattern.startswith("re:"):
        return expression(pattern[3:])(name)
    parts = name.split(".")
    if "*" in pattern or "?" in pattern:
        heads = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        return any(fnmatchcase(head, pattern) for head in heads)
    wanted = pattern.removesuffix(".weight").split(".")
    return any(parts[at : at + len(wanted)] == wanted for at in range(len(parts) - len(wanted) + 1))


class ModuleRules:
    """Patterns in order of precedence, prepared for look-up of one matrix at a time.

    Parameters
    ----------
    patterns
        The first pattern that matches a matrix is its rule.

    Raises
    ------
    InputError
        A regular expression is invalid or may take years, or a pattern is longer than any name of a module.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        self._by_path: dict[tuple[str, ...], int] = {}
        self._by_layer: dict[int, list[tuple[int, str]]] = defaultdict(list)
        self._anywhere: list[tuple[int, str]] = []
        self._expressions: list[tuple[int, str]] = []
        for number, pattern in enumerate(patterns):
            if len(pattern) > _LONGEST:
                raise InputError(
                    f"quantization: {pattern[:40]!r}... is not the name of a module: it has {len(pattern):,} characters"
                )
            plain = _without_prefix(pattern)
            if pattern.startswith("re:"):
                expression(pattern[3:])
                self._expressions.append((number, pattern))
            elif "*" not in plain and "?" not in plain:
                path = tuple(plain.removesuffix(".weight").split("."))
                self._by_path.setdefault(path, number)
            elif found := _OF_ONE_LAYER.match(plain):
                self._by_layer[int(found[1])].append((number, plain))
            else:
                self._anywhere.append((number, plain))

    def rule_of(self, layer: int, matrix: str) -> int | None:
        """The index of the first pattern that matches a matrix of a layer; None if none matches."""
        names = names_of(layer, matrix)
        found = [number for name in names for number in self._looked_up(name)]
        wild = [*self._anywhere, *self._by_layer.get(layer, ())]
        found += [number for number, pattern in wild if any(matches(pattern, name) for name in names)]
        for number, pattern in self._expressions:
            # An expression that may match anywhere and names no module around the layers matches any such module.
            is_anywhere = pattern.startswith("re:.*") and "model" not in pattern and "layers" not in pattern
            prefixes = PREFIXES[:1] if is_anywhere else PREFIXES
            if any(matches(pattern, prefix + name) for prefix in prefixes for name in names):
                found.append(number)
        return min(found, default=None)

    def _looked_up(self, name: str) -> Iterable[int]:
        """Indices of the patterns without wildcards that equal consecutive modules of the name."""
        if not self._by_path:
            return
        parts = name.split(".")
        for start in range(len(parts)):
            for end in range(start + 1, len(parts) + 1):
                number = self._by_path.get(tuple(parts[start:end]))
                if number is not None:
                    yield number


def _without_prefix(pattern: str) -> str:
    """The part of the pattern that starts at the layers, without the checkpoint's prefix before them."""
    for prefix in PREFIXES:
        for stack in ("layers.", "h.", "blocks."):
            if pattern.startswith(prefix + stack):
                return "layers." + pattern[len(prefix + stack) :]
    return pattern
