"""Several services on shared pools, opened once: a session for each service, their pools, and the joint plan.

Services are planned and certified separately. Only if a pool is then short, the closed form searches for the fleets of
all services together, and each service is certified again within its part of the pools.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from melange.catalog.catalog import Catalog
from melange.errors import Caution, InfeasibleError, InputError, SolverError
from melange.plan.joint.joint_plan import JointPlan, ServicePlan, pool_uses
from melange.plan.joint.member import Column, Member
from melange.plan.joint.next_unit import Exchange, exchanges
from melange.plan.joint.priorities import Fitted, fit
from melange.plan.joint.shared_pools import Pools, pools_of
from melange.plan.joint.solve_jointly import JointFleets, JointSettings
from melange.plan.plan import Plan
from melange.plan.question import Question
from melange.plan.solve import with_instances
from melange.service.classes_refused import refuse_classes
from melange.service.events import Listener, silence, task
from melange.service.fleet_file import FleetFile, ServiceEntry, read_fleet, refuse_own_aims
from melange.service.one_fleet_refused import refuse_two_pools
from melange.service.schema import Service
from melange.service.session import Session
from melange.workload.workload import Array

# Rounds in which services that could not be certified within their part of the pools ask for more, and the factor. A
# certified fleet needs up to 1.5 times what the closed form says.
_ROUNDS, _MORE = 5, 1.12
# Most services whose exchanges are computed: each takes two integer programs per pool.
_MOST_EXCHANGED = 16
# Most certificates that are computed to find who would take the next unit of a pool: each takes some seconds.
_MOST_CERTIFIED = 8

# For each pool, who would take one unit more and who would give one up; None if this was not asked for.
Ends = list[tuple[Exchange | None, Exchange | None]] | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Entry:
    """A service of the file, opened."""

    name: str
    priority: int
    session: Session


class FleetSession:
    """Services on shared pools, opened once.

    Parameters
    ----------
    source
        A ``fleet.yaml``.
    settings
        ``key.key=value`` each, overriding the file.
    listener
        Called with progress events.

    Raises
    ------
    InputError
        A file that cannot be used, or a service with a budget of its own, which asks for the most traffic instead.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        settings: Sequence[str] = (),
        drop_unservable: bool = False,
        listener: Listener = silence,
    ) -> None:
        self.source, self._listener = Path(source), listener
        self._more = ["plan.drop_unservable=true"] if drop_unservable else []
        self._file: FleetFile = read_fleet(source, settings)
        self._entries = [self._opened(entry, ()) for entry in self._file.services]

    @property
    def name(self) -> str:
        """The name of the file on pages."""
        return self.source.name

    def _opened(self, entry: ServiceEntry, settings: Sequence[str]) -> _Entry:
        session = Session(self._file.path(entry), settings=[*self._more, *settings], listener=self._listener)
        if session.service is None:
            raise InputError(
                f"{self.source}: services: {entry.file} is not a service.yaml", hint="melange init writes one"
            )
        refuse_classes(session.service, f"{self.source}")
        refuse_two_pools(session.service)
        refuse_own_aims(session.service.plan, entry.file, self.source)
        session.service = _narrowed(session.service, self._file, entry, session.catalog)
        return _Entry(name=entry.name, priority=entry.priority, session=session)

    def pools(self) -> Pools:
        """The shared limits: those of the file, and stocks of offers that several services may rent."""
        profiles = [one.session.profile() for one in self._entries]
        items = [item for profile in profiles for item in profile.replica_types]
        given, catalog = self._file.offers.max, self._entries[0].session.catalog
        last = {name.rpartition("/")[2] for name in given} | set(given)
        known = {name: found for name in last if (found := catalog.find_accelerator(name)) is not None}
        pools = pools_of(given, items, known, self._file.plan.budget_per_h)
        return pools.with_stock(profiles)

    def plan(self) -> JointPlan:
        """The cheapest fleets of all services by closed form, with a bound; nothing is simulated."""
        questions, pools = self._questions(), self.pools()
        with self._task("planning all services") as tell:
            fitted = fit(questions, self._priorities, pools, self._settings, tell)
        ends = self._ends(fitted, pools)
        plans, files = {}, {one.name: one.session.name for one in self._entries}
        for member, column in zip(fitted.members, fitted.fleets.columns, strict=True):
            part = np.where(fitted.fleets.price > 0, column.taken, pools.most)
            found = _closed_form(pools.bounded(member.question, part), member, column)
            plans[member.name] = replace(found, service_file=files[member.name])
        return self._joint(fitted, pools, plans, ends, bound=fitted.fleets.bound_per_h)

    def answer(self, *, burstiness: float | None = None) -> JointPlan:
        """The joint plan to deploy: each service's plan certified as ``melange plan`` certifies one.

        Parameters
        ----------
        burstiness
            Coefficient of variation of the times between simulated arrivals; None: as in each service's log if it has
            one, else Poisson.
        """
        pools = self.pools()

        def certified(entry: _Entry, most: Array) -> Plan:
            session = _with_question(entry.session, pools.bounded(entry.session.question(), most))
            return session.answer(burstiness=burstiness)

        questions, apart = self._questions(), {}
        for one in self._entries:
            try:
                apart[one.name] = certified(one, pools.most)
            except InfeasibleError as error:
                raise InfeasibleError(f"{one.name}: {error}", reasons=error.reasons, hint=error.hint) from error
        if _fits(apart, pools):
            fitted, plans = _as_fitted(apart, pools), dict(apart)
        else:
            fitted, plans = self._certified_together(questions, apart, pools, certified)
        ends = self._certified_ends(plans, fitted, pools, certified)
        bounds = [plan.bound_per_h for plan in plans.values()]
        bound = None if None in bounds else float(sum(b for b in bounds if b is not None))
        return self._joint(fitted, pools, plans, ends, bound=bound, apart=apart)

    def _certified_together(
        self,
        questions: Mapping[str, Question],
        apart: Mapping[str, Plan],
        pools: Pools,
        certified: Callable[[_Entry, Array], Plan],
    ) -> tuple[Fitted, dict[str, Plan]]:
        """Plans within the pools: the closed form plans all fleets, then each service is certified within its part.

        The traffic in the closed form is scaled up by the cost ratio of a certified fleet to the closed form's fleet.
        If a service cannot be certified within its part, it asks for more, and all services are planned again.
        """
        factor = {name: _over_closed_form(plan) for name, plan in apart.items()}
        failed: dict[str, InfeasibleError] = {}
        for _ in range(_ROUNDS):
            inflated = {name: one.at_rate(factor[name] * one.workload.total_rate) for name, one in questions.items()}
            with self._task("planning all services within the pools") as tell:
                fitted = fit(inflated, self._priorities, pools, self._settings, tell)
            entries = [one for one in self._entries if fitted.served_fraction[one.name] > 0]
            taken = {m.name: c.taken for m, c in zip(fitted.members, fitted.fleets.columns, strict=True)}
            plans: dict[str, Plan] = {}
            failed = {}
            for one in sorted(entries, key=lambda one: (-one.priority, float(taken[one.name].sum()))):
                rest = pools.most - sum(use for name, use in taken.items() if name != one.name)
                share = fitted.served_fraction[one.name]
                entry = one if share == 1 else self._at_share(one, share)
                try:
                    plan = certified(entry, rest)
                except InfeasibleError as error:
                    failed[one.name] = error
                    factor[one.name] *= _MORE
                    continue
                if plan.holds is False and apart[one.name].holds is not False:
                    failed[one.name] = InfeasibleError(
                        f"{one.name}: no fleet within its part of the pools meets the SLO"
                    )
                    factor[one.name] *= _MORE
                    continue
                plans[one.name] = plan
                taken[one.name] = pools.draw(plan.replica_types) @ plan.instances
            if not failed and _fits(plans, pools):
                self._improve(plans, apart, fitted, pools, certified)
                return fitted, {one.name: plans[one.name] for one in self._entries if one.name in plans}
        names = ", ".join(failed) or "all services"
        reasons = [f"{name}: {error}" for name, error in failed.items()]
        raise InfeasibleError(
            f"no fleets that meet the SLO were found within the pools for {names}",
            reasons=reasons,
            hint="raise offers.max; --quick plans by closed form and simulates nothing",
        )

    def _improve(
        self,
        plans: dict[str, Plan],
        apart: Mapping[str, Plan],
        fitted: Fitted,
        pools: Pools,
        certified: Callable[[_Entry, Array], Plan],
    ) -> None:
        """Certify services once more within all that the others leave: some now need less than was planned for them."""
        for one in self._entries:
            if fitted.served_fraction[one.name] < 1 or plans[one.name].cost_per_h <= apart[one.name].cost_per_h:
                continue
            tried = _certified_or_none(certified, one, _rest(plans, one.name, pools))
            before = plans[one.name]
            if tried is not None and tried.holds == before.holds and tried.cost_per_h < before.cost_per_h:
                plans[one.name] = tried

    def _certified_ends(
        self, plans: Mapping[str, Plan], fitted: Fitted, pools: Pools, certified: Callable[[_Entry, Array], Plan]
    ) -> Ends:
        """Who would take the next unit of each exhausted pool, by certified plans; giving up a unit is not computed."""
        ends: list[tuple[Exchange | None, Exchange | None]] = []
        budget = _MOST_CERTIFIED
        for j in range(len(pools.names)):
            draws = {name: pools.draw(plan.replica_types)[j] for name, plan in plans.items()}
            left = pools.most[j] - sum(float(draws[name] @ plan.instances) for name, plan in plans.items())
            users = [one for one in self._entries if one.name in plans and draws[one.name].any()]
            found = []
            for one in users:
                unit = float(draws[one.name][draws[one.name] > 0].min())
                is_short = fitted.fleets.price[j] > 0 and left < unit and fitted.served_fraction[one.name] == 1
                if not is_short or budget <= 0:
                    continue
                budget -= 1
                rest = _rest(plans, one.name, pools)
                rest[j] += unit
                more = _certified_or_none(certified, one, rest)
                if more is not None and more.cost_per_h < plans[one.name].cost_per_h and more.holds is not False:
                    found.append(
                        Exchange(
                            service=one.name,
                            units=float(pools.draw(more.replica_types)[j] @ more.instances)
                            - float(draws[one.name] @ plans[one.name].instances),
                            cost_per_h=more.cost_per_h - plans[one.name].cost_per_h,
                            changes=more.changes_from(plans[one.name]),
                        )
                    )
            ends.append((min(found, key=lambda one: one.cost_per_h, default=None), None))
        return ends

    def _at_share(self, entry: _Entry, share: float) -> _Entry:
        """The service with a share of its traffic."""
        rate = share * entry.session.workload().total_rate
        wanted = next(one for one in self._file.services if one.name == entry.name)
        return self._opened(wanted, [f"workload.rate={rate!r}"])

    @property
    def _priorities(self) -> dict[str, int]:
        return {one.name: one.priority for one in self._entries}

    @property
    def _settings(self) -> JointSettings:
        return JointSettings(gap=self._file.plan.gap, time_limit_s=self._file.plan.time_limit_s)

    def _questions(self) -> dict[str, Question]:
        return {one.name: one.session.question() for one in self._entries}

    def _ends(self, fitted: Fitted, pools: Pools) -> Ends:
        if not pools.names or len(fitted.members) > _MOST_EXCHANGED:
            return None
        with self._task("computing the value of one more accelerator"):
            return exchanges(fitted.members, pools, fitted.fleets)

    def _joint(
        self,
        fitted: Fitted,
        pools: Pools,
        plans: Mapping[str, Plan],
        ends: Ends,
        *,
        bound: float | None,
        apart: Mapping[str, Plan] | None = None,
    ) -> JointPlan:
        alone = {m.name: float(c) for m, c in zip(fitted.members, fitted.fleets.apart_per_h, strict=True)}
        alone |= {name: plan.cost_per_h for name, plan in (apart or {}).items()}
        cautions = []
        for name, share in fitted.served_fraction.items():
            if share < 1:
                cautions.append(
                    Caution("short-pool", f"the pools are too small: {name} is planned for {share:.0%} of its traffic")
                )
        services = tuple(
            ServicePlan(
                name=one.name,
                priority=one.priority,
                served_fraction=fitted.served_fraction[one.name],
                apart_per_h=alone.get(one.name),
                plan=plans.get(one.name),
            )
            for one in self._entries
        )
        return JointPlan(
            services=services,
            pools=pool_uses(pools, dict(plans), fitted.fleets.price, ends),
            budget_per_h=pools.budget_per_h,
            bound_per_h=bound,
            solve_s=fitted.fleets.solve_s,
            cautions=tuple(cautions),
        )

    def _task(self, words: str) -> AbstractContextManager[Callable[[float | str], None]]:
        return task(self._listener, words)


def _narrowed(service: Service, file: FleetFile, entry: ServiceEntry, catalog: Catalog) -> Service:
    """The service, with its offers limited to the file's offers."""
    shared, own = file.offers, service.offers
    changes: dict[str, list[str]] = {}
    for key in ("gpus", "providers", "regions"):
        names, mine = getattr(shared, key), getattr(own, key)
        if names is None:
            continue
        kept = names
        if mine is not None:
            allowed = {_folded(name, catalog) for name in names}
            kept = [name for name in mine if _folded(name, catalog) in allowed]
        if not kept:
            raise InputError(
                f"{entry.file}: offers.{key}: none of {', '.join(mine or ())} is among those that all services share",
                hint=f"offers.{key} of the file of all services: {', '.join(names)}",
            )
        changes[key] = kept
    return service.model_copy(update={"offers": own.model_copy(update=changes)})


def _folded(name: str, catalog: Catalog) -> str:
    return (catalog.find_accelerator(name) or name).casefold()


def _with_question(session: Session, question: Question) -> Session:
    """The session with the limits of its own question."""
    limited = copy.copy(session)
    limited.__dict__["options"] = question.options
    return limited


def _closed_form(question: Question, member: Member, column: Column) -> Plan:
    """A service's fleet as a separate plan, with its part of each short pool as a limit."""
    instances = np.zeros(len(question.profile.replica_types), np.int64)
    instances[member.problem.types] = column.instances
    plan = with_instances(question, instances)
    if plan is None:
        raise SolverError(f"{member.name}: its fleet breaks its own limits", hint="this is a bug")
    if float((plan.load / (1 - question.options.headroom)).max()) > 1 + 1e-6:
        raise SolverError(f"{member.name}: its fleet is overloaded", hint="this is a bug")
    return replace(plan, bound_per_h=None, gap=1.0, status="shared pools")


def _over_closed_form(plan: Plan) -> float:
    """Cost of a certified fleet over the closed form's: the factor by which the planned traffic is scaled up."""
    found = plan.certificate
    return 1.0 if found is None or found.cost_before_per_h <= 0 else plan.cost_per_h / found.cost_before_per_h


def _rest(plans: Mapping[str, Plan], name: str, pools: Pools) -> Array:
    """The part of each pool that the other services leave (J,)."""
    others = (pools.draw(one.replica_types) @ one.instances for key, one in plans.items() if key != name)
    return np.asarray(pools.most - sum(others, np.zeros(len(pools.names))))


def _certified_or_none(certified: Callable[[_Entry, Array], Plan], entry: _Entry, most: Array) -> Plan | None:
    try:
        return certified(entry, most)
    except InfeasibleError:
        return None


def _fits(plans: Mapping[str, Plan], pools: Pools) -> bool:
    """Whether the plans together keep within the pools and the budget."""
    taken = sum((pools.draw(one.replica_types) @ one.instances for one in plans.values()), np.zeros(len(pools.names)))
    cost, most = sum(one.cost_per_h for one in plans.values()), pools.budget_per_h
    return bool((taken <= pools.most + 1e-6).all()) and (most is None or cost <= most * (1 + 1e-9))


def _as_fitted(plans: Mapping[str, Plan], pools: Pools) -> Fitted:
    """Separate plans that fit without changes: no pool has a price."""
    nothing = JointFleets(
        columns=(), bound_per_h=0.0, price=np.zeros(len(pools.names)), apart_per_h=np.empty(0), solve_s=0.0
    )
    return Fitted(served_fraction=dict.fromkeys(plans, 1.0), members=(), fleets=nothing)
