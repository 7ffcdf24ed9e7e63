"""The settings of the plan stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np

from melange.catalog.grid import DEFAULT_PUE
from melange.errors import InputError, unknown
from melange.files import Json
from melange.records import record, value_of

# The objectives: USD or kg of CO2 equivalent per hour.
COST, CARBON = "cost", "carbon"
# Largest count of instances, replicas or slices. Beyond it, sums are less precise than the check of a plan needs.
_MOST_COUNT = 1_000_000
# Figures beyond these are in the wrong unit: tonnes for kg, kg for g, percent for a ratio. No grid emits more than
# 1,300 g/kWh.
_MOST_CARBON_PRICE, _MOST_INTENSITY, _MOST_PUE = 1000.0, 5000.0, 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Settings of :func:`melange.solve`.

    Parameters
    ----------
    headroom
        Share of each replica's capacity kept free, 0-1. Ignored by certified plans: the simulation finds their
        headroom.
    slices
        Grain of the shares: each bucket is cut into this many equal slices; None lets shares be continuous.
    max_instances
        At most this many instances, by offer name (provider/region/instance type), instance type or replica type
        name. An offer and an instance type bind every replica type on them, variants included.
    max_accelerators
        At most this many accelerators over all offers (availability): by accelerator name, by region, or by both
        (``us-east-1/H100-80GB``).
    min_replicas
        At least this many replicas of every type that is used; or by replica type or accelerator name.
    min_total_replicas
        At least this many replicas in total.
    spare_replicas
        N+k: every used type still serves its own share when any k of its replicas are lost; or by replica type or
        accelerator name, where an accelerator's k applies to each of its types.
    spare_total_replicas
        N+k in total: the fleet still serves the traffic, with new shares, when any k replicas of one type are lost.
    max_types
        At most this many different replica types are used.
    require, exclude
        Replica types (by name) or accelerators (by name) that must be used, or must not be.
    budget_per_h
        If set, maximize the served traffic within this budget instead of minimizing cost [USD/h].
    drop_unservable
        If no replica type can serve some bucket, plan for the rest and report the share of requests left out.
    time_limit_s
        The search stops here with the best plan found and its gap [s].
    gap
        Relative gap at which a plan counts as proven.
    seed
        Seed of the solver.
    confidence
        Chance to plan for, 0-1. By closed form: the plan uses the rates that replicas reach with this probability (0.5
        is the estimate itself, 0.9 the low end of its interval). Certified: the chance that the plan holds in
        simulation. None: the estimate.
    objective
        What to minimize: ``cost``, or ``carbon``, the emissions of its instances per hour (ties by cost).
    carbon_price_per_kg
        Price of a kg of CO2 equivalent, added to the price of instances [USD/kg].
    grid_g_per_kwh
        CO2 equivalent of a kWh by region, ``default`` for the others [g/kWh]; if not given, that of
        :mod:`melange.catalog.grid`.
    pue
        Power usage effectiveness: the power that the data center draws over the power that its servers draw.

    Raises
    ------
    InputError
        A value is out of its range.
    """

    # Without headroom a plan is optimal on paper and useless in practice: queues grow without bound. More headroom is
    # safer and costs proportionally more; a certified plan finds the headroom it needs (docs/proof.md). Chosen by
    # judgment.
    headroom: float = 0.1
    slices: int | None = None
    max_instances: Mapping[str, int] = field(default_factory=dict)
    max_accelerators: Mapping[str, int] = field(default_factory=dict)
    min_replicas: int | Mapping[str, int] = 1
    min_total_replicas: int = 0
    spare_replicas: int | Mapping[str, int] = 0
    spare_total_replicas: int = 0
    max_types: int | None = None
    require: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    budget_per_h: float | None = None
    drop_unservable: bool = False
    # Only problems with many near-equal types and thousands of sizes take this long (docs/formulation.md); people wait
    # half a minute for a plan that runs for weeks.
    time_limit_s: float = 30.0
    # Relative to the cost, and far below the uncertainty of capacities. The last part of a proof takes longest: with
    # many near-equal types 1e-3 takes 0.58 of the time of a full proof, 1e-2 0.18.
    gap: float = 1e-3
    seed: int = 0
    confidence: float | None = None
    objective: str = COST
    carbon_price_per_kg: float = 0.0
    grid_g_per_kwh: Mapping[str, float] = field(default_factory=dict)
    pue: float = DEFAULT_PUE

    def __post_init__(self) -> None:
        self._check_kinds()
        self._check_energy()
        for name, least_share in (("headroom", 0.0), ("gap", 0.0), ("confidence", 0.5)):
            share = getattr(self, name)
            if share is not None and not least_share <= share < 1:
                raise InputError(f"plan.{name} must be in [{least_share:g}, 1), got {share:g}")
        if not 0 < self.time_limit_s < math.inf:
            raise InputError(f"plan.time_limit_s must be > 0 and finite, got {self.time_limit_s:g}")
        if self.budget_per_h is not None and not (math.isfinite(self.budget_per_h) and self.budget_per_h > 0):
            raise InputError(f"plan.budget_per_h must be > 0 and finite, got {self.budget_per_h:g}")
        for name, least in (("slices", 1), ("max_types", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value <= _MOST_COUNT:
                raise InputError(f"plan.{name} must be {least} to {_MOST_COUNT:,}, got {value}")
        for name in ("max_instances", "max_accelerators", "min_replicas", "spare_replicas"):
            value = getattr(self, name)
            counts = value if isinstance(value, Mapping) else {"": value}
            for key, count in counts.items():
                if not 0 <= count <= _MOST_COUNT:
                    section = "offers.max" if name.startswith("max_") else f"plan.{name}"
                    named = f"{section}{f'.{key}' if key else ''}"
                    raise InputError(f"{named} must be 0 to {_MOST_COUNT:,}, got {count}")
        for name in ("min_total_replicas", "spare_total_replicas"):
            if not 0 <= getattr(self, name) <= _MOST_COUNT:
                raise InputError(f"plan.{name} must be 0 to {_MOST_COUNT:,}, got {getattr(self, name)}")

    def _check_kinds(self) -> None:
        """Reject values of another kind (a text for a list of names, half a slice), and store lists as tuples."""
        for name, hint in _hints().items():
            value = _plain(getattr(self, name))
            if isinstance(value, float) and not math.isfinite(value):
                continue  # the limits of each setting say what is allowed
            checked = value_of(hint, value, f"plan.{name}")
            if isinstance(checked, tuple):
                object.__setattr__(self, name, checked)
        if self.seed < 0:
            raise InputError(f"plan.seed must be >= 0, got {self.seed}")

    def _check_energy(self) -> None:
        if self.objective not in (COST, CARBON):
            raise unknown("objective", self.objective, (COST, CARBON), place="plan.objective")
        if self.objective == CARBON and self.budget_per_h is not None:
            raise InputError(
                "plan: budget_per_h maximizes traffic, but objective: carbon minimizes emissions",
                hint="remove one of the two",
            )
        if not 0 <= self.carbon_price_per_kg <= _MOST_CARBON_PRICE:
            found = f"got {self.carbon_price_per_kg:g}"
            raise InputError(f"plan.carbon_price_per_kg must be 0 to {_MOST_CARBON_PRICE:g} USD/kg, {found}")
        if not 1 <= self.pue <= _MOST_PUE:
            raise InputError(f"plan.pue must be 1 to {_MOST_PUE:g}, got {self.pue:g}")
        for region, intensity in self.grid_g_per_kwh.items():
            if not 0 <= intensity <= _MOST_INTENSITY:
                found = f"got {intensity:g}"
                raise InputError(f"plan.grid_g_per_kwh.{region} must be 0 to {_MOST_INTENSITY:g} g/kWh, {found}")

    def to_json(self) -> Json:
        """As a JSON object."""
        return {one.name: _plain(getattr(self, one.name)) for one in fields(self)}

    @classmethod
    def from_json(cls, content: Json) -> Options:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content, "options")


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(Options)


def _plain(value: Any) -> Any:
    """The value of a setting in JSON types."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return list(value) if isinstance(value, tuple) else value
