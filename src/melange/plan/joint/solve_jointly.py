"""Fleets of several services on shared pools: each service alone first; if a pool is short, with prices on the pools.

With prices on the pools, each service is a separate problem again (Dantzig-Wolfe decomposition). At prices p every
service takes its cheapest fleet including these prices, and

    bound(p) = sum_k min over its fleets (cost + p taken) - sum_j p_j most_j

is a lower bound on the cost of all services, for any p >= 0. The prices come first from services relaxed to fractions
of instances, where a fleet's cost is a closed form, and then from a program over the whole fleets seen so far.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.diagnose import enough
from melange.plan.joint.master import Choice, in_parts, whole
from melange.plan.joint.member import Column, Member
from melange.plan.joint.one_program import is_small, solve_together
from melange.plan.joint.shared_pools import Pools
from melange.plan.joint.shortage import ShortPoolsError, short_alone, why_short
from melange.plan.milp.program import Say
from melange.plan.options import Options
from melange.plan.problem import ROUNDING
from melange.workload.workload import Array

# Rounds with fractions of instances, and with whole fleets. With fractions, prices settle in ten to twenty rounds of
# milliseconds each; with whole fleets, a round costs one integer program per service.
_ROUNDS_IN_PARTS, _ROUNDS = 60, 25
# With fractions of instances, prices are good enough at this relative distance to their bound.
_NEAR = 1e-3
# Step from the best prices so far toward those of the program over known fleets: without it, prices swing from one
# extreme to the other while few fleets are known. One half is a common choice (Pessoa et al. 2018, smoothing).
_STEP = 0.5
# Price of the excess over a pool, as a multiple of the most that an instance's cost could pay for it.
_PENALTY = 20.0
# Factor on the prices, to find fleets that take less of the pools while none fit yet.
_HIGHER = 1.25
# Time limit of one fleet, as a share of the time left for all.
_SHARE = 0.2
# Rounds in which each service is planned again with what the others leave of the pools, and multiples of the prices at
# which more fleets are found for the program beforehand.
_REPLANNED, _MULTIPLES = 4, (0.0, 0.6, 0.85, 1.2, 1.6)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointSettings:
    """Limits of the search.

    Parameters
    ----------
    gap
        Relative distance to the bound at which an answer is good enough, 0-1.
    time_limit_s
        The search stops here with the best answer and its gap [s].
    """

    gap: float = 0.01
    time_limit_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JointFleets:
    """Fleets of all services within the pools.

    Parameters
    ----------
    columns
        One fleet for each service (K).
    bound_per_h
        Lower bound: no fleets of all services within the pools cost less [USD/h].
    price
        Price of each pool (J,) [USD/h per unit]; 0 for pools that are not short, or are empty.
    apart_per_h
        Cost of each service with the whole of each pool for itself (K,) [USD/h].
    solve_s
        Time that the search took [s].
    """

    columns: tuple[Column, ...]
    bound_per_h: float
    price: Array
    apart_per_h: Array
    solve_s: float

    @property
    def cost_per_h(self) -> float:
        """Cost of all fleets [USD/h]."""
        return float(sum(one.cost for one in self.columns))

    @property
    def gap(self) -> float:
        """Proven distance to the best possible, 0-1."""
        cost = self.cost_per_h
        found = 1.0 - self.bound_per_h / cost if cost > 0 else 0.0
        return found if found > ROUNDING else 0.0

    @property
    def taken(self) -> Array:
        """Their use of each pool (J,)."""
        return np.asarray(np.sum([one.taken for one in self.columns], axis=0))


def solve_jointly(
    members: Sequence[Member], pools: Pools, settings: JointSettings | None = None, *, say: Say | None = None
) -> JointFleets:
    """The cheapest fleets of all services within the pools, with a bound.

    Parameters
    ----------
    members
        The services (K).
    pools
        The shared pools (J).
    settings
        Limits of the search; None for the defaults.
    say
        Called with a progress message from time to time.

    Raises
    ------
    InfeasibleError
        A service has no fleet even with the whole of each pool for itself; or the pools are too small for all.
    """
    search = _Search(tuple(members), pools, settings or JointSettings(), say or (lambda _: None))
    return search.run()


class _Search:
    """One search: its known fleets, best answer and bound."""

    def __init__(self, members: tuple[Member, ...], pools: Pools, settings: JointSettings, say: Say) -> None:
        self._members, self._pools, self._settings, self._say = members, pools, settings, say
        self._began = time.monotonic()
        self._deadline = self._began + settings.time_limit_s
        self._most = pools.most
        self._bound, self._best_price = -np.inf, np.zeros(len(self._most))
        self._best: tuple[Column, ...] | None = None
        self._first_price = np.zeros(len(self._most))
        self._penalty = self._penalties()
        # Each fleet gets a tenth of the gap; the rest is for the difference between whole fleets and fractions of them.
        self._options = Options(gap=max(1e-4, 0.1 * settings.gap), time_limit_s=settings.time_limit_s)

    def run(self) -> JointFleets:
        """Plan each service alone; if the fleets do not fit together, search with prices."""
        nothing = np.zeros(len(self._most))
        apart = self._priced(nothing)
        apart_per_h = np.array([one.cost for one in apart])
        if not self._offer(tuple(apart)):
            self._say("the pools are too small for separate fleets: pricing the pools")
            self._settle_in_parts()
            self._settle()
            if not self._is_done():
                self._diversify()
                self._replan()
            if not self._is_done() and is_small(self._members):
                self._together()
        if self._best is None:
            is_late = time.monotonic() > self._deadline
            raise why_short(self._members, self._pools, self._excess(), self._options, self._began, is_late=is_late)
        self._check_budget()
        cost = sum(one.cost for one in self._best)
        taken = np.sum([one.taken for one in self._best], axis=0)
        # A price means that more units would be used, so unused and empty pools have no price.
        price = np.where((self._most > 0) & (taken > 0), self._best_price, 0.0)
        return JointFleets(
            columns=self._best,
            bound_per_h=float(min(max(self._bound, 0.0), cost)),
            price=price,
            apart_per_h=apart_per_h,
            solve_s=time.monotonic() - self._began,
        )

    def _penalties(self) -> Array:
        """Price of the excess over each pool (J,): more than any fleet would pay for it."""
        highest = max(float(one.problem.cost.max()) for one in self._members)
        weight = np.array(
            [
                max(float(np.where(one.draw[j] > 0, one.draw[j], np.inf).min(initial=np.inf)) for one in self._members)
                for j in range(len(self._most))
            ]
        )
        weight = np.where(np.isfinite(weight), weight, 1.0)
        return np.asarray(_PENALTY * highest / np.maximum(weight, 1.0))

    def _priced(self, price: Array) -> list[Column]:
        """The cheapest fleet of each service at prices (J,); raises the bound if they give a higher one."""
        total, found = -float(price @ self._most), []
        for one in self._members:
            left = self._deadline - time.monotonic()
            until = time.monotonic() + max(_SHARE * left, 0.05)
            try:
                column, bound = one.cheapest(price, self._options, until)
            except InfeasibleError as error:
                raise short_alone(one, error) from error
            found.append(column)
            total += bound
        if total > self._bound:
            self._bound, self._best_price = total, price
        return found

    def _offer(self, columns: tuple[Column, ...]) -> bool:
        """Keep an answer if it fits into the pools and is cheaper."""
        if (np.sum([one.taken for one in columns], axis=0) > self._most + 1e-6).any():
            return False
        cost = sum(one.cost for one in columns)
        if self._best is None or cost < sum(one.cost for one in self._best) - ROUNDING:
            self._best = columns
        return True

    def _is_done(self) -> bool:
        """Whether the answer is within the gap, relative to its own cost, since a bound may be below 0."""
        if self._best is None:
            return False
        cost = sum(one.cost for one in self._best)
        return bool(cost - self._bound <= self._settings.gap * cost + ROUNDING)

    def _settle_in_parts(self) -> None:
        """Find prices with fractions of instances, in closed form for each service; gives no bound on whole fleets."""
        cost: list[list[float]] = [[] for _ in self._members]
        taken: list[list[Array]] = [[] for _ in self._members]
        price, best_price, best = np.zeros(len(self._most)), np.zeros(len(self._most)), -np.inf
        for _ in range(_ROUNDS_IN_PARTS):
            total = -float(price @ self._most)
            for k, one in enumerate(self._members):
                value, use, own = one.floor(price)
                cost[k].append(own)
                taken[k].append(use)
                total += value
            if total > best:
                best, best_price = total, price
            found = in_parts([np.array(c) for c in cost], [np.array(t) for t in taken], self._most, self._penalty)
            above = found.cost + float(self._penalty @ found.excess)
            if above - best <= _NEAR * abs(above):
                break
            price = best_price + _STEP * (found.price - best_price)
        self._first_price = best_price

    def _settle(self) -> None:
        """Find whole fleets at the prices of a program over the known ones, until the gap closes or prices settle."""
        price = self._first_price
        for _ in range(_ROUNDS):
            before = self._known()
            self._priced(price)
            found = self._in_parts()
            self._choose()
            if self._best is None and found.excess.sum() <= ROUNDING:
                # Fractions of fleets fit, whole fleets do not yet: fleets at higher prices take less of the pools.
                self._priced(_HIGHER * np.maximum(self._best_price, found.price))
                self._choose()
            self._say(self._words())
            if self._is_done() or time.monotonic() > self._deadline:
                return
            reached = found.cost + float(self._penalty @ found.excess)
            settled = reached - self._bound <= 0.1 * self._settings.gap * max(reached, 0.0)
            if settled or (self._known() == before and np.allclose(price, found.price)):
                return
            price = found.price if self._known() == before else self._toward(found.price)

    def _toward(self, price: Array) -> Array:
        return np.asarray(self._best_price + _STEP * (price - self._best_price))

    def _known(self) -> int:
        return sum(len(one.columns) for one in self._members)

    def _in_parts(self) -> Choice:
        cost, taken = self._arrays()
        return in_parts(cost, taken, self._most, self._penalty)

    def _arrays(self) -> tuple[list[Array], list[Array]]:
        columns = [list(one.columns.values()) for one in self._members]
        return (
            [np.array([c.cost for c in each]) for each in columns],
            [np.array([c.taken for c in each]).reshape(len(each), -1) for each in columns],
        )

    def _choose(self) -> None:
        """Choose one known fleet for each service, by the program."""
        cost, taken = self._arrays()
        left = max(0.05, min(0.1 * self._settings.time_limit_s, self._deadline - time.monotonic()))
        found = whole(cost, taken, self._most, self._penalty, gap=0.1 * self._settings.gap, time_limit_s=left)
        if found is not None and not found.excess.any():
            columns = [list(one.columns.values())[c] for one, c in zip(self._members, found.chosen, strict=True)]
            self._offer(tuple(columns))

    def _diversify(self) -> None:
        """Add fleets at other prices: the program can only combine known fleets."""
        for multiple in _MULTIPLES:
            if self._is_done() or time.monotonic() > self._deadline:
                return
            self._priced(multiple * self._best_price)
            self._choose()

    def _replan(self) -> None:
        """Plan each service again with what the others leave of the pools, and with a little more and less."""
        for _ in range(_REPLANNED):
            before = self._known()
            cost, taken = self._arrays()
            found = whole(cost, taken, self._most, self._penalty, gap=0.0, time_limit_s=2.0)
            if found is None:
                return
            columns = [list(one.columns.values())[c] for one, c in zip(self._members, found.chosen, strict=True)]
            used = np.sum([one.taken for one in columns], axis=0)
            order = np.argsort([-float(one.taken @ self._best_price) for one in columns], kind="stable")
            for k in order.tolist():
                if time.monotonic() > self._deadline:
                    return
                member = self._members[k]
                rest = self._most - (used - columns[k].taken)
                steps = {0.0, *np.unique(member.draw[member.draw > 0]).tolist()}
                for more in sorted(steps)[:3]:
                    found_one = member.within(np.maximum(rest + more, 0.0), self._options, self._until())
                    if found_one is None or more:
                        continue
                    used = used - columns[k].taken + found_one.taken
                    columns[k] = found_one
            self._offer(tuple(columns))
            self._choose()
            self._say(self._words())
            if self._is_done() or self._known() == before:
                return

    def _excess(self) -> Choice | None:
        """The known fleets with the smallest excess over the pools."""
        cost, taken = self._arrays()
        return whole(cost, taken, self._most, self._penalty, gap=0.0, time_limit_s=5.0)

    def _until(self) -> float:
        now = time.monotonic()
        return now + max(0.05, _SHARE * (self._deadline - now))

    def _together(self) -> None:
        """Solve all services in one program."""
        found, bound = solve_together(
            self._members, self._most, self._best, gap=self._settings.gap, deadline=self._deadline
        )
        self._bound = max(self._bound, bound)
        if found is not None:
            self._offer(found)

    def _words(self) -> str:
        cost = "none yet" if self._best is None else f"{sum(one.cost for one in self._best):.2f} USD/h"
        return f"best {cost}, bound {self._bound:.2f} USD/h, {self._known()} fleets known"

    def _check_budget(self) -> None:
        most = self._pools.budget_per_h
        assert self._best is not None
        cost = sum(one.cost for one in self._best)
        if most is not None and cost > most * (1 + ROUNDING):
            least = max(self._bound, 0.0)
            proven = f"at least {enough(least)} USD/h is needed by any plan" if least > most else "none was found"
            raise ShortPoolsError(
                f"all services cost {enough(cost)} USD/h, and plan.budget_per_h is {most:g}",
                reasons=[f"budget: {proven}"],
                hint="raise the budget, or give services priorities: those of low priority are then served in part",
            )
