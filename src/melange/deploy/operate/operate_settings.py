"""Settings of a controller."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from melange.errors import InputError
from melange.plan.schedule.rule import HIGHEST, RuleSettings

# The rule without a schedule. It was chosen together with slack, least_saving and settle_s on the first week of the
# services of bench/operate.py, from their load alone: of some hundreds of settings, it is among the cheapest with one
# change per hour and few requests short. Less slack and slower scale-down (0.03, 0, 1200 s, 15 windows) cost 1
# to 2 % less, with a third more requests short and nearly twice the changes.
DEFAULT_RULE = RuleSettings(ahead=HIGHEST, look_back=5, margin=0.0, target=1.0, stable_windows=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperateSettings:
    """Settings of a controller for observing, deciding and acting.

    Parameters
    ----------
    interval_s
        Time between two observations of the fleet [s].
    window_s
        Length of the windows over which traffic is averaged [s].
    rule
        The look-ahead and the target load; a schedule's rule takes precedence.
    slack
        Extra capacity that is added when the fleet changes, as a share, so that the next change comes later.
    least_saving
        A smaller fleet or another mix must save more than this share of the cost; a third of it if the fleet would have
        been enough for all windows in the state.
    floor
        Minimum instances at any traffic, by replica type name; the empty name: in total.
    spare
        Spare instances of the most needed type, in addition to what the traffic needs: N+k.
    most_changes_per_h
        Maximum changes of the target fleet per hour. Scale-downs and new mixes use at most half of them, and scaling up
        leaves the last one for replacing lost types.
    settle_s
        Time between two searches for a smaller fleet or another mix [s].
    start_up_s
        Time from the order of an instance to its first request [s].
    drain_s
        Time in which a draining instance may finish its requests [s].
    patience_s
        Start-up timeout: an instance that does not serve after this time has failed to start [s].
    exclude_s
        A type that failed is excluded for this long [s]; twice as long if it fails again.
    longest_h
        Longest time over which the saving of a cheaper fleet is counted [h].
    lease_s
        Another controller takes over if this one has not renewed its lease for this long [s].

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
    # Short, so that a large excess is removed soon; the least saving keeps changes rare.
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
