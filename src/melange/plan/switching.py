"""Whether to leave the current fleet: the savings of a cheaper fleet while it lasts, against the cost of changing.

New instances start before the instances that they replace are given back (make before break), so both are paid while
the slowest new instance starts and the old ones drain:

    switch if  (cost_before - cost_after) expected_s  >  sum_r removed_r c_r (start_up_s + drain_s) + changed x usd
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from melange.errors import InputError
from melange.files import Json
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import with_instances
from melange.units import S_PER_DAY, S_PER_H

# Largest load at which a fleet still carries its traffic: the tolerance of a linear program.
_FITS = 1.0 + 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """Time from the order of an instance to its first request.

    Parameters
    ----------
    boot_s
        Time until the instance runs [s].
    image_bytes
        Size of the engine's image [bytes].
    pull_bytes_per_s
        Speed at which the image is pulled [bytes/s].
    load_bytes_per_s
        Speed at which weights get from storage into the accelerators [bytes/s].
    """

    boot_s: float = 120.0
    image_bytes: float = 10e9
    pull_bytes_per_s: float = 0.25e9
    load_bytes_per_s: float = 1e9

    def __post_init__(self) -> None:
        for name in ("boot_s", "image_bytes"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"start_up: {name.rpartition('_')[0]} must be >= 0, got {getattr(self, name):g}")
        for name in ("pull_bytes_per_s", "load_bytes_per_s"):
            if not getattr(self, name) > 0:
                raise InputError(f"start_up: {name.partition('_')[0]}_gb_per_s must be > 0")

    def seconds(self, weight_bytes: float) -> float:
        """Start-up time of an instance that loads weights of this size [s].

        >>> StartUp(boot_s=60, image_bytes=10e9, pull_bytes_per_s=1e9, load_bytes_per_s=2e9).seconds(140e9)
        140.0
        """
        return self.boot_s + self.image_bytes / self.pull_bytes_per_s + weight_bytes / self.load_bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Switching:
    """The settings for deciding on a change of fleet.

    Parameters
    ----------
    expected_s
        Time for which the traffic is expected to stay as it is [s].
    start_up_s
        Time from the order of an instance to its first request [s].
    drain_s
        Time from the last request sent to an instance to the end of its bill [s].
    change_usd
        Other costs of each instance that is added or given back [USD]: work, data transfer.
    """

    expected_s: float
    start_up_s: float
    drain_s: float = 60.0
    change_usd: float = 0.0

    def __post_init__(self) -> None:
        if not self.expected_s > 0:
            raise InputError(
                f"switching: expected must be > 0 s, got {self.expected_s:g}", hint="switching: {expected: 7d}"
            )
        for name in ("start_up_s", "drain_s", "change_usd"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"switching: {name} must be >= 0, got {getattr(self, name):g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchDecision:
    """The decision to stay or to switch, and the reason.

    Parameters
    ----------
    is_switch
        Whether to switch.
    saved_usd
        Savings of the new fleet over the expected time [USD].
    switch_usd
        Cost of changing [USD].
    reason
        The reason, in a sentence.
    """

    is_switch: bool
    saved_usd: float
    switch_usd: float
    reason: str

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "switch": self.is_switch,
            "saved_usd": self.saved_usd,
            "switch_usd": self.switch_usd,
            "reason": self.reason,
        }


def in_force_at(question: Question, incumbent: Plan, *, is_simulated: bool = False) -> tuple[Plan | None, str]:
    """The current fleet as a plan of a new question, or the reason why it cannot be one, by closed form.

    If it ``is_simulated`` afterwards, headroom need not be kept: the simulation says how much is needed.
    """
    counts = incumbent.instances_by_name
    names = [one.name for one in question.profile.replica_types]
    missing = [name for name, count in counts.items() if count and name not in names]
    if missing:
        return None, f"{missing[0]} is no longer offered"
    kept = with_instances(question, np.array([counts.get(name, 0) for name in names], np.int64))
    if kept is None:
        return None, "the current fleet cannot serve some sizes, or breaks a limit"
    headroom = 0.0 if is_simulated else question.options.headroom
    if float(kept.load.max()) > (1 - headroom) * _FITS:
        return (
            None,
            f"the current fleet would be at {kept.load.max():.0%} load, above the planned {1 - headroom:.0%}",
        )
    return kept, ""


def decide_switch(found: Plan, kept: Plan | None, reason: str, incumbent: Plan, settings: Switching) -> SwitchDecision:
    """Decide whether to stay with the current fleet or to switch to the new plan.

    Parameters
    ----------
    found
        The cheapest plan for the current traffic.
    kept
        The current fleet under that traffic; None if it does not work, and then ``reason`` says why.
    reason
        See ``kept``.
    incumbent
        The current plan.
    settings
        The settings for the decision.
    """
    changes = found.changes_from(incumbent)
    price = {one.name: one.cost_per_h for one in (*incumbent.replica_types, *found.replica_types)}
    removed = sum(-n * price[name] for name, n in changes.items() if n < 0)
    overlap_h = (settings.start_up_s * any(n > 0 for n in changes.values()) + settings.drain_s) / S_PER_H
    cost = removed * overlap_h + settings.change_usd * sum(map(abs, changes.values()))
    before = sum(n * price[name] for name, n in incumbent.instances_by_name.items())
    saved = (before - found.cost_per_h) * settings.expected_s / S_PER_H
    if not changes:
        return SwitchDecision(is_switch=False, saved_usd=0.0, switch_usd=0.0, reason="it is the current fleet")
    if kept is None:
        return SwitchDecision(is_switch=True, saved_usd=saved, switch_usd=cost, reason=reason)
    days, hours = settings.expected_s / S_PER_DAY, settings.expected_s / S_PER_H
    while_so = f"{days:.3g} days" if days >= 2 else f"{hours:.3g} hours"
    word = "saves" if saved >= 0 else "costs"
    words = f"the new fleet {word} {abs(saved):,.2f} USD in {while_so}, and changing costs {cost:,.2f} USD"
    return SwitchDecision(is_switch=saved > cost, saved_usd=saved, switch_usd=cost, reason=words)
