"""Per-process records of requests: sizes, times, and whether the SLO was met."""

from __future__ import annotations

from bisect import bisect_left
from math import log, log2
from typing import TYPE_CHECKING

from melange.deploy.live.counters import (
    GAP_HOURS,
    LATENCY_EDGES_S,
    METRICS,
    REASONS,
    STEP_BINS,
    TPOT_EDGES_S,
    TTFT_EDGES_S,
    Counters,
)
from melange.workload.burstiness import WINDOW_S

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Ticket
    from melange.deploy.live.completion import Completion
    from melange.slo import Slo
    from melange.workload.workload import Buckets

# TTFT, TPOT, normalized TPOT and latency [s].
_Values = tuple[float | None, float | None, float, float]


class Ledger:
    """Counts of one process.

    Parameters
    ----------
    counters, process
        Counters, and this process's row.
    buckets
        Buckets of the plan.
    slo
        SLO for judging completions; None: they are not judged.
    balancers
        Number of balancers that share the traffic.
    """

    def __init__(self, counters: Counters, process: int, buckets: Buckets, slo: Slo | None, balancers: int = 1) -> None:
        self.process = process
        self.row, self._shared = counters.row(process), counters.row(counters.processes)
        self._at = {name: counters.at(name) for name in counters.shapes}
        self._arrived, self._gaps, self._last_arrival = (self._at[name] for name in ("arrived", "gaps", "last_arrival"))
        self._completed = self._at["completed"]
        self._input_sum, self._output_sum = self._at["input_sum"], self._at["output_sum"]
        self._judged, self._met, self._answers = self._at["judged"], self._at["met"], self._at["answers"]
        self._steps, self._step_sizes = self._at["steps"], self._at["step_sizes"]
        self._outstanding, self._everywhere = self._at["replica_outstanding"], counters.processes * balancers
        self._latency, self._ttft, self._tpot = self._at["latency"], self._at["ttft"], self._at["tpot"]
        self._type_judged, self._type_met = self._at["type_judged"], self._at["type_met"]
        self._oversized = self._at["oversized"]
        self._inputs, self._outputs = buckets.input_edges, buckets.output_edges
        self._last_input, self._last_output = len(self._inputs) - 1, len(self._outputs) - 1
        # Limits of each class; without classes there is one entry.
        asked = [one.slo for one in slo.classes] or [slo] if slo else []
        self._limits = tuple(tuple((METRICS.index(name), one) for name, one in each.limits.items()) for each in asked)
        self._has_parts = tuple(set(each.limits) >= set(_PARTS) for each in asked)
        self._rows = buckets.shape[0]

    def arrived(self, input_tokens: int, moment_s: float, class_place: int = 0) -> None:
        """Count a request that replicas may serve, by its class in the plan."""
        row, shared, last = self.row, self._shared, self._last_arrival
        i = min(bisect_left(self._inputs, input_tokens), self._last_input)
        row[self._arrived + class_place * len(self._inputs) + i] += 1.0
        # The last arrival in all processes. If two processes write it at once, one gap of many is lost.
        last_s = shared[last]
        shared[last] = moment_s
        if last_s > 0.0:
            gap_s = moment_s - last_s if moment_s > last_s else 0.0
            place = self._gaps + 3 * (int(moment_s / WINDOW_S) % GAP_HOURS)
            row[place] += 1.0
            row[place + 1] += gap_s
            row[place + 2] += gap_s * gap_s

    def unserved(self, reason: str, is_arrived: bool = True) -> None:
        """Count a request that ended without a completion; if it had arrived, it has missed the SLO."""
        self.row[self._at["ended"] + REASONS.index(reason)] += 1.0
        if is_arrived and self._limits and reason in _MISSES:
            self.row[self._at["judged"] + len(METRICS)] += 1.0

    def retried(self, is_served: bool) -> None:
        """Count a request that was sent to a second replica, or was served by it."""
        self.row[self._at["retried_served" if is_served else "retried"]] += 1.0

    def answered(self, status: int) -> None:
        """Count a response to a client."""
        self.row[self._answers + min(status // 100, 5)] += 1.0

    def completed(self, ticket: Ticket, completion: Completion, arrived_s: float) -> int:
        """Count a complete completion; returns its length [tokens]."""
        outputs = completion.output_tokens or 1
        inputs = completion.input_tokens or ticket.size.input_tokens
        row, kind = self.row, ticket.replica.kind
        i, o = bisect_left(self._inputs, inputs), bisect_left(self._outputs, outputs)
        if i > self._last_input or o > self._last_output:
            row[self._oversized] += 1.0
            i, o = min(i, self._last_input), min(o, self._last_output)
        place = ticket.size.class_place
        i += place * len(self._inputs)
        cell = i * (self._last_output + 1) + o
        row[self._completed + cell] += 1.0
        row[self._input_sum + cell] += inputs
        row[self._output_sum + cell] += outputs
        last_s = completion.last_s
        latency_s = last_s - arrived_s
        self._observe(self._latency, LATENCY_EDGES_S, kind, latency_s)
        ttft_s: float | None = None
        tpot_s: float | None = None
        if completion.is_stream and completion.chunks:
            first_s = completion.first_s
            ttft_s, tpot_s = first_s - arrived_s, 0.0
            self._observe(self._ttft, TTFT_EDGES_S, kind, ttft_s)
            if outputs > 1:
                tpot_s = (last_s - first_s) / (outputs - 1)
                self._observe(self._tpot, TPOT_EDGES_S, kind, tpot_s)
                if outputs >= _LEAST_STEPS and tpot_s > 0.0:
                    self._step(kind, ticket, inputs, outputs, tpot_s)
        if self._limits:
            is_met = self._judge((ttft_s, tpot_s, latency_s / outputs, latency_s), outputs, place)
            place = kind * self._rows + i
            row[self._type_judged + place] += 1.0
            row[self._type_met + place] += is_met
        return outputs

    def _step(self, kind: int, ticket: Ticket, inputs: int, outputs: int, tpot_s: float) -> None:
        """Count the time per token at the number of requests in flight: the mean of its start and its end.

        Each process sees only its part of them.
        """
        here = 0.5 * (ticket.in_flight + self.row[self._outstanding + ticket.replica.slot])
        in_flight = max(here * self._everywhere, 1.0)
        row, log_s = self.row, log(tpot_s)
        place = self._steps + 4 * (kind * STEP_BINS + bin_of(in_flight))
        row[place] += 1.0
        row[place + 1] += log(in_flight)
        row[place + 2] += log_s
        row[place + 3] += log_s * log_s
        place = self._step_sizes + 3 * kind
        row[place] += 1.0
        row[place + 1] += inputs
        row[place + 2] += outputs

    def _observe(self, first: int, edges: tuple[float, ...], kind: int, value_s: float) -> None:
        start = first + kind * (len(edges) + 1)
        self.row[start + bisect_left(edges, value_s)] += 1.0
        self.row[start + len(edges)] += value_s

    def _judge(self, values: _Values, outputs: int, place: int) -> bool:
        """Judge a completion against each limit of its class, and against all of them, which is the result.

        The TTFT of a non-streaming completion is unknown. It has met its limits on TTFT and TPOT if its latency is
        within their sum, and counts only for all limits together.
        """
        row, judged, met = self.row, self._judged, self._met
        is_met, allowed_s, is_whole = True, 0.0, False
        for metric, limit_s in self._limits[place]:
            value_s = values[metric]
            if value_s is None:
                is_whole = True
                allowed_s += limit_s * (outputs - 1 if metric == _TPOT else 1)
                continue
            row[judged + metric] += 1.0
            if value_s <= limit_s:
                row[met + metric] += 1.0
            else:
                is_met = False
        if is_whole and self._has_parts[place] and values[3] > allowed_s:
            is_met = False
        row[judged + len(METRICS)] += 1.0
        row[met + len(METRICS)] += is_met
        return is_met


# Completions with fewer tokens say little about the time per token: the first tokens arrive in groups. Chosen by
# judgment.
_LEAST_STEPS = 8
# Reasons for which the service is responsible.
_MISSES = frozenset({"busy", "none_up", "failed"})
# Metrics whose limits together bound the latency.
_PARTS = ("ttft", "tpot")
_TPOT = METRICS.index("tpot")


def bin_of(in_flight: float) -> int:
    """Bin of a number of requests in flight, at least 1."""
    return min(int(2.0 * log2(in_flight)), STEP_BINS - 1)
