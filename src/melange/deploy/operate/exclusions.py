"""Types that failed: left out for a while, longer each time, and whole regions where several of their types fail."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

from melange.deploy.operate.controller_state import ControllerState, Exclusion
from melange.units import S_PER_MIN

if TYPE_CHECKING:
    from melange.deploy.operate.decide import Brief
    from melange.deploy.operate.observation import Observation

# Each failure in a row doubles the time, up to this many times the first. A refused order costs nothing, while what
# stands in for the type may cost several times as much: with eight times, a region that was out for two hours was used
# again after more than three.
_MOST_TIMES = 2
# Types of a region that fail together before all of the region is left out: one may be out of stock by itself.
_REGION = 2


def is_out(excluded: Mapping[str, Exclusion], name: str, now_s: float) -> bool:
    """Whether a type may not be ordered now."""
    return name in excluded and now_s < excluded[name].until_s


def excluded_after(
    brief: Brief, state: ControllerState, seen: Observation
) -> tuple[dict[str, Exclusion], tuple[str, ...]]:
    """The exclusions after a look, and what is to be said of new ones.

    A type that serves all that is wanted of it is no longer on the list; one whose time is over may be tried, and is
    left out for longer if it fails again.
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
    """Leave out all types of a region in which several are out, and nothing serves or starts.

    Where instances do, the region is there: then each type is out of stock by itself. The others are tried again with
    the first of those that failed just now; a type that failed long before may be tried while the region is still down.
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
