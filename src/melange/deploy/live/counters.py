"""Counters of a balancer's processes, in shared memory.

Each process writes its own row, without locks; a reader adds the rows. The next row is the supervisor's: the counters
when the window of the live workload began, and the results of re-planning. The last row has the counts of earlier
plans' processes.
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

# Most replicas named since the start; each has a counter. Further replicas share the last counter. The table takes 48
# KiB per process, and ten replicas that are replaced daily fill it in a hundred days.
_SLOTS = 1024
# Most tenants named since the start, in the same way.
MOST_TENANTS = 256
# Length of the SHA-256 digest that identifies a replica's counter [bytes].
_DIGEST = 32
# Hours of a day: each gap is compared with the mean of its hour, so that a daily cycle does not count as burstiness.
GAP_HOURS = 24
# Upper edges of the histograms [s].
TTFT_EDGES_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, math.inf)
TPOT_EDGES_S = (0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.35, 0.5, 1.0, 2.5, math.inf)
LATENCY_EDGES_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0, 120.0, 300.0, 600.0, math.inf)
# Bins for the number of requests in flight on a replica when times per token are counted: powers of the square root of
# 2, up to 8,192.
STEP_BINS = 27
# Counters that determine the live workload and step times: only counts of the window are used.
_LIVE_WORKLOAD = ("arrived", "completed", "input_sum", "output_sum", "ended", "gaps", "oversized", "sent")
COUNTED_IN_WINDOW = (*_LIVE_WORKLOAD, "steps", "step_sizes")
METRICS = ("ttft", "tpot", "ntpot", "latency")
# Reasons why a request was not served.
REASONS = ("busy", "none_up", "failed", "client_gone", "refused", "malformed", "unauthorized", "limited")
# Limits of a tenant.
TENANT_LIMITS = ("requests", "tokens", "concurrent")


def _layout(types: int, inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """The shape of each counter."""
    return {
        "arrived": (inputs,),
        "completed": (inputs, outputs),
        "input_sum": (inputs, outputs),
        "output_sum": (inputs, outputs),
        # Gaps between arrivals, by hour of the day: number, sum [s], sum of squares [s2].
        "gaps": (GAP_HOURS, 3),
        "oversized": (1,),
        "sent": (types, inputs),
        "ended": (len(REASONS),),
        "retried": (1,),
        "retried_served": (1,),
        "answers": (6,),  # by the first digit of the status
        "judged": (len(METRICS) + 1,),  # by metric, and for all limits together
        "met": (len(METRICS) + 1,),
        "ttft": (types, len(TTFT_EDGES_S) + 1),  # last entry: the sum [s]
        "tpot": (types, len(TPOT_EDGES_S) + 1),
        "latency": (types, len(LATENCY_EDGES_S) + 1),
        # Streams by requests in flight: number, and sums of the logarithm of requests in flight, of the logarithm of
        # the time per token [s], and of its square; below: number of streams, prompt tokens and completion tokens.
        "steps": (types, STEP_BINS, 4),
        "step_sizes": (types, 3),
        "type_judged": (types, inputs),  # all limits together
        "type_met": (types, inputs),
        "connections": (1,),
        "replica_sent": (_SLOTS,),
        "replica_failed": (_SLOTS,),
        "replica_ejected": (_SLOTS,),
        "replica_outstanding": (_SLOTS,),
        "replica_fill": (_SLOTS,),
        "replica_up": (_SLOTS,),
        # Admitted requests, their tokens, running requests, and rejected requests by limit.
        "tenant_requests": (MOST_TENANTS,),
        "tenant_tokens": (MOST_TENANTS,),
        "tenant_running": (MOST_TENANTS,),
        "tenant_limited": (MOST_TENANTS, len(TENANT_LIMITS)),
        # In the supervisor's row: when everything that a tenant has used will have been earned [s].
        "tenant_due": (MOST_TENANTS, len(TENANT_LIMITS)),
        "began": (1,),
        "last_arrival": (1,),
        "window_began": (1,),
        # Learned step factor of each type: observed over planned step time, low, high; 0 if unknown.
        "factors": (types, 3),
        "drift": (4,),  # code of the state, cost of the current plan and of the new one [USD/h], time [s]
    }


# Counters that start from zero in a process that replaces another.
_GAUGES = ("replica_outstanding", "replica_fill", "replica_up", "connections", "tenant_running")


class Counters:
    """Rows of numbers in shared memory.

    Parameters
    ----------
    processes
        Number of processes that write.
    types, inputs, outputs
        Numbers of counted replica types and buckets.
    """

    def __init__(self, processes: int, types: int, inputs: int, outputs: int) -> None:
        self.shapes = _layout(types, inputs, outputs)
        sizes = {name: math.prod(shape) for name, shape in self.shapes.items()}
        starts = itertools.accumulate(sizes.values(), initial=0)
        self.start: dict[str, int] = dict(zip(sizes, starts, strict=False))
        self.width, self.processes = sum(sizes.values()), processes
        rows = (processes + 2) * self.width * 8
        # Anonymous and shared: it exists as long as a process uses it, at the same address in parent and children.
        self._memory = mmap.mmap(-1, rows + (_SLOTS + MOST_TENANTS) * _DIGEST)
        self._numbers = memoryview(self._memory)[:rows].cast("d")
        self._names = memoryview(self._memory)[rows:]
        self.table = np.frombuffer(self._memory, np.float64, rows // 8).reshape(processes + 2, self.width)
        self._lock: Lock = multiprocessing.get_context("fork").Lock()

    def row(self, process: int) -> memoryview[float]:
        """The row of one process; the row after them is the supervisor's."""
        return self._numbers[process * self.width : (process + 1) * self.width]

    def at(self, name: str) -> int:
        """The offset of a counter in a row."""
        return self.start[name]

    def total(self, name: str) -> Array:
        """A counter summed over all processes, including those of earlier plans, in its shape."""
        return self.part(self.snapshot(), name)

    def each(self, name: str) -> Array:
        """A counter of every process (P, ...)."""
        return np.stack([self.part(row, name) for row in self.table[: self.processes]])

    def supervisor(self, name: str) -> Array:
        """A counter in the supervisor's row, for reading and writing."""
        return self.part(self.table[self.processes], name)

    def snapshot(self) -> Array:
        """All counters summed over all processes, flat."""
        return np.asarray(self.table[: self.processes].sum(axis=0) + self.table[-1])

    def window(self, name: str) -> Array:
        """The counts since the window of the live workload began."""
        return self.total(name) - self.supervisor(name)

    def part(self, row: Array, name: str) -> Array:
        """The part of a row that holds a counter, in its shape."""
        shape = self.shapes[name]
        return row[self.start[name] : self.start[name] + math.prod(shape)].reshape(shape)

    def slot(self, replica_type: str, url: str) -> int:
        """Index of a replica's counters, the same in every process; the last index if all are in use."""
        return self._place(f"{replica_type} {url}", 0, _SLOTS)

    def tenant_slot(self, name: str) -> int:
        """Index of a tenant's counters, assigned in the same way."""
        return self._place(name, _SLOTS, MOST_TENANTS)

    def _place(self, name: str, first: int, count: int) -> int:
        """Index of a name; a new name gets the next free index."""
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
        """One number summed over all processes, including those of earlier plans."""
        numbers, width = self._numbers, self.width
        return sum(numbers[row * width + place] for row in range(self.processes + 2) if row != self.processes)

    def follow(self, earlier: Counters) -> None:
        """Use the same indexes of replicas and tenants as an earlier plan; call before any process asks for one."""
        self._names[:] = earlier._names
        self.supervisor("tenant_due")[...] = earlier.supervisor("tenant_due")

    def forget_gauges(self, process: int) -> None:
        """Reset the gauges of a process that starts: it has sent no request yet."""
        row = self.table[process]
        for name in _GAUGES:
            self.part(row, name)[...] = 0.0


def edges_by_histogram() -> Mapping[str, tuple[float, ...]]:
    """Upper edges of each histogram [s]."""
    return {"ttft": TTFT_EDGES_S, "tpot": TPOT_EDGES_S, "latency": LATENCY_EDGES_S}
