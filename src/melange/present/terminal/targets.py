"""Deployment targets, for the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding

from melange.deploy.target import Declared
from melange.present.terminal.layout import spaced, table_of


def targets_page(targets: Iterable[Declared[Any]]) -> RenderableType:
    """Targets with one sentence each, grouped by the options that they share."""
    families: dict[type, list[Declared[Any]]] = {}
    for one in targets:
        families.setdefault(one.options, []).append(one)
    return Group(*spaced(_family(family) for family in families.values()))


def _family(family: list[Declared[Any]]) -> RenderableType:
    names = table_of("Target", "What it is" if family[0].source == "plan" else "What it makes of a schedule.json")
    for one in family:
        names.add_row(one.name, one.about)
    if not family[0].declared:
        return names
    options = table_of("Option", "Default", "What it does")
    for option in family[0].declared:
        options.add_row(option.name, _as_typed(option.default), f"{option.about} ({option.kind})")
    return Group(names, Padding(options, (0, 0, 0, 2), expand=False))


def _as_typed(value: object) -> str:
    """A value as written after ``--option``."""
    return value if isinstance(value, str) else json.dumps(value)
