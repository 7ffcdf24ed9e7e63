"""When requests that may wait were sent in a history of windows, by the plan of their hours; and when they were done.

Requests are sent in the order of arrival. Each hour sends at its planned rate times a factor: the requests that arrived
within the last deadline over the planned number. A request that still waits an hour before its deadline is sent
regardless of the plan. Requests that were sent have the lowest priority: they use the capacity that the others leave.
Arrays have the axes (window W, size B, signal K, rule N).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.plan.schedule.waiting import in_order
from melange.units import S_PER_H
from melange.workload.demand import Indices
from melange.workload.workload import Array

_EPS = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sent:
    """The sent requests of a class that may wait.

    Parameters
    ----------
    rates
        Rates by window and size (W, B) [1/s].
    reached
        Requests that were sent before each window, and in total, counted in the order of arrival (W + 1,).
    due
        Requests that must be done by the end of each window, counted in the same way (W,).
    """

    rates: Array
    reached: Array
    due: Array

    def part(self, first: int, end: int) -> Sent:
        """The windows from ``first`` up to ``end``."""
        return Sent(rates=self.rates[first:end], reached=self.reached[first : end + 1], due=self.due[first:end])

    @property
    def mix(self) -> Array:
        """Share of each size in its requests (B,), 0-1."""
        return _mix(self.rates)


def sent_of(
    rates: Array, hour: Indices, arriving: Array, sending: Array, *, window_s: float, deadline_s: float
) -> Sent:
    """The requests of a history that the plan of the hours sends, by window.

    Parameters
    ----------
    rates
        Arrivals of the class by window and size (W, B) [1/s].
    hour
        Hour of the cycle of each window (W,).
    arriving, sending
        Requests per second that arrive and are sent in each hour by the plan (H,) [1/s].
    """
    windows = max(1, int(deadline_s / window_s))
    hours, in_hour = len(arriving), round(S_PER_H / window_s)
    # For the length of a deadline before the history, traffic is assumed as planned.
    before = (int(hour[0]) - 1 - np.arange(windows)[::-1] // in_hour) % hours
    planned = np.concatenate([arriving[before], arriving[hour]]) * window_s
    all_sizes = np.concatenate([np.outer(arriving[before], _mix(rates)), rates]) * window_s
    arrived = np.concatenate([[0.0], np.cumsum(all_sizes.sum(axis=1))])
    expected = np.concatenate([[0.0], np.cumsum(planned)])
    left = np.cumsum(arriving - sending) * S_PER_H
    reached = [max(0.0, float(arrived[windows] - (left - left.min())[hour[0] - 1]))]
    kept = windows - in_hour  # windows after which a request is sent regardless of the plan
    for k, place in enumerate(hour.tolist()):
        now = windows + k
        usual = expected[now] - expected[now - windows]
        times = (arrived[now] - arrived[now - windows]) / usual if usual > 0 else 1.0
        wanted = reached[-1] + times * sending[place] * window_s
        reached.append(min(float(arrived[now + 1]), max(float(wanted), float(arrived[now + 1 - max(kept, 0)]))))
    at = np.maximum.accumulate(np.array(reached))
    sizes = np.concatenate([np.zeros((1, rates.shape[1])), np.cumsum(all_sizes, axis=0)])
    sent = np.maximum(np.diff(in_order(arrived, sizes, at), axis=0), 0.0) / window_s
    return Sent(rates=sent, reached=at, due=arrived[1 : len(rates) + 1])


def _mix(rates: Array) -> Array:
    return np.asarray(rates.sum(axis=0) / max(float(rates.sum()), 1e-300))


def late_fractions(
    sent: Sequence[Sent], weight: Array, given: Array, up: Array, held: Array, demand: Array, window_s: float
) -> Array:
    """Share of each class's requests that are done after their deadline, for each rule (C, N), 0-1.

    Parameters
    ----------
    weight
        Demand of one request per second of each size for the signals (K, B).
    given, held
        What a serving instance gives to each signal (K,), and what the reserved instances give, always (K,) or by
        window (W, K).
    up
        Instances that serve, on average over each window (W, N).
    demand
        Demand of the requests that may not wait for each signal (W, K).
    """
    if not sent:
        return np.zeros((0, up.shape[1]))
    always = np.broadcast_to(held, demand.shape)
    each = [weight @ one.mix for one in sent]
    done = np.stack([np.full(up.shape[1], one.reached[0]) for one in sent])
    late = np.zeros_like(done)
    for k in range(len(up)):
        left = np.maximum(always[k] + given * up[k][:, None] - demand[k], 0.0)  # (N, K)
        for c, one in enumerate(sent):
            with np.errstate(divide="ignore", invalid="ignore"):
                room = np.where(each[c] > 0, left / each[c], np.inf).min(axis=1) * window_s
            until = np.minimum(done[c] + room, one.reached[k + 1])
            late[c] += np.clip(np.minimum(until, one.due[k]) - done[c], 0.0, None)
            left = np.maximum(left - ((until - done[c]) / window_s)[:, None] * each[c], 0.0)
            done[c] = until
    for c, one in enumerate(sent):
        late[c] += np.clip(one.due[-1] - done[c], 0.0, None)  # not done at the end
        late[c] /= max(float(one.reached[-1] - one.reached[0]), _EPS)
    return np.asarray(np.minimum(late, 1.0))
