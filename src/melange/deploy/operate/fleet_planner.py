"""Fleets for given traffic under the plan's question: the load of a fleet, and the cheapest fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.operate.fleet_room import Room
from melange.errors import InfeasibleError, InputError, SolverError, unknown
from melange.plan.bindings import INSTANCE_TYPE, OFFER, REPLICA_TYPE, Bindings
from melange.plan.fleet import least_peak_shares
from melange.plan.problem import build
from melange.plan.question import Question
from melange.plan.servable import scope_of
from melange.plan.solve import solve, with_instances
from melange.units import count_of
from melange.workload.workload import Array

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.profile.profile import Profile

# Time limit of a search [s]; it then returns the best fleet so far: a controller must not wait for a proof.
_LONGEST_S = 10.0
# A size with a smaller share of the traffic than this does not change the fleet: it may be a stray request.
_STRAY = 1e-4
# Load of a size that is not assigned to a type: any traffic of it is too much.
_UNKNOWN = 1e12
# Loads up to this count as 1: the excess is rounding in the linear program.
FULL = 1 + 1e-6
Counts = Mapping[str, int]


class FleetPlanner:
    """Plans fleets for one service.

    Parameters
    ----------
    plan
        The plan whose question is solved again, with its limits, spares, exclusions and headroom.
    profile
        All types that may be rented; None: the profile of the plan.
    floor
        Minimum instances of every fleet by replica type name; the empty name: in total.
    """

    def __init__(self, plan: Plan, profile: Profile | None = None, floor: Counts | None = None) -> None:
        asked = plan.question if profile is None else replace(plan.question, profile=profile)
        limit_s = min(asked.options.time_limit_s, _LONGEST_S)
        self.question = asked.with_options(drop_unservable=True, time_limit_s=limit_s)
        self.types = asked.profile.replica_types
        self.types_by_name = {one.name: one for one in self.types}
        self.cost_per_h = {one.name: one.cost_per_h for one in self.types}
        self.replicas = {one.name: one.replicas_per_instance for one in self.types}
        self.wanted_floor = dict(floor or {})
        self.least_total = self.wanted_floor.pop("", 0)
        for name in self.wanted_floor:
            if name not in self.cost_per_h:
                raise unknown("replica type", name, self.cost_per_h)
        self.room = Room(self.question)
        # Instances that the question's limits do not allow are in no fleet, even if the floor requires them.
        self.floor = self.room.within(self.wanted_floor)
        self._bindings = Bindings(self.types, (OFFER, INSTANCE_TYPE, REPLICA_TYPE))
        rate = asked.profile.max_request_rate * np.array([*self.replicas.values()])[:, None, None]
        with np.errstate(divide="ignore"):
            usd = np.array([*self.cost_per_h.values()])[:, None, None] / rate
        least = usd.min(axis=0)
        # The lowest cost of one request per second of each size (I, O) [USD/h]: one measure of load for all types.
        self.work = np.where(np.isfinite(least), least, 0.0)

    def cost(self, fleet: Counts) -> float:
        """The cost of a fleet [USD/h]."""
        return sum(self.cost_per_h[name] * count for name, count in fleet.items())

    def seen(self, request_rate: Array) -> Array:
        """Rates without stray requests, and without sizes that no type serves (I, O) [1/s]."""
        kept = np.where((request_rate >= _STRAY * request_rate.sum()) & (self.work > 0), request_rate, 0.0)
        return np.asarray(kept)

    def peak(self, fleet: Counts, request_rate: Array) -> float:
        """Load of the fullest type at the best shares, relative to its planned capacity; infinite: no type serves it.

        Headroom is not part of the capacity: 1 is the load that the plan allows.
        """
        return self._shared(fleet, request_rate)[1]

    def carried(self, fleet: Counts, request_rates: Sequence[Array]) -> int:
        """Number of consecutive windows, counted back from the last, whose rates (I, O) [1/s] a fleet carries."""
        count = 0
        weights: Array | None = None
        for rate in reversed(request_rates):
            # The optimal shares of one window are often good enough for the next one.
            fits = weights is not None and bool((np.tensordot(weights, rate, 2) <= FULL).all())
            if not fits:
                weights, peak = self._shared(fleet, rate)
                fits = peak <= FULL
            if not fits:
                break
            count += 1
        return count

    def _shared(self, fleet: Counts, request_rate: Array) -> tuple[Array, float]:
        """Load of each used type per request per second of each size at the best shares (T, I, O), and the peak load.

        The load of sizes without traffic is too large for any fleet, as they are not assigned to a type.
        """
        shape = self.question.workload.buckets.shape
        if not request_rate.any():
            return np.full((1, *shape), _UNKNOWN), 0.0
        question = self._at(request_rate)
        scope = scope_of(question)
        problem = build(question, scope.allowed, scope.served)
        count = np.array([fleet.get(name, 0) for name in problem.names], np.int64)
        carried = problem.carried(count)
        found = least_peak_shares(problem, carried)
        if found is None:
            return np.full((1, *shape), _UNKNOWN), float("inf")
        used = np.flatnonzero(carried > 0)
        share = found[0][used]
        taken = np.zeros_like(share)
        np.multiply(problem.load[used], share, out=taken, where=share > 0)
        weights = np.full((len(used), request_rate.size), _UNKNOWN)
        weights[:, problem.cells] = taken / request_rate.ravel()[problem.cells] / carried[used][:, None]
        return weights.reshape(len(used), *shape), found[1]

    def cheapest(
        self,
        request_rate: Array,
        at_least: Counts | None = None,
        at_most: Counts | None = None,
        near: Plan | None = None,
    ) -> dict[str, int] | None:
        """Instances of the cheapest fleet by replica type name; None if none carries the traffic within the limits.

        Parameters
        ----------
        request_rate
            The traffic to carry (I, O) [1/s].
        at_least, at_most
            Limits on instances by replica type name; other types have none. The floor applies as far as ``at_most``
            allows.
        near
            Among fleets of equal cost, the one with the fewest changes from this plan is chosen.
        """
        least = {name: max(self.floor.get(name, 0), (at_least or {}).get(name, 0)) for name in self.cost_per_h}
        # Instances that are not available cannot be in the fleet, even if the floor requires them.
        least |= {name: min(least[name], most) for name, most in (at_most or {}).items()}
        try:
            question = self._bounded(self._at(request_rate), least, at_most or {})
            found = solve(question, incumbent=near)
        except (InfeasibleError, SolverError, InputError):
            return None
        return self.at_total({name: int(n) for name, n in found.instances_by_name.items() if n}, at_most)

    def plan_of(self, fleet: Counts, request_rate: Array | None) -> Plan | None:
        """The plan of a fleet, with shares for this traffic (None: the planned one); None if it cannot serve it."""
        question = self.question if request_rate is None or not request_rate.any() else self._at(request_rate)
        scope = scope_of(question)
        problem = build(question, scope.allowed, scope.served)
        wanted = np.array([fleet.get(one.name, 0) for one in self.types], np.int64)
        useful = np.zeros_like(wanted)  # only types that may still be rented
        useful[problem.types] = wanted[problem.types]
        return with_instances(question, useful)

    def _at(self, request_rate: Array) -> Question:
        workload = replace(self.question.workload, request_rate=request_rate, cautions=(), log_part_s=None)
        return replace(self.question, workload=workload)

    def _bounded(self, question: Question, least: Counts, at_most: Counts) -> Question:
        options = question.options
        given = options.min_replicas
        each = given if isinstance(given, Mapping) else dict.fromkeys(least, given)
        caps = dict(options.max_instances)
        gone = [name for name, count in at_most.items() if not count]
        for name, count in at_most.items():
            if count:
                # A limit on a name may also apply to variants of the type, which have their own counts.
                bound = [self.types[r].name for r in self._bindings.positions(name).tolist()]
                most = sum(at_most.get(other, least[other]) for other in bound)
                caps[name] = min(caps.get(name, most), most)
        needed = [name for name, count in least.items() if count]
        return question.with_options(
            require=tuple(dict.fromkeys((*options.require, *needed))),
            exclude=tuple(dict.fromkeys((*options.exclude, *gone))),
            min_replicas={name: max(each.get(name, 0), least[name] * self.replicas[name]) for name in self.cost_per_h},
            max_instances=caps,
        )

    def at_total(self, fleet: Counts, at_most: Counts | None = None) -> dict[str, int]:
        """The fleet with instances added up to the floor in total, as far as all limits allow.

        Its own types are added to first, the cheapest first; then the cheapest other types.
        """
        after, caps = dict(fleet), at_most or {}
        for name in sorted(self.cost_per_h, key=lambda one: (not fleet.get(one, 0), self.cost_per_h[one])):
            lacking = self.least_total - sum(after.values())
            if name in caps:
                lacking = min(lacking, caps[name] - after.get(name, 0))
            added = self.room.of(after, name, lacking)
            if added and (name not in caps or after.get(name, 0) + added <= caps[name]):
                after[name] = after.get(name, 0) + added
        return after

    def short_of_floor(self, fleet: Counts) -> str:
        """What a fleet has less than the floor, in words; empty: nothing."""
        parts = [
            f"{count} x {name} ({fleet.get(name, 0)} available)"
            for name, count in self.wanted_floor.items()
            if fleet.get(name, 0) < count
        ]
        total = sum(fleet.values())
        if total < self.least_total:
            parts.append(f"{count_of(self.least_total, 'instance')} in total ({total} available)")
        return f"the floor cannot be reached: {', '.join(parts)}" if parts else ""
