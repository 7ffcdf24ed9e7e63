"""Exclusions of types that failed, for longer at each failure, and of whole regions if several of their types fail."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from melange.deploy.operate.controller_state import ControllerState, Exclusion
from melange.units import S_PER_MIN

if TYPE_CHECKING:
    from melange.deploy.operate.decide import Brief
    from melange.deploy.operate.observation import Observation

# Each consecutive failure doubles the time, up to this multiple of the first. A refused order costs nothing, while a
# replacement for the type may cost several times as much: with a multiple of eight, a region that was down for two
# hours was used again after more than three.
_MOST_TIMES = 2
# Number of types of a region that must fail together before the whole region is excluded: a single type may be out of
# stock.
_REGION = 2


def is_out(excluded: Mapping[str, Exclusion], name: str, now_s: float) -> bool:
    """Whether a type may not be ordered now."""
    return name in excluded and now_s < excluded[name].until_s


def excluded_after(
    brief: Brief, state: ControllerState, seen: Observation
) -> tuple[dict[str, Exclusion], tuple[str, ...]]:
    """The exclusions after an observation, and a line for each new one.

    An exclusion is removed when all wanted instances of its type serve. After its time, the type may be ordered again,
    and is excluded for longer if it fails again.
    """
    now_s, settings = seen.at_s, brief.settings
    target = state.target or {}
    kept = {
        name: one
        for name, one in state.excluded.items()
        if is_out(state.excluded, name, now_s) or not 0 < target.get(name, 0) <= seen.of(name).ready
    }
    reasons = {name: one.failures[0] for name, one in seen.fleet.items() if one.failures}
    reasons |= {
        name: f"not ready after {settings.patience_s:,.0f} s"
        for name, one in seen.fleet.items()
        if one.late(settings.patience_s) and name not in reasons
    }
    lines = []
    for name, reason in sorted(reasons.items()):
        if name not in brief.planner.types_by_name or is_out(kept, name, now_s):
            continue
        kept[name], line = _failed(kept.get(name), name, reason, settings.exclude_s, now_s)
        lines.append(line)
    there = {name for name, one in seen.fleet.items() if one.ready or one.starting > one.late(settings.patience_s)}
    kept, said = _with_regions(brief, kept, set(reasons), there, now_s)
    return kept, (*lines, *said)


def _failed(before: Exclusion | None, name: str, reason: str, exclude_s: float, now_s: float) -> tuple[Exclusion, str]:
    times = 1 if before is None else before.times + 1
    length_s = exclude_s * min(2 ** (times - 1), _MOST_TIMES)
    line = f"exclude {name} for {length_s / S_PER_MIN:,.3g} min: {reason}"
    return Exclusion(until_s=now_s + length_s, times=times, reason=reason), line


def _with_regions(
    brief: Brief, kept: dict[str, Exclusion], failed: set[str], there: Set[str], now_s: float
) -> tuple[dict[str, Exclusion], list[str]]:
    """Exclude all types of a region in which several types are excluded and no instance serves or starts.

    If instances serve or start there, the region is up, and each excluded type is just out of stock. The exclusion of
    the other types ends with the first exclusion of the types that failed just now; a type that failed long before may
    be ordered earlier, while the region is still down.
    """
    types, lines = brief.planner.types_by_name, []
    region_of = {name: (one.offer.provider, one.offer.region) for name, one in types.items()}
    for region in sorted({region_of[name] for name in failed if name in types}):
        if not all(region):
            continue
        of_region = [name for name in types if region_of[name] == region]
        out = [name for name in of_region if is_out(kept, name, now_s)]
        accelerators = {types[name].offer.accelerator for name in out}
        rest = [name for name in of_region if not is_out(kept, name, now_s)]
        elsewhere = any(one != region for one in region_of.values())
        if len(accelerators) < _REGION or not rest or not elsewhere or not there.isdisjoint(of_region):
            continue
        until_s = min(kept[name].until_s for name in out if name in failed)
        reason = f"{'/'.join(region)}: {len(out)} types failed"
        for name in rest:
            kept[name] = Exclusion(until_s=until_s, times=kept[name].times if name in kept else 0, reason=reason)
        lines.append(f"exclude all of {reason}")
    return kept, lines
