"""YAML from data structures, so that text from a plan is always a value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml


def yaml_text(documents: Iterable[Any]) -> str:
    """Documents with keys in order and ``---`` in between; multi-line text is written as a block.

    >>> print(yaml_text([{"b": "1.10", "a": "x: y"}, [1]]), end="")
    b: '1.10'
    a: 'x: y'
    ---
    - 1
    """
    return "---\n".join(yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=120) for one in documents)


class _Dumper(yaml.SafeDumper):
    """Writes multi-line text as a block, and repeated values in full."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never use anchors, which are hard to read."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
