"""Settings of a controller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from melange.errors import InputError
from melange.plan.schedule.rule import HIGHEST, RuleSettings

# Where no schedule says a rule. With slack, least_saving and settle_s chosen on the first week of the services of
# bench/operate.py, from their load alone: of some hundreds, among the cheapest with one change an hour and few requests
# in excess. Little slack and slow giving back (0.03, 0, 1200 s, 15 windows) cost 1 to 2 % less, with a third more
# requests in excess and nearly twice the changes.
DEFAULT_RULE = RuleSettings(ahead=HIGHEST, look_back=5, margin=0.0, target=1.0, stable_windows=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperateSettings:
    """How a controller looks, decides and acts.

    Parameters
    ----------
    interval_s
        Time between two looks at the fleet [s].
    window_s
        Traffic is judged in windows of this length [s].
    rule
        How it looks ahead, and how full the fleet is to be; a schedule's rule goes before it.
    slack
        When the fleet changes it is made this much larger than it must be, as a share: the next change comes later.
    least_saving
        A smaller fleet or another mix must save more than this share of the cost; a third of it where the fleet would
        have been enough for all windows that are remembered.
    floor
        Instances that are kept whatever the traffic, by replica type name; the empty name: in all.
    spare
        Instances of the most needed type on top of what the traffic takes: N+k.
    most_changes_per_h
        Revisions of the wanted fleet in an hour. Giving back and new mixes take no more than half of them, scaling up
        leaves the last one to types that are lost.
    settle_s
        A smaller fleet and another mix are looked for this often [s].
    start_up_s
        From an order to the first request of an instance [s].
    drain_s
        How long an instance may finish what it has begun [s].
    patience_s
        An instance that does not serve after this time has failed to start [s].
    exclude_s
        A type that failed is left out for this long [s]; twice as long where it fails again.
    longest_h
        What a new mix saves is counted for no longer than this [h].
    lease_s
        Another controller takes over when this one has not been heard of for this long [s].

    Raises
    ------
    InputError
        A value out of its range.
    """

    interval_s: float = 30.0
    window_s: float = 120.0
    rule: RuleSettings = DEFAULT_RULE
    slack: float = 0.09
    least_saving: float = 0.12
    floor: Mapping[str, int] = field(default_factory=dict)
    spare: int = 0
    most_changes_per_h: int = 12
    # Often, as the least saving keeps changes rare: what is not needed goes soon once it is much.
    settle_s: float = 600.0
    start_up_s: float = 300.0
    drain_s: float = 120.0
    patience_s: float = 900.0
    exclude_s: float = 1800.0
    longest_h: float = 6.0
    lease_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("interval_s", "window_s", "patience_s", "settle_s", "exclude_s", "longest_h", "lease_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"operate.{name} must be > 0 and finite, got {getattr(self, name):g}")
        for name in ("start_up_s", "drain_s"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InputError(f"operate.{name} must be >= 0 and finite, got {getattr(self, name):g}")
        if self.most_changes_per_h < 2:
            raise InputError(f"operate.most_changes_per_h must be >= 2, got {self.most_changes_per_h}")
        if not 0 <= self.slack < 1:
            raise InputError(f"operate.slack must be in [0, 1), got {self.slack:g}")
        if not 0 <= self.least_saving < 1:
            raise InputError(f"operate.least_saving must be in [0, 1), got {self.least_saving:g}")
        if self.spare < 0 or any(count < 0 for count in self.floor.values()):
            raise InputError("operate: floor and spare must be >= 0")
        if self.lease_s < 2 * self.interval_s:
            raise InputError(
                f"operate.lease_s must be at least twice interval_s ({self.interval_s:g}), got {self.lease_s:g}"
            )
