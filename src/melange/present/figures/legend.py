"""The replica types that pictures show, with one letter, name and color each for the whole page."""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np

from melange.plan.plan import Plan
from melange.present.figures.efficiency import Winners
from melange.present.terminal.plan_words import used_types
from melange.profile.profile import ReplicaType
from melange.workload.workload import Workload

# Okabe and Ito's colors without yellow (too light for a line on white) and black (used for the mix), and Tol's indigo:
# distinguishable with every common kind of color blindness.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#332288")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "8px 3px 2px 3px")
OTHER_COLOR = "#B8B8B8"
MIX_COLOR = "#111111"
CERTIFIED_COLOR = "#F0E442"  # Okabe and Ito's yellow, with a black outline
NONE_COLOR = "#f2f2f2"  # no type can serve it


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One replica type as the pictures show it.

    Parameters
    ----------
    r
        Index of the type along the first axis of the profile.
    letter
        The letter that stands for it in tables and cells.
    label
        Its name, shortened as far as it stays distinct.
    color, dash
        Color of its areas, and dash of its lines.
    """

    r: int
    letter: str
    label: str
    color: str
    dash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Legend:
    """The types that have their own color.

    Parameters
    ----------
    entries
        In the order of their letters; the plan's types come first.
    compared
        Indexes of all compared types, including those without a color.
    left_out
        Number of types that were not compared.
    place
        The part of the name that all types share; labels leave it out.
    """

    entries: tuple[Entry, ...]
    compared: tuple[int, ...]
    left_out: int
    place: str

    @property
    def of_compared(self) -> tuple[Entry, ...]:
        """The entries of compared types: all but second pools, which do not exist in plans at other limits."""
        return tuple(entry for entry in self.entries if entry.r in self.compared)

    def find(self, r: int) -> Entry | None:
        """The entry of the type at index ``r``; None if it has no color of its own."""
        return next((entry for entry in self.entries if entry.r == r), None)


def legend_of(plan: Plan, workload: Workload, compared: list[int], found: Winners) -> Legend:
    """Assign colors to the leading types.

    The order is: types in the plan, then the cheapest single type, then the types that win most requests, then most
    sizes, then the next cheapest single types.
    """
    order = _leading(plan, workload, compared, found)[: len(COLORS)]
    labels, place = short_names([plan.replica_types[r] for r in range(len(plan.replica_types))], order)
    entries = tuple(
        Entry(r=r, letter=letter, label=label, color=color, dash=dash)
        for r, letter, label, color, dash in zip(
            order, string.ascii_uppercase[: len(order)], labels, COLORS[: len(order)], DASHES[: len(order)], strict=True
        )
    )
    return Legend(
        entries=entries,
        compared=tuple(compared),
        left_out=sum(not one.pool for one in plan.replica_types) - len(compared),
        place=place,
    )


def _leading(plan: Plan, workload: Workload, compared: list[int], found: Winners) -> list[int]:
    traffic = {r: float(workload.request_rate[found.best == r].sum()) for r in compared}
    sizes = {r: int((found.best == r).sum()) for r in compared}
    costs = [plan.single_type[t.type_name].cost_per_h for t in plan.replica_types]
    alone = sorted((cost, r) for r, cost in enumerate(costs) if cost is not None and r in traffic)
    order = [r for r in used_types(plan) if r in traffic or plan.replica_types[r].pool]
    order += [r for _, r in alone[:1]]
    winning = sorted(compared, key=lambda r: (-traffic[r], -sizes[r], r))
    order += [r for r in winning if traffic[r] > 0]
    order += [r for r in winning if sizes[r] > 0]
    order += [r for _, r in alone]
    order += sorted(compared)
    return list(dict.fromkeys(order))


def short_names(replica_types: list[ReplicaType], chosen: list[int]) -> tuple[list[str], str]:
    """Names of the chosen types without the provider and region that all of them share, and the shared part."""
    offers = [replica_types[r].offer for r in chosen]
    places = {f"{offer.provider}/{offer.region}" for offer in offers}
    shared = next(iter(places)) if len(places) == 1 else ""
    place = shared if all(replica_types[r].name.startswith(f"{shared}/") for r in chosen) else ""
    names = []
    for r in chosen:
        replica_type = replica_types[r]
        name = replica_type.name.removeprefix(f"{place}/") if place else replica_type.name
        accelerator, count = replica_type.offer.accelerator, replica_type.offer.accelerators
        each = f"{count} x " if count > 1 else ""
        names.append(name if accelerator in name else f"{name} ({each}{accelerator})")
    return names, place


def color_of(legend: Legend, r: int) -> str:
    """The color of the type at index ``r``; gray if it has none of its own."""
    entry = legend.find(r)
    return entry.color if entry else OTHER_COLOR


def ink_on(color: str) -> str:
    """Black or white, whichever has more contrast on a color (WCAG relative luminance).

    >>> ink_on("#0072B2"), ink_on("#E69F00")
    ('#ffffff', '#000000')
    """
    channels = np.array([int(color[k : k + 2], 16) for k in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ (0.2126, 0.7152, 0.0722))
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
