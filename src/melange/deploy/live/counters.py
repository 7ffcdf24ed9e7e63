"""Counters of a balancer's processes, in shared memory.

Each process writes its own row, without locks; a reader adds the rows up. The row after them is the supervisor's: the
state of the counters when the window of the live workload began, and what re-planning has found. The last has what the
processes of earlier plans counted.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import mmap
import multiprocessing
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from melange.workload.workload import Array

if TYPE_CHECKING:
    from multiprocessing.synchronize import Lock

# Replicas that have ever been named since the start, a counter each. Those beyond share the last one; the table takes
# 48 KiB a process, and ten replicas that are replaced daily fill it in a hundred days.
_SLOTS = 1024
# Tenants that have been named since the start, in the same way.
MOST_TENANTS = 256
# Of SHA-256, by which a replica finds its counter [bytes].
_DIGEST = 32
# Hours of a day: gaps of one are held against the mean of it, for a rate that changes over the day is no burst.
GAP_HOURS = 24
# Upper edges of the histograms [s].
TTFT_EDGES_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, math.inf)
TPOT_EDGES_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.5, 1.0, 2.5, math.inf)
LATENCY_EDGES_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0, math.inf)
# Bins of requests in flight on a replica, by which times per token are counted: half powers of two, up to 8,192.
STEP_BINS = 27
# What the live workload and step times are read from: counts of the window alone.
_LIVE_WORKLOAD = ("arrived", "completed", "input_sum", "output_sum", "ended", "gaps", "oversized", "sent")
COUNTED_IN_WINDOW = (*_LIVE_WORKLOAD, "steps", "step_sizes")
METRICS = ("ttft", "tpot", "ntpot", "latency")
# Why a request was not served.
REASONS = ("busy", "none_up", "failed", "client_gone", "refused", "malformed", "unauthorized", "limited")
# Limits of a tenant.
TENANT_LIMITS = ("requests", "tokens", "concurrent")


def _layout(types: int, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Shape of each counter."""
    return {
        "arrived": (inputs,),
        "completed": (inputs, outputs),
        "input_sum": (inputs, outputs),
        "output_sum": (inputs, outputs),
        # Between arrivals, by the hour of a clock of 24: how many, their sum [s], the sum of their squares [s2].
        "gaps": (GAP_HOURS, 3),
        "oversized": (1,),
        "sent": (types, inputs),
        "ended": (len(REASONS),),
        "retried": (1,),
        "retried_served": (1,),
        "answers": (6,),  # by the first digit of the status
        "judged": (len(METRICS) + 1,),  # by metric, and all limits at once
        "met": (len(METRICS) + 1,),
        "ttft": (types, len(TTFT_EDGES_S) + 1),  # the last: the sum [s]
        "tpot": (types, len(TPOT_EDGES_S) + 1),
        "latency": (types, len(LATENCY_EDGES_S) + 1),
        # Streams by requests in flight: how many, sums of the logarithms of requests in flight, of the time per token
        # [s], and of the square of the latter; and how many, with their prompt and completion tokens.
        "steps": (types, STEP_BINS, 4),
        "step_sizes": (types, 3),
        "type_judged": (types, inputs),  # all limits at once
        "type_met": (types, inputs),
        "connections": (1,),
        "replica_sent": (_SLOTS,),
        "replica_failed": (_SLOTS,),
        "replica_ejected": (_SLOTS,),
        "replica_outstanding": (_SLOTS,),
        "replica_fill": (_SLOTS,),
        "replica_up": (_SLOTS,),
        # Requests that were let in, their tokens, those under way, and those refused, by limit.
        "tenant_requests": (MOST_TENANTS,),
        "tenant_tokens": (MOST_TENANTS,),
        "tenant_running": (MOST_TENANTS,),
        "tenant_limited": (MOST_TENANTS, len(TENANT_LIMITS)),
        # Of the supervisor's row: when all that a tenant has used will have been earned [s].
        "tenant_due": (MOST_TENANTS, len(TENANT_LIMITS)),
        "began": (1,),
        "last_arrival": (1,),
        "window_began": (1,),
        # What was learned of each type: observed over planned step time, low, high; 0 where nothing is known.
        "factors": (types, 3),
        "drift": (4,),  # code of its state, cost of the plan in force and of the new one [USD/h], when [s]
    }


# What a process counts from zero when it is started in place of one that has ended.
_GAUGES = ("replica_outstanding", "replica_fill", "replica_up", "connections", "tenant_running")


class Counters:
    """Rows of numbers in shared memory.

    Parameters
    ----------
    processes
        How many write.
    types, inputs, outputs
        Replica types and buckets that are counted by.
    """

    def __init__(self, processes: int, types: int, inputs: int, outputs: int) -> None:
        self.shapes = _layout(types, inputs, outputs)
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        starts = itertools.accumulate(sizes.values(), initial=0)
        self.start: dict[str, int] = dict(zip(sizes, starts, strict=False))
        self.width, self.processes = sum(sizes.values()), processes
        rows = (processes + 2) * self.width * 8
        # Anonymous and shared: it lives as long as a process has it, and children find it where their parent did.
        self._memory = mmap.mmap(-1, rows + (_SLOTS + MOST_TENANTS) * _DIGEST)
        self._numbers = memoryview(self._memory)[:rows].cast("d")
        self._names = memoryview(self._memory)[rows:]
        self.table = np.frombuffer(self._memory, np.float64, rows // 8).reshape(processes + 2, self.width)
        self._lock: Lock = multiprocessing.get_context("fork").Lock()

    def row(self, process: int) -> memoryview[float]:
        """What one process writes; the one after them is the supervisor's."""
        return self._numbers[process * self.width : (process + 1) * self.width]

    def at(self, name: str) -> int:
        """Where a counter begins in a row."""
        return self.start[name]

    def total(self, name: str) -> Array:
        """A counter over all processes, those of earlier plans included, in its shape."""
        return self.part(self.snapshot(), name)

    def each(self, name: str) -> Array:
        """A counter of every process (P, ...)."""
        return np.stack([self.part(row, name) for row in self.table[: self.processes]])

    def supervisor(self, name: str) -> Array:
        """A counter of the supervisor's row, to be read and written."""
        return self.part(self.table[self.processes], name)

    def snapshot(self) -> Array:
        """All counters over all processes, flat."""
        return np.asarray(self.table[: self.processes].sum(axis=0) + self.table[-1])

    def window(self, name: str) -> Array:
        """What was counted since the window of the live workload began."""
        return self.total(name) - self.supervisor(name)

    def part(self, row: Array, name: str) -> Array:
        """A counter's place in a row, in its shape."""
        shape = self.shapes[name]
        return row[self.start[name] : self.start[name] + math.prod(shape)].reshape(shape)

    def slot(self, replica_type: str, url: str) -> int:
        """Where a replica's counters are, the same in every process; the last slot once all are taken."""
        return self._place(f"{replica_type} {url}", 0, _SLOTS)

    def tenant_slot(self, name: str) -> int:
        """Where a tenant's counters are, in the same way."""
        return self._place(name, _SLOTS, MOST_TENANTS)

    def _place(self, name: str, first: int, count: int) -> int:
        """The place of a name among some, which it takes where it has none."""
        digest = hashlib.sha256(name.encode()).digest()
        with self._lock:
            for place in range(count - 1):
                at = slice((first + place) * _DIGEST, (first + place + 1) * _DIGEST)
                found = bytes(self._names[at])
                if found == digest:
                    return place
                if not any(found):
                    self._names[at] = digest
                    return place
        return count - 1

    def summed(self, place: int) -> float:
        """One number over all processes, those of earlier plans included."""
        numbers, width = self._numbers, self.width
        return sum(numbers[row * width + place] for row in range(self.processes + 2) if row != self.processes)

    def follow(self, earlier: Counters) -> None:
        """Count replicas and tenants where an earlier plan's counters do; before any process has asked for a slot."""
        self._names[:] = earlier._names
        self.supervisor("tenant_due")[...] = earlier.supervisor("tenant_due")

    def forget_gauges(self, process: int) -> None:
        """A process starts: it has sent nothing yet."""
        row = self.table[process]
        for name in _GAUGES:
            self.part(row, name)[...] = 0.0


def edges_by_histogram() -> Mapping[str, tuple[float, ...]]:
    """Upper edges of each histogram [s]."""
    return {"ttft": TTFT_EDGES_S, "tpot": TPOT_EDGES_S, "latency": LATENCY_EDGES_S}
