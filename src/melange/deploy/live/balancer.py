"""The fleet at run time: the plan's policy on the current replicas, and the load of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING

from melange.deploy.addresses import Address, counts_of, known_types
from melange.deploy.live.indexed_policy import IndexedState, indexed_policy
from melange.deploy.live.step_factors import routed_plan
from melange.plan.routing import policy_state, types_of
from melange.replica.policy import LEAST_SERVABLE, POLICIES

if TYPE_CHECKING:
    from melange.deploy.live.counters import Counters
    from melange.deploy.live.settings import BalancerSettings
    from melange.deploy.live.sizing import Size
    from melange.plan.plan import Plan


# Changes of step times with a smaller logarithm do not change the routing: noise would shuffle requests.
_NOTICED = 0.03


class LiveReplica:
    """One replica as one process sees it.

    Parameters
    ----------
    address
        The replica's type and URL.
    kind
        Index of its type among the counted types.
    slot
        Index of its counters.
    """

    __slots__ = ("address", "failures", "index", "is_up", "kind", "passed", "quiet_until_s", "slot")

    def __init__(self, address: Address, kind: int, slot: int) -> None:
        self.address, self.kind, self.slot = address, kind, slot
        self.index = -1  # index in the fleet; -1 after it was removed from the list
        self.is_up = True
        self.failures = 0  # consecutive
        self.passed = 0  # consecutive passed health checks
        self.quiet_until_s = 0.0  # ejected at least until then


class Ticket:
    """A request's place on a replica, which must be given back exactly once."""

    __slots__ = ("in_flight", "input_bucket", "is_held", "part", "replica", "size", "unread")

    def __init__(
        self, replica: LiveReplica, size: Size, part: float, input_bucket: int, unread: int, in_flight: int
    ) -> None:
        self.replica, self.size, self.part = replica, size, part
        self.input_bucket, self.unread, self.is_held = input_bucket, unread, True
        self.in_flight = in_flight  # requests on the replica when this one was sent, including it


class Balancer:
    """Chooses replicas by a plan and tracks their load.

    Parameters
    ----------
    plan
        The plan, with the rates that it was made for.
    settings
        Policy, number of processes, and limits.
    counters, process
        Counters, and this process's row.
    """

    def __init__(self, plan: Plan, settings: BalancerSettings, counters: Counters, process: int) -> None:
        self.plan, self.settings, self.counters = plan, settings, counters
        self.row = counters.row(process)
        self._policy = POLICIES.index(settings.policy)
        self._most_fill = settings.most_fill
        self._needs_chance = settings.policy in {"paper", "random"}
        self._kinds = known_types(plan)
        self._outstanding, self._fill = counters.at("replica_outstanding"), counters.at("replica_fill")
        self._up, self._sent = counters.at("replica_up"), counters.at("sent")
        self._replica_sent = counters.at("replica_sent")
        buckets = plan.workload.buckets
        self._inputs, self._last_input = buckets.shape[0], buckets.input_edges[-1]
        # A request names its class by its priority; among classes with the same priority, the first is used.
        asked = plan.slo.classes if plan.slo else ()
        self.class_by_priority = {one.priority: place for place, one in reversed(list(enumerate(asked)))}
        self.factors: dict[str, float] = {}
        self.routed = plan
        self.replicas: tuple[LiveReplica, ...] = ()
        self.tenant_names: tuple[str, ...] = ()
        self.fleet: IndexedState
        self._choose, self._servable = indexed_policy().choose, indexed_policy()._servable

    def list_replicas(self, addresses: Sequence[Address]) -> None:
        """Use a new list of replicas; known replicas keep their requests, and learned values are kept."""
        before = {one.address: one for one in self.replicas}
        held = {one: self.fleet.held_by(one.index) for one in self.replicas}
        now = tuple(before.get(address) or self._new(address) for address in sorted(addresses))
        counts = counts_of(addresses, self.plan)
        self.routed = routed_plan(self.plan, self.factors, counts) if self.factors else self.plan
        fleet = policy_state(self.routed, counts)
        # Each process sees its part of the traffic: a request that it sends stands for one in every other process, of
        # this balancer and of the others.
        times = self.settings.processes * self.settings.balancers
        fleet = fleet._replace(
            part=[part * times for part in fleet.part],
            request_part=[part * times for part in fleet.request_part],
            unread_part=[part * times for part in fleet.unread_part],
        )
        if before:
            old = self.fleet
            fleet = fleet._replace(completions=old.completions, seen=old.seen, output_sum=old.output_sum)
            if types_of(self.plan, counts) == types_of(self.plan, counts_of(tuple(before), self.plan)):
                fleet = fleet._replace(credit=old.credit)
        for one in self.replicas:
            one.index = -1
        for index, one in enumerate(now):
            one.index = index
            fleet.outstanding[index], fleet.fill[index], fleet.unread[index] = held.get(one, (0, 0.0, 0.0))
            fleet.is_up[index] = int(one.is_up)
        self.fleet, self.replicas = IndexedState(fleet), now
        for one in before.values():
            if one.index < 0:
                self.row[self._up + one.slot] = 0.0

    def use_factors(self) -> None:
        """Use the step factors that the supervisor has learned, if they have changed noticeably."""
        learned = self.counters.supervisor("factors")[:, 0]
        names = [self.plan.replica_types[r].name for r in self._kinds]
        now = {name: float(factor) for name, factor in zip(names, learned, strict=True) if factor > 0}
        every = {*now, *self.factors}
        if any(abs(log(now.get(name, 1.0) / self.factors.get(name, 1.0))) > _NOTICED for name in every):
            self.factors = now
            self.list_replicas([one.address for one in self.replicas])

    def _new(self, address: Address) -> LiveReplica:
        slot = self.counters.slot(self.plan.replica_types[address.place].name, address.url)
        replica = LiveReplica(address, self._kinds.index(address.place), slot)
        self.row[self._up + replica.slot] = 1.0
        return replica

    def set_up(self, replica: LiveReplica, is_up: bool) -> None:
        """Mark a replica as up or down."""
        replica.is_up = is_up
        self.row[self._up + replica.slot] = float(is_up)
        if replica.index >= 0:
            self.fleet.set_up(replica.index, is_up)

    @property
    def ups(self) -> int:
        """Replicas that accept requests."""
        return self.fleet.all_up

    def place(self, size: Size, besides: LiveReplica | None = None) -> Ticket | None:
        """A reserved place on a replica; None if no replica is up, or all that are up are over their limits.

        Parameters
        ----------
        size
            Size of the request.
        besides
            A replica on which the request has just failed.
        """
        fleet, tokens = self.fleet, self._looked_up(size) if self.class_by_priority else size.input_tokens
        if besides is not None and besides.index >= 0 and besides.is_up:
            fleet.set_up(besides.index, False)
            try:
                index = self._chosen(size, tokens)
            finally:
                fleet.set_up(besides.index, True)
        else:
            index = self._chosen(size, tokens)
        if index < 0:
            return None
        replica, row = self.replicas[index], self.row
        i, last = fleet.cell(tokens, size.max_tokens)
        # Prompt tokens until the first token arrives, which is observed only for streams.
        unread = size.input_tokens if size.is_stream else 0
        part = fleet.book(index, i, last, unread)
        slot = replica.slot
        row[self._outstanding + slot] += 1.0
        row[self._fill + slot] = fleet.fill[index]
        row[self._replica_sent + slot] += 1.0
        row[self._sent + replica.kind * self._inputs + i] += 1.0
        return Ticket(replica, size, part, i, unread, fleet.outstanding[index])

    def _looked_up(self, size: Size) -> int:
        """The token count for finding a request's bucket: prompt tokens plus the offset of its class."""
        return size.class_place * self._last_input + min(size.input_tokens, self._last_input)

    def _chosen(self, size: Size, tokens: int) -> int:
        """The policy's choice, or the least full replica if the choice is over its limit; -1: none."""
        fleet = self.fleet
        chance = random.random() if self._needs_chance else size.key
        index: int = self._choose(self._policy, fleet, tokens, size.max_tokens, chance)
        if index >= 0 and fleet.fill[index] > self._most_fill:
            return self._least_full(size, tokens)
        return index

    def _least_full(self, size: Size, tokens: int) -> int:
        """The least full replica among those that are under the limit and can serve a size; -1 if there is none."""
        fleet, best = self.fleet, -1
        i, last = fleet.cell(tokens, size.max_tokens)
        for t in range(len(fleet.up_count)):
            index = fleet.least_full(t)
            if index < 0 or fleet.fill[index] > self._most_fill:
                continue
            if best >= 0 and fleet.fill[index] >= fleet.fill[best]:
                continue
            if self._servable(fleet, t, i, last) >= LEAST_SERVABLE:
                best = index
        return best

    def read(self, ticket: Ticket) -> None:
        """The first token of a stream has arrived, so its prompt is read."""
        if ticket.is_held and ticket.unread and ticket.replica.index >= 0:
            self.fleet.read(ticket.replica.index, ticket.unread)
        ticket.unread = 0

    def finish(self, ticket: Ticket, output_tokens: int) -> None:
        """A completion has ended: release its place, and learn from its length unless the request fixed the length."""
        if ticket.replica.index >= 0 and ticket.size.max_tokens != 1:
            self.fleet.learn(ticket.input_bucket, output_tokens)
        self.give_back(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """Release the place of a request that has ended in any way; does nothing if it was already released."""
        if not ticket.is_held:
            return
        ticket.is_held = False
        replica, row, fill = ticket.replica, self.row, 0.0
        index, slot = replica.index, replica.slot
        if index >= 0:
            self.fleet.give_back(index, ticket.part, ticket.unread)
            fill = self.fleet.fill[index]
        row[self._outstanding + slot] -= 1.0
        row[self._fill + slot] = fill

    def has_other(self, replica: LiveReplica) -> bool:
        """Whether another replica is up."""
        return self.fleet.all_up > (replica.is_up and replica.index >= 0)

    def first_up(self) -> LiveReplica | None:
        """The first replica that is up."""
        return next((one for one in self.replicas if one.is_up), None)
