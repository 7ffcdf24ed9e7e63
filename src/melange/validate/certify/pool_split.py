"""Ways to divide the prompts of a replica type between two pools: short ones, and those above some length."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from melange.plan.plan import Plan
from melange.validate.certify.headroom import as_asked
from melange.validate.certify.spare import own_spare
from melange.workload.workload import Array

# A pool has at least this part of its type's work. Less, and the pool is empty most of the time. A judgment.
_LEAST_PART = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Instances of a type for prompts up to a bucket, and of its second pool for longer prompts.

    Parameters
    ----------
    place, second
        Positions of the type and of its second pool among the types.
    last
        The last input bucket of the first pool.
    short, long
        Instances of the first pool and of the second.
    least
        Least instances of a pool: one replica must be left when spare ones are lost.
    """

    place: int
    second: int
    last: int
    short: int
    long: int
    least: int = 1

    @property
    def count(self) -> int:
        """Instances of both pools."""
        return self.short + self.long

    def of(self, count: int) -> Iterator[Split]:
        """Splits of ``count`` instances in about the same proportion, the nearest first."""
        wanted = self.short / self.count * count
        for short in sorted(range(math.floor(wanted) - 1, math.floor(wanted) + 3), key=lambda n: abs(n - wanted)):
            if self.least <= short <= count - self.least:
                yield replace(self, short=short, long=count - short)

    def applied(self, plan: Plan) -> Plan:
        """The plan with the type's requests and instances divided between two pools."""
        instances, share = plan.instances.copy(), plan.share.copy()
        instances[self.place], instances[self.second] = self.short, self.long
        both = share[self.place] + share[self.second]
        inputs = len(plan.workload.buckets.input_edges)
        is_long = (np.arange(len(both)) % inputs)[:, None] > self.last
        share[self.place], share[self.second] = both * ~is_long, both * is_long
        cost = float(instances @ np.array([one.cost_per_h for one in plan.replica_types]))
        return as_asked(replace(plan, instances=instances, share=share, cost_per_h=cost), plan.question)


def splits_of(plan: Plan, place: int, second: int, full: Array) -> list[Split]:
    """Ways to split a type's prompts in two, with instances in proportion to the work."""
    rate = plan.share[place] * plan.workload.request_rate
    work = np.divide(rate, full[place], out=np.zeros_like(rate), where=full[place] > 0).sum(axis=1)
    work = work.reshape(-1, len(plan.workload.buckets.input_edges)).sum(axis=0)  # of all classes
    if not work.any():  # spare instances, which no request is sent to
        return []
    below, count = np.cumsum(work) / work.sum(), int(plan.instances[place])
    replica_type = plan.replica_types[place]
    spare = own_spare(plan.options, replica_type.name)
    least = math.ceil((spare + 1) / replica_type.replicas_per_instance)
    if count < 2 * least:
        return []
    return [
        Split(place=place, second=second, last=int(i), short=short, long=count - short, least=least)
        for i in np.flatnonzero((below > _LEAST_PART) & (below < 1.0 - _LEAST_PART) & (work > 0))
        for short in {int(np.clip(round(below[i] * count) + step, least, count - least)) for step in _steps(count)}
    ]


def _steps(count: int) -> tuple[int, ...]:
    """Differences in instances between a split and the proportion of the work."""
    step = max(1, round(count / 12))
    return (-step, 0, step)
