"""The traffic that a fleet must carry: the last windows, looked ahead by the scaling rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from melange.plan.schedule.rule import look_ahead
from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.deploy.operate.controller_state import ControllerState
    from melange.deploy.operate.decide import Brief

# Share of the traffic that is always expected with the planned sizes in their planned mix, even if none come now:
# enough to require a fleet that serves all of them, too little to rent more instances.
_USUAL = 1e-3


def expected_after(brief: Brief, state: ControllerState) -> Array:
    """The traffic to carry after each window (W, I, O) [1/s], from the look-ahead, the margin and the target load."""
    rule, settings = brief.settings.rule, brief.settings
    rates = state.rates()
    work = (rates * brief.planner.work).sum(axis=(1, 2))
    ahead = look_ahead(work, rule, settings.start_up_s / settings.window_s)
    # The mix of sizes is the mean over the windows of the look-back, since a single window may have few requests.
    seen = np.stack([rates[max(0, k + 1 - max(rule.look_back, 3)) : k + 1].mean(axis=0) for k in range(len(rates))])
    own = (seen * brief.planner.work).sum(axis=(1, 2))
    factor = np.divide(ahead, own, out=np.zeros_like(ahead), where=own > 0)
    ahead_rates = seen * (factor * (1 + rule.margin) / rule.target)[:, None, None]
    # Planned sizes may come at any time: the fleet must serve each of them, even if none came recently.
    planned = brief.planner.seen(np.asarray(brief.planner.question.workload.request_rate))
    usual = _USUAL * planned / max(float(planned.sum()), 1e-300)
    return np.asarray(np.maximum(ahead_rates, usual * ahead_rates.sum(axis=(1, 2))[:, None, None]))
