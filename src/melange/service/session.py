"""One service, opened once: its inputs, and the questions that it can answer for a command, a page or a notebook."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from melange.errors import InputError
from melange.plan.options import Options
from melange.plan.question import Question
from melange.service.caution_words import with_word_on_arrivals, with_words
from melange.service.changes import Changes, changes_of
from melange.service.events import Listener, silence, task
from melange.service.given import check_workload, given_profile, refuse_schedule
from melange.service.one_fleet_refused import refuse_regions, refuse_two_pools
from melange.service.reading import (
    read_plan_section,
    read_section,
    read_service,
    read_slo_section,
    text_of_service,
    with_anchors,
)
from melange.service.schema import Service
from melange.service.size import too_large
from melange.service.traffic_sections import LOGS, WorkloadSection

if TYPE_CHECKING:
    from melange.catalog.catalog import Catalog
    from melange.measure.subject import Subject
    from melange.plan.explain import Explanation
    from melange.plan.plan import Plan
    from melange.plan.schedule.schedule import Schedule
    from melange.plan.suggest import Suggestion
    from melange.plan.sweeps import Exploration
    from melange.profile.profile import Profile
    from melange.slo import Slo
    from melange.workload.arrivals import Arrivals
    from melange.workload.demand import Demand
    from melange.workload.workload import Array, Workload


def is_service(source: str | Path) -> bool:
    """Whether a file describes a service, judged by its suffix."""
    return Path(source).suffix in {".yaml", ".yml"}


class Session:
    """A service and the operations on it; results are cached.

    Parameters
    ----------
    source
        A ``service.yaml`` or a configuration of the authors' release; None if files or flags replace it.
    workload
        A ``workload.json`` instead of the service's traffic.
    profiles
        Profile files instead of the service's capacities; their replica types must differ.
    settings
        ``key.key=value`` each, overriding the service.
    flags
        Sections ``workload`` and ``slo`` given by flags, instead of the service's.
    anchors
        Load-test results in addition to the service's own, relative to the working directory.
    factors
        Step times that a balancer has learned (its ``/factors.json``).
    listener
        Called with progress events.

    Raises
    ------
    InputError
        A file that cannot be used, or no input at all.

    Examples
    --------
    >>> session = Session("examples/chat.yaml", settings=["workload.rate=4"])
    >>> round(session.workload().total_rate, 6)
    4.0
    """

    def __init__(
        self,
        source: str | Path | None = None,
        *,
        workload: str | Path | None = None,
        profiles: Sequence[str | Path] = (),
        settings: Sequence[str] = (),
        flags: Mapping[str, Mapping[str, Any]] | None = None,
        anchors: Sequence[str] = (),
        factors: str | Path | None = None,
        listener: Listener = silence,
    ) -> None:
        self.source = None if source is None else Path(source)
        self.settings, self.listener = tuple(settings), listener
        self._workload_file, self._profile_files = workload, tuple(profiles)
        self._flags = dict(flags or {})
        self.service: Service | None = None
        if self.source is not None and is_service(self.source):
            self._text = text_of_service(self.source)
            self.service = with_anchors(read_service(self.source, settings, self._text), anchors, factors)
        elif anchors or factors:
            raise InputError(f"{self.source}: anchors and observed factors need a service.yaml")

    @property
    def name(self) -> str:
        """The name of the service on pages."""
        return self.source.name if self.source is not None else "a workload and a profile"

    @cached_property
    def catalog(self) -> Catalog:
        """The bundled accelerators, models and offers."""
        from melange.catalog.catalog import load_catalog

        return load_catalog()

    @cached_property
    def options(self) -> Options:
        """The settings of the plan stage, with the service's availability limits."""
        from melange.service.stages import options_of

        if self.service is not None:
            return options_of(self.service, self.catalog)
        return read_plan_section({} if self._release is None else self._release[2], self.settings).to_options({}, {})

    @cached_property
    def slo(self) -> Slo:
        """The objective: from flags, or else from the service."""
        if "slo" in self._flags:
            return read_slo_section(self._flags["slo"]).to_slo()
        if self.service is None:
            raise InputError("an SLO is needed", hint="--slo tpot_ms=60, or a service.yaml")
        return self.service.to_slo()

    def workload(self) -> Workload:
        """Request rates by size."""
        return self._workload

    def demand(self) -> Demand:
        """Request rates over time, window by window."""
        from melange.service.demand_of import demand_of

        section, path = self._traffic()
        with self._task("reading the traffic over time") as tell:
            return demand_of(section, path, tell)

    def schedule(self, *, quick: bool = False) -> Schedule:
        """What to reserve, and which instances follow the traffic; ``quick`` simulates no request."""
        from melange.service.scheduling import schedule_of

        return schedule_of(self, self._needed(), self._task, quick=quick)

    def profile(self) -> Profile:
        """The rate that one replica of each type serves within the SLO."""
        return self._profile

    def question(self) -> Question:
        """The problem that a plan answers."""
        from melange.plan.bindings import INSTANCE_TYPE, OFFER, REPLICA_TYPE, check_one_meaning

        refuse_two_pools(self.service)
        if self.service is not None:
            kinds = (OFFER, INSTANCE_TYPE, REPLICA_TYPE)  # the file has one place for the limits of all three
            check_one_meaning(self.options.max_accelerators, self._profile.replica_types, kinds, "offers.max")
        return Question(workload=self._workload, profile=self._profile, options=self.options)

    def answer(self, *, incumbent: Plan | None = None, burstiness: float | None = None) -> Plan:
        """The plan to deploy: certified by simulation.

        If the SLO limits a mean or a percentile, the plan is proven under that statistic and simulated once to state
        the share of requests that meet the limits. The same applies under a budget, and if no request may miss. If the
        plan cannot be simulated, the closed form alone gives it, with the reason in ``not_simulated``.

        Parameters
        ----------
        incumbent
            The current plan, as for :meth:`plan`.
        burstiness
            Coefficient of variation of the times between simulated arrivals; 1 is Poisson. None: as in the service's
            own log if it has one, else Poisson.
        """
        from melange.validate.evidence import is_certifiable, why_not_simulated

        question = self.question()
        slo, reason = question.profile.slo, why_not_simulated(question) or too_large(question)
        if not reason and is_certifiable(question):
            return self.certified(incumbent=incumbent, burstiness=burstiness)
        proven = self.plan(incumbent=incumbent)
        if slo is not None and not is_certifiable(question):
            reason = why_not_simulated(question, proven.instances > 0) or too_large(question)
        return replace(proven, not_simulated=reason) if reason else self._simulated(proven, burstiness)

    def _simulated(self, plan: Plan, burstiness: float | None) -> Plan:
        """The plan with the result of one simulation."""
        from melange.replica.simulated.kernel import compilation_told
        from melange.validate.evidence import with_simulation

        observed = self.observed()
        with self._task("simulating the plan") as tell, compilation_told(tell):
            return with_simulation(plan, observed=observed, burstiness=burstiness)

    def plan(self, *, incumbent: Plan | None = None) -> Plan:
        """The cheapest fleet by closed form, with its proof; nothing is simulated.

        Parameters
        ----------
        incumbent
            The current plan: among plans of equal cost, the one that changes the fewest instances is chosen.
        """
        from melange.plan.solve import solve

        question = self.question()
        with self._task("solving for the cheapest mix") as tell:
            return self._finished(solve(question, incumbent=incumbent, progress=tell))

    def certified(self, *, incumbent: Plan | None = None, burstiness: float | None = None) -> Plan:
        """The cheapest plan that a simulation certifies, on the service's own log if it has one.

        Parameters
        ----------
        incumbent
            The current plan: of certified plans with equal cost, the one that changes the fewest instances.
        burstiness
            Coefficient of variation of the times between arrivals, with sizes drawn from the log; 1 is Poisson. None:
            the log's requests as recorded, or Poisson without a log.
        """
        from melange.replica.simulated.kernel import compilation_told
        from melange.service.certified import certified_plan

        question, observed = self.question(), self.observed()
        if reason := too_large(question):
            raise InputError(f"cannot certify: {reason}", hint="--quick plans by closed form")
        with self._task("simulating plans") as tell, compilation_told(tell):
            found = certified_plan(self.service, question, burstiness, observed, incumbent, tell)
        return self._finished(found if burstiness is not None else with_word_on_arrivals(found, observed))

    def explanation(self, plan: Plan) -> Explanation:
        """What would change the plan, and how large the change must be."""
        from melange.plan.explain import explain

        with self._task("checking what would change the answer"):
            return explain(plan)

    def suggestions(self, count: int) -> tuple[Suggestion, ...]:
        """The most valuable measurements, up to ``count``."""
        from melange.plan.suggest import suggest_measurements

        question = self.question()
        with self._task("computing the value of measurements"):
            return suggest_measurements(question, count=count, in_flight=self._in_flight())

    def explore(self, plan: Plan | None = None, interval_of: Collection[int] | None = None) -> Exploration:
        """Plans at other rates and under other limits, by closed form, near a plan or near the service's answer.

        ``interval_of`` gives the positions of replica types whose intervals under other limits are needed: then
        estimates leave out intervals of other types, and sizes that the traffic lacks. None: all of them.
        """
        from melange.plan.sweeps import explore

        chosen = self.answer() if plan is None else plan
        with self._task("planning for") as tell:
            return explore(chosen, self._profile_at(interval_of), progress=tell)

    def subject(self, name: str) -> Subject:
        """A replica type of the service to be measured; ``name`` is its own or its accelerator's."""
        from melange.service.stages import subject_of

        if self.service is None:
            raise InputError("measure: a service is needed for its replica types", hint="give the service.yaml")
        return subject_of(self.service, self.slo, self._workload, self.catalog, name)

    def observed(self) -> Arrivals | None:
        """The requests of the service's log; None if its traffic is not a complete log with arrival times.

        The pace is the log's own, or the service's rate if that is a number. A statistic of the log, such as ``p99`` of
        its windows, is only where a plan starts; it does not speed up the log.
        """
        if self._workload_file is not None or (self.service is None and "workload" not in self._flags):
            return None
        section, path = self._traffic()
        if section.source[0] not in LOGS or section.start is not None or section.end is not None:
            return None  # part of a log: the buckets know it, the reader does not
        from melange.service.classes import observed_of_classes
        from melange.workload.arrivals import has_arrival_times, read_arrivals
        from melange.workload.layouts import Naming

        workload, log = self._workload, section.log(path)
        naming = Naming(columns=section.columns, trace_format=section.format, where=section.where)
        if not has_arrival_times(log, **naming):
            return None
        with self._task("reading the log's requests") as tell:
            arrivals = read_arrivals(log, progress=tell, **naming)
        if (classed := observed_of_classes(self.service, arrivals)) is None:
            return None
        kept = classed.planned(workload, is_upper=section.size == "upper")
        is_own_pace = section.rate is None or isinstance(section.rate, str) or not kept.has_pace
        return kept if is_own_pace else kept.at_rate(workload.total_rate)

    @cached_property
    def _release(self) -> tuple[Workload, Profile, dict[str, Any]] | None:
        """The configuration of the authors' release; None if the source is not one."""
        if self.source is None or self.service is not None:
            return None
        from melange.profile.formats.profiles import read_melange_config

        return read_melange_config(self.source)

    @cached_property
    def _workload(self) -> Workload:
        from melange.service.classes import workload_with_classes
        from melange.service.stages import workload_of
        from melange.workload.workload import Workload

        if self._workload_file is not None:
            found = Workload.read(self._workload_file)
            check_workload(found, str(self._workload_file), self._changes(), self.service)
            return found
        if "workload" not in self._flags and self._release is not None:
            return self._release[0]
        section, path = self._traffic()
        with self._task("reading the traffic") as tell:
            whole = workload_of(section, path, tell, self._max_context)
            return workload_with_classes(self.service, whole, tell, self._max_context)

    def _max_context(self) -> int | None:
        """The longest request of the service's model [tokens]; None without a service."""
        from melange.service.stages import model_of

        return None if self.service is None else model_of(self.service).max_context

    def _traffic(self) -> tuple[WorkloadSection, Callable[[str], Path]]:
        """The section that describes the traffic, and the folder its file names are relative to."""
        if "workload" in self._flags:
            of_traffic = [one for one in self.settings if one.startswith("workload.")]
            return read_section(self._flags["workload"], of_traffic if self.service else self.settings), Path
        service = self._needed()
        return service.workload, service.path

    def _needed(self) -> Service:
        """The service, if no file replaces it."""
        if self.service is None:
            raise InputError(
                "a service.yaml is needed, or both --workload and --profile", hint="melange init writes one"
            )
        return self.service

    @cached_property
    def _profile(self) -> Profile:
        refuse_regions(self.service)
        refuse_schedule(self.service, self.settings)
        from melange.service.stages import profile_of

        if self._profile_files:
            return given_profile(self._profile_files, self.service, self._changes(), self.catalog)
        if self._release is not None:
            return self._release[1]
        service, workload = self._needed(), self._workload
        verb = "simulating" if service.is_simulated else "estimating"
        with self._task(f"{verb} the capacity of each replica type") as tell:
            return profile_of(service, workload, self.catalog, tell)

    def _changes(self) -> Changes:
        return Changes() if self.service is None else changes_of(self.service, self._text, self.settings)

    def _profile_at(self, interval_of: Collection[int] | None = None) -> Callable[[Slo], Profile] | None:
        """Estimates under other SLOs; None if capacities are given, need a simulation, or belong to several classes."""
        from melange.service.profile_at import ProfileAt

        service = self.service
        if service is None or self._profile_files or not service.is_estimated_anywhere:
            return None
        if self.options.confidence is not None:  # plans with a confidence need all intervals
            interval_of = None
        return ProfileAt.showing(interval_of, service=service, workload=self._workload, catalog=self.catalog)

    def _in_flight(self) -> Array | None:
        from melange.profile.in_flight import in_flight

        return in_flight(self._profile, self._workload)

    def _finished(self, plan: Plan) -> Plan:
        """The plan with cautions, with its service's file, and with the cost of uncertainty if asked for."""
        from melange.plan.uncertainty import with_uncertainty

        file = self.source.name if self.source is not None and self.service is not None else ""
        plan = with_words(replace(plan, service_file=file), self.options)
        if plan.options.confidence is None:
            return plan
        with self._task("computing the cost of uncertainty"):
            return with_uncertainty(plan, in_flight=self._in_flight())

    def _task(self, words: str) -> AbstractContextManager[Callable[[float | str], None]]:
        return task(self.listener, words)
