"""Which replicas take requests: active health checks and passive failure detection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from melange.deploy.live.links import LinkError
from melange.deploy.live.punctuality import Punctuality
from melange.units import count_of

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Balancer, LiveReplica
    from melange.deploy.live.links import Links

log = logging.getLogger("melange.balance")

# Interval of checks for silent replicas and stalled clients [s]: limits are exceeded by at most this time, and each
# check visits all open requests. It is also the beat by which the process notices that it is late.
SWEEP_S = 1.0

# Ways in which a request can fail on a replica.
GONE, BROKEN, WRONG = "gone", "broken", "wrong"
# Consecutive checks that must pass before a replica returns, or fail before it leaves. With one, a single lost packet
# would move a replica's traffic; with three, requests would go to a dead replica for another interval.
_RETURNS_AFTER, _LEAVES_AFTER = 2, 2
# How long a replica that failed requests is ejected even if it answers checks [s]; the time grows each time, up to the
# last. Short at first, because its capacity is missing; long later, because each return may fail requests again.
_AWAY_S = (5.0, 10.0, 20.0, 60.0)


class Health:
    """Watches a balancer's replicas.

    Parameters
    ----------
    balancer
        Balancer whose replicas are watched.
    links
        Connections for the checks.
    """

    def __init__(self, balancer: Balancer, links: Links) -> None:
        self.balancer, self._links = balancer, links
        self.punctuality = Punctuality(asyncio.get_running_loop().time, SWEEP_S)
        self._failed, self._ejected = balancer.counters.at("replica_failed"), balancer.counters.at("replica_ejected")
        self._times_away: dict[LiveReplica, int] = {}

    async def check(self, replicas: Sequence[LiveReplica]) -> None:
        """Check all replicas once, in parallel; one result is enough to change a replica's state."""
        await asyncio.gather(*(self._check(one, is_first=True) for one in replicas))

    async def watch(self) -> None:
        """Check all replicas periodically, forever."""
        every_s = self.balancer.settings.health_every_s
        while True:
            await asyncio.sleep(every_s)
            await asyncio.gather(*(self._check(one) for one in self.balancer.replicas))

    async def _check(self, replica: LiveReplica, *, is_first: bool = False) -> None:
        try:
            why = await self._ask(replica)
        except TimeoutError:
            if self.punctuality.is_late and not is_first:
                return  # nothing is known about the replica: it may have answered in time
            settings = self.balancer.settings
            why = f"{settings.health_path} did not answer within {settings.health_timeout_s:g} s"
        if replica.index < 0:
            return
        if why:
            replica.passed = min(replica.passed, 0) - 1
            if replica.is_up and (is_first or replica.passed <= -_LEAVES_AFTER):
                self._eject(replica, why)
            return
        replica.passed = max(replica.passed, 0) + 1
        is_time = asyncio.get_running_loop().time() >= replica.quiet_until_s
        if not replica.is_up and is_time and (is_first or replica.passed >= _RETURNS_AFTER):
            replica.failures = 0
            self.balancer.set_up(replica, True)
            log.info("%s is healthy again", replica.address.url)

    async def _ask(self, replica: LiveReplica) -> str:
        """Why a replica is unhealthy; empty if it is healthy.

        Raises
        ------
        TimeoutError
            The replica does not answer in time.
        """
        settings = self.balancer.settings
        path = settings.health_path
        try:
            async with asyncio.timeout(settings.health_timeout_s):
                said = await self._links.fetch(replica.address.url, b"GET", path.encode(), b"")
        except LinkError as error:
            return f"{path}: {error}"
        return "" if said.status < 300 else f"{path} answered {said.status}"

    def failed(self, replica: LiveReplica, why: str, fault: str) -> None:
        """A request has failed on a replica: ``GONE``, ``BROKEN`` (connection) or ``WRONG`` (response)."""
        self.balancer.row[self._failed + replica.slot] += 1.0
        replica.failures += 1
        if not replica.is_up or replica.index < 0:
            return
        if fault == GONE:
            self._eject(replica, why)
        elif replica.failures >= self.balancer.settings.most_failures and self.balancer.ups > 1:
            # The last replica is kept: a service that fails some requests is better than none.
            self._eject(
                replica, f"{why}, {count_of(replica.failures, 'time')} in a row{self._send_away(replica, fault)}"
            )

    def _send_away(self, replica: LiveReplica, fault: str) -> str:
        """Eject a replica that answers wrongly: its health checks may pass."""
        if fault != WRONG:
            return ""
        times = self._times_away.get(replica, 0)
        self._times_away[replica] = times + 1
        away_s = _AWAY_S[min(times, len(_AWAY_S) - 1)]
        replica.quiet_until_s = asyncio.get_running_loop().time() + away_s
        return f"; not used for {away_s:g} s"

    def served(self, replica: LiveReplica) -> None:
        """A replica has served a request."""
        if replica.failures:
            replica.failures = 0
            self._times_away.pop(replica, None)

    def _eject(self, replica: LiveReplica, why: str) -> None:
        self.balancer.row[self._ejected + replica.slot] += 1.0
        replica.passed = 0
        self.balancer.set_up(replica, False)
        log.warning("%s is ejected: %s", replica.address.url, why)
