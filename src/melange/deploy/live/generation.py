"""Processes of one plan; they hand their counts to the next plan's processes, sorted into its types and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.addresses import known_types
from melange.deploy.live.counters import Counters

if TYPE_CHECKING:
    from melange.deploy.addresses import Address
    from melange.plan.plan import Plan
    from melange.workload.workload import Array

# Counters by replica type, counters by size, and the supervisor's own.
_BY_TYPE = ("sent", "type_judged", "type_met", "ttft", "tpot", "latency", "steps", "step_sizes")
_BY_SIZE = ("arrived", "completed", "input_sum", "output_sum", "sent", "type_judged", "type_met")
# Factors are relative to a plan, and the next plan may already include them.
_OWN = ("began", "last_arrival", "window_began", "drift", "factors", "tenant_due")


@dataclass(slots=True, kw_only=True, eq=False)
class Generation:
    """A plan and the processes that serve it.

    Parameters
    ----------
    plan, addresses
        The plan that is served, and its replicas.
    counters
        Counters of its processes.
    workers
        Process number and start time by process id.
    """

    plan: Plan
    addresses: Sequence[Address]
    counters: Counters
    workers: dict[int, tuple[int, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, addresses: Sequence[Address], processes: int) -> Generation:
        """A generation with all counters at zero."""
        counters = Counters(processes, len(known_types(plan)), *plan.workload.buckets.shape)
        return cls(plan=plan, addresses=addresses, counters=counters)

    @property
    def is_serving(self) -> bool:
        """Whether each of its processes accepts connections."""
        return bool((self.counters.each("began") > 0).all())

    def take_over(self, earlier: Generation) -> None:
        """Start from the current counts of an earlier generation."""
        self.counters.table[-1] = self.sorted_in(earlier, earlier.counters.snapshot())

    def sorted_in(self, earlier: Generation, row: Array) -> Array:
        """Convert a row of an earlier generation's counters to ours; counts without a place here are left out."""
        ours, theirs = self.counters, earlier.counters
        places = {one: t for t, one in enumerate(_names(self.plan))}
        pairs = [(places[one], t) for t, one in enumerate(_names(earlier.plan)) if one in places]
        is_same_size = self.plan.workload.buckets == earlier.plan.workload.buckets
        found = np.zeros(ours.width)
        for name, shape in ours.shapes.items():
            if name in _OWN or (name in _BY_SIZE and not is_same_size):
                continue
            old = theirs.part(row, name)
            new = ours.part(found, name)
            if name in _BY_TYPE:
                for t, before in pairs:
                    new[t] = old[before]
            else:
                new[...] = old.reshape(shape)
        return found


def _names(plan: Plan) -> list[str]:
    return [plan.replica_types[r].name for r in known_types(plan)]
