"""Both pools in one simulation: every request through the prefill pool, over the network, and through the decode pool.

Nothing flows back, so the pools are simulated one after the other: the second pool gets each request once its prompt is
read and its KV cache has moved. The memory that a prefill replica holds for a request until then is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.plan import Plan
from melange.replica.layout_cost import NETWORK_BYTES_PER_S
from melange.replica.simulated.outcome import SERVED
from melange.slo import Slo
from melange.validate.attainment import AT_LIMIT, counted
from melange.validate.disaggregation.halves import cached_in, prompts_in
from melange.validate.simulate import Run, simulate
from melange.workload.arrivals import Arrivals
from melange.workload.workload import Array, Mask


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Played:
    """The result of simulating both pools for N requests, in the order of their arrival.

    Parameters
    ----------
    ttft_s, tpot_s
        Time from arrival to first token, and time between later tokens (N,) [s]; infinite if a request was not served.
    transfer_s
        Time to move its KV cache (N,) [s].
    """

    ttft_s: Array
    tpot_s: Array
    transfer_s: Array

    def met(self, slo: Slo) -> Mask:
        """Whether each counted request met both limits by itself."""
        assert slo.ttft_s is not None
        assert slo.tpot_s is not None
        inside = (self.ttft_s <= slo.ttft_s * AT_LIMIT) & (self.tpot_s <= slo.tpot_s * AT_LIMIT)
        return np.asarray(inside[counted(len(inside))])


def play_both(prefill: Plan, decode: Plan, arrivals: Arrivals, token_bytes: float) -> Played:
    """Simulate both pools on the same requests.

    Parameters
    ----------
    prefill, decode
        The plan of each pool.
    arrivals
        Requests as clients send them (N).
    token_bytes
        KV cache of one token [bytes].
    """
    first = simulate(prefill, prompts_in(arrivals))
    served = first.outcome.status == SERVED
    cards = np.minimum(_cards_of(first), _fewest_cards(decode))
    transfer_s = arrivals.input_tokens * token_bytes / (NETWORK_BYTES_PER_S * cards)
    handed_s = np.where(served, first.outcome.first_token_s + transfer_s, np.inf)
    order = np.argsort(handed_s, kind="stable")[: int(served.sum())]
    second = simulate(decode, cached_in(arrivals.chosen(order, handed_s[order]))).outcome
    ttft_s, tpot_s = np.full(len(arrivals), np.inf), np.full(len(arrivals), np.inf)
    done = second.status == SERVED
    ttft_s[order[done]] = (second.first_token_s - arrivals.arrival_s[order])[done]
    tpot_s[order[done]] = second.tpot_s[done]
    return Played(ttft_s=ttft_s, tpot_s=tpot_s, transfer_s=transfer_s)


def _cards_of(run: Run) -> Array:
    """Accelerators of the replica that each request went to (N,)."""
    types = [run.plan.replica_types[place] for place in run.types]
    held = np.array([one.layout.accelerators for one in types], float)
    replica = np.maximum(run.outcome.replica, 0)
    return np.asarray(held[run.type_of[replica]])


def _fewest_cards(plan: Plan) -> int:
    used = zip(plan.replica_types, plan.instances, strict=True)
    return min(one.layout.accelerators for one, count in used if count)
