"""Usage of each tenant's limits over all processes of a balancer, and rejection of requests beyond them.

Rates use the generic cell rate algorithm: one number per limit, the time at which everything used will have been
earned. It is in shared memory without a lock: if two processes write at the same instant, one update may be lost.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from melange.deploy.live.answers import UnservedError, error
from melange.deploy.live.counters import TENANT_LIMITS
from melange.units import S_PER_MIN, count_of

if TYPE_CHECKING:
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.tenants import Tenant

LIMITED = "limited"
_REQUESTS, _TOKENS, _CONCURRENT = range(len(TENANT_LIMITS))


class Visit:
    """A running request of a tenant, which must be ended exactly once."""

    __slots__ = ("input_tokens", "slot", "tenant")

    def __init__(self, tenant: Tenant, slot: int, input_tokens: int) -> None:
        self.tenant, self.slot, self.input_tokens = tenant, slot, input_tokens


class Limits:
    """The limits in one process.

    Parameters
    ----------
    counters, process
        Counters, and this process's row.
    retry_after_s
        Retry-After for tenants with too many running requests, which end at unknown times [s].
    """

    def __init__(self, counters: Counters, process: int, retry_after_s: int) -> None:
        self._row, self._shared = counters.row(process), counters.row(counters.processes)
        self._counters, self._retry_after_s = counters, retry_after_s
        self._running, self._due = counters.at("tenant_running"), counters.at("tenant_due")
        self._requests, self._tokens = counters.at("tenant_requests"), counters.at("tenant_tokens")
        self._limited = counters.at("tenant_limited")
        self._slots: dict[str, int] = {}

    def enter(self, tenant: Tenant, input_tokens: int, now_s: float) -> Visit:
        """Admit a request.

        Parameters
        ----------
        input_tokens
            Estimated tokens of its prompt; tokens of the response are counted when they are known [tokens].
        now_s
            Time on a clock that all processes share [s].

        Raises
        ------
        UnservedError
            The tenant has reached a limit: 429, with the time to retry.
        """
        slot = self._slots.get(tenant.name)
        if slot is None:
            slot = self._slots[tenant.name] = self._counters.tenant_slot(tenant.name)
        if tenant.concurrent is not None and self._counters.summed(self._running + slot) >= tenant.concurrent:
            raise self._refused(
                slot, _CONCURRENT, f"{count_of(tenant.concurrent, 'request')} at once", self._retry_after_s
            )
        rate, most = tenant.requests_per_s, tenant.tokens_per_min
        each_s = 1.0 / rate if rate is not None else 0.0
        used_s = input_tokens * S_PER_MIN / most if most is not None else 0.0
        wait_s, token_wait_s = 0.0, 0.0
        if rate is not None:
            wait_s = self._wait_s(slot, _REQUESTS, each_s, max(1.0, each_s), now_s)
        if most is not None:
            token_wait_s = self._wait_s(slot, _TOKENS, used_s, S_PER_MIN, now_s)
        if wait_s > 0.0 and wait_s >= token_wait_s:
            raise self._refused(slot, _REQUESTS, f"{rate:g} requests/s", wait_s)
        if token_wait_s > 0.0:
            raise self._refused(slot, _TOKENS, f"{most:g} tokens/min", token_wait_s)
        if rate is not None:
            self._use(slot, _REQUESTS, each_s, now_s)
        if most is not None:
            self._use(slot, _TOKENS, used_s, now_s)
        self._row[self._running + slot] += 1.0
        self._row[self._requests + slot] += 1.0
        return Visit(tenant, slot, input_tokens)

    def leave(self, visit: Visit, input_tokens: int, output_tokens: int, now_s: float) -> None:
        """End a request, with its prompt tokens (0: unknown) and its output tokens."""
        slot, tenant = visit.slot, visit.tenant
        self._row[self._running + slot] -= 1.0
        inputs = input_tokens or visit.input_tokens
        self._row[self._tokens + slot] += inputs + output_tokens
        if tenant.tokens_per_min is not None:
            more = inputs - visit.input_tokens + output_tokens
            self._use(slot, _TOKENS, more * S_PER_MIN / tenant.tokens_per_min, now_s)

    def _wait_s(self, slot: int, limit: int, used_s: float, most_s: float, now_s: float) -> float:
        """How long a use must wait [s]; a use larger than the whole burst is admitted when nothing is in use."""
        ahead_s = self._shared[self._due + len(TENANT_LIMITS) * slot + limit] - now_s
        return min(ahead_s, ahead_s + used_s - most_s) - 1e-9

    def _use(self, slot: int, limit: int, used_s: float, now_s: float) -> None:
        place = self._due + len(TENANT_LIMITS) * slot + limit
        self._shared[place] = max(self._shared[place], now_s) + used_s

    def _refused(self, slot: int, limit: int, what: str, wait_s: float) -> UnservedError:
        self._row[self._limited + len(TENANT_LIMITS) * slot + limit] += 1.0
        headers = {"Retry-After": str(max(1, math.ceil(wait_s)))}
        return UnservedError(error(429, f"more than {what}", headers=headers), LIMITED)
