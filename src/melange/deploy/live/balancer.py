"""The fleet at run time: the plan's policy on the current replicas, and the load of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from melange.deploy.addresses import Address, counts_of, known_types
from melange.plan.routing import policy_state, types_of
from melange.replica.policy import LEAST_SERVABLE, POLICIES, PolicyState, _servable, choose, finished, lost, sent
from melange.replica.policy import _bucket as bucket
from melange.replica.policy import _last_output as last_output

if TYPE_CHECKING:
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.settings import BalancerSettings
    from melange.deploy.live.sizing import Size
    from melange.plan.plan import Plan


class LiveReplica:
    """One replica as one process sees it.

    Parameters
    ----------
    address
        What it is and where.
    kind
        Place of its type among those that are counted by.
    slot
        Where its counters are.
    """

    __slots__ = ("address", "failures", "index", "is_up", "kind", "passed", "quiet_until_s", "slot")

    def __init__(self, address: Address, kind: int, slot: int) -> None:
        self.address, self.kind, self.slot = address, kind, slot
        self.index = -1  # in the fleet; -1 once it is no longer listed
        self.is_up = True
        self.failures = 0  # in a row
        self.passed = 0  # health checks in a row
        self.quiet_until_s = 0.0  # ejected until then at least


class Ticket:
    """A request's place on a replica, to be given back exactly once."""

    __slots__ = ("is_held", "part", "replica", "size")

    def __init__(self, replica: LiveReplica, size: Size, part: float) -> None:
        self.replica, self.size, self.part, self.is_held = replica, size, part, True


class Balancer:
    """Chooses replicas by a plan and tracks their load.

    Parameters
    ----------
    plan
        With the rates that it was made for.
    settings
        Policy, processes and limits.
    counters, process
        Where this process counts.
    """

    def __init__(self, plan: Plan, settings: BalancerSettings, counters: Counters, process: int) -> None:
        self.plan, self.settings, self.counters = plan, settings, counters
        self.row = counters.row(process)
        self._policy = POLICIES.index(settings.policy)
        self._needs_chance = settings.policy in {"paper", "random"}
        self._kinds = known_types(plan)
        self._outstanding, self._fill = counters.at("replica_outstanding"), counters.at("replica_fill")
        self._up, self._sent = counters.at("replica_up"), counters.at("sent")
        self._replica_sent = counters.at("replica_sent")
        self._inputs = plan.workload.buckets.shape[0]
        self.replicas: tuple[LiveReplica, ...] = ()
        self.fleet: PolicyState

    def list_replicas(self, addresses: Sequence[Address]) -> None:
        """Take up the replicas of a list; those that were there before keep what they hold, and what was learned."""
        before = {one.address: one for one in self.replicas}
        outstanding = {one: (self.fleet.outstanding[one.index], self.fleet.fill[one.index]) for one in self.replicas}
        now = tuple(before.get(address) or self._new(address) for address in sorted(addresses))
        counts = counts_of(addresses, self.plan)
        fleet = policy_state(self.plan, counts)
        # Each process sees its part of the traffic: to it a request stands for one in every other process too.
        fleet = fleet._replace(part=[part * self.settings.processes for part in fleet.part])
        if before:
            old = self.fleet
            fleet = fleet._replace(completions=old.completions, seen=old.seen, output_sum=old.output_sum)
            if types_of(self.plan, counts) == types_of(self.plan, counts_of(tuple(before), self.plan)):
                fleet = fleet._replace(credit=old.credit)
        for one in self.replicas:
            one.index = -1
        for index, one in enumerate(now):
            one.index = index
            fleet.outstanding[index], fleet.fill[index] = outstanding.get(one, (0, 0.0))
            fleet.is_up[index] = int(one.is_up)
        self.fleet, self.replicas = fleet, now
        for one in before.values():
            if one.index < 0:
                self.row[self._up + one.slot] = 0.0

    def _new(self, address: Address) -> LiveReplica:
        replica = LiveReplica(address, self._kinds.index(address.place), self.counters.slot(address))
        self.row[self._up + replica.slot] = 1.0
        return replica

    def set_up(self, replica: LiveReplica, is_up: bool) -> None:
        """Let a replica take requests, or none."""
        replica.is_up = is_up
        self.row[self._up + replica.slot] = float(is_up)
        if replica.index >= 0:
            self.fleet.is_up[replica.index] = int(is_up)

    @property
    def ups(self) -> int:
        """Replicas that take requests."""
        return sum(self.fleet.is_up)

    def place(self, size: Size, besides: LiveReplica | None = None) -> Ticket | None:
        """A replica for a request, booked; None where each that is up is over its limit, or none is up.

        Parameters
        ----------
        size
            Of the request.
        besides
            A replica that has just failed it.
        """
        fleet = self.fleet
        is_set_aside = besides is not None and besides.index >= 0 and besides.is_up
        if is_set_aside and besides is not None:
            fleet.is_up[besides.index] = 0
        try:
            chance = random.random() if self._needs_chance else 0.0
            index = choose(self._policy, fleet, size.input_tokens, size.max_tokens, chance)
            if index >= 0 and fleet.fill[index] > self.settings.most_fill:
                index = self._least_full(size)
        finally:
            if is_set_aside and besides is not None:
                fleet.is_up[besides.index] = 1
        if index < 0:
            return None
        replica, row = self.replicas[index], self.row
        part = sent(fleet, index, size.input_tokens, size.max_tokens)
        row[self._outstanding + replica.slot] += 1.0
        row[self._fill + replica.slot] = fleet.fill[index]
        row[self._replica_sent + replica.slot] += 1.0
        row[self._sent + replica.kind * self._inputs + bucket(fleet.input_edges, size.input_tokens)] += 1.0
        return Ticket(replica, size, part)

    def _least_full(self, size: Size) -> int:
        """The least full of all replicas that are under the limit and can serve a size; -1 where none is."""
        fleet, best = self.fleet, -1
        i, last = bucket(fleet.input_edges, size.input_tokens), last_output(fleet, size.max_tokens)
        for index, fill in enumerate(fleet.fill):
            if not fleet.is_up[index] or fill > self.settings.most_fill:
                continue
            if best >= 0 and fill >= fleet.fill[best]:
                continue
            if _servable(fleet, fleet.type_of[index], i, last) >= LEAST_SERVABLE:
                best = index
        return best

    def finish(self, ticket: Ticket, output_tokens: int) -> None:
        """A completion has come whole: give its place back and learn from its length."""
        index, ticket.is_held = ticket.replica.index, False
        if index >= 0:
            finished(self.fleet, index, ticket.size.input_tokens, output_tokens, ticket.part)
        self._count_back(ticket, index)

    def give_back(self, ticket: Ticket) -> None:
        """The place of a request that failed, was refused or whose client has gone; nothing where it is given back."""
        if not ticket.is_held:
            return
        index, ticket.is_held = ticket.replica.index, False
        if index >= 0:
            lost(self.fleet, index, ticket.part)
        self._count_back(ticket, index)

    def _count_back(self, ticket: Ticket, index: int) -> None:
        slot = ticket.replica.slot
        self.row[self._outstanding + slot] -= 1.0
        self.row[self._fill + slot] = self.fleet.fill[index] if index >= 0 else 0.0

    def has_other(self, replica: LiveReplica) -> bool:
        """Whether another replica is up."""
        return any(one.is_up and one is not replica for one in self.replicas)

    def first_up(self) -> LiveReplica | None:
        """The first replica that is up."""
        return next((one for one in self.replicas if one.is_up), None)
