"""Figures in the form of Plotly's browser library: plain dictionaries, without the checks of Plotly for Python.

Plotly's Python objects check every property of every figure, which took half of the time of ``melange explore``; here a
test does the checks (tests/present/test_figure.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


class Part(dict[str, Any]):
    """A part of a figure; keys are also attributes, and absent keys are None."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


def part(values: Mapping[str, Any]) -> Part:
    """Convert nested dictionaries to parts."""
    return Part({key: _as_part(value) for key, value in values.items()})


def _as_part(value: Any) -> Any:
    if isinstance(value, Mapping):
        return part(value)
    if isinstance(value, list) and value and isinstance(value[0], Mapping):
        return [part(one) for one in value]
    return value


class Figure:
    """Traces and their layout, named as in Plotly's reference.

    >>> figure = Figure()
    >>> figure.add_trace("scatter", x=np.array([1, 2]), y=[0.5, float("nan")])
    >>> figure.update_layout(title={"text": "Cost"}, height=400)
    >>> figure.update_layout(title={"y": 1})
    >>> figure.to_json()
    '{"data": [{"x": [1, 2], "y": [0.5, null], "type": "scatter"}], "layout": {"title": {"text": "Cost", "y": 1}, \
"height": 400}}'
    """

    def __init__(self) -> None:
        self.data: list[Part] = []
        self.layout = Part()

    def add_trace(self, kind: str, /, **values: Any) -> None:
        """Add a ``scatter``, ``bar`` or ``heatmap`` trace."""
        self.data.append(part(values | {"type": kind}))

    def update_layout(self, **values: Any) -> None:
        """Change the given keys, at any depth; None removes a key."""
        _update(self.layout, values)

    def add_vline(self, *, x: float, line: Mapping[str, Any]) -> None:
        """Add a line over the whole height."""
        self._add_line({"x0": x, "x1": x, "xref": "x", "y0": 0, "y1": 1, "yref": "y domain", "line": line})

    def add_hline(self, *, y: float, line: Mapping[str, Any]) -> None:
        """Add a line over the whole width."""
        self._add_line({"x0": 0, "x1": 1, "xref": "x domain", "y0": y, "y1": y, "yref": "y", "line": line})

    def add_annotation(self, **values: Any) -> None:
        """Add a text at a point."""
        self.layout["annotations"] = [*self.layout.get("annotations", ()), part(values)]

    def with_layout(self, **values: Any) -> Figure:
        """The same traces with a changed layout."""
        changed = Figure()
        changed.data, changed.layout = self.data, part(self.layout)
        changed.update_layout(**values)
        return changed

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON values: lists instead of arrays, None instead of nan and infinity."""
        plain: dict[str, Any] = _plain({"data": self.data, "layout": self.layout})
        return plain

    def to_json(self) -> str:
        """The figure as JSON text."""
        return json.dumps(self.to_dict())

    def _add_line(self, values: Mapping[str, Any]) -> None:
        self.layout["shapes"] = [*self.layout.get("shapes", ()), part({"type": "line", **values})]


def _update(target: Part, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            if not isinstance(target.get(key), Part):
                target[key] = Part()
            _update(target[key], value)
        else:
            target[key] = _as_part(value)


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
