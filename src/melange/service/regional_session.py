"""A service with users in several places: its regions, the network time to each, and the fleets of all regions.

The estimate handles each pair of an origin and a region separately: the network time is subtracted from the limits on
TTFT and on latency. Then the fleets of all regions are found together. Each region's fleet is certified separately,
within the SLO less the longest network time of its requests.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from melange.catalog.round_trips import Trips, check_place, read_trips, round_trip_s
from melange.errors import Caution, InfeasibleError, InputError, SolverError, some_of
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.problem import Positions, limits_of
from melange.plan.question import Question
from melange.plan.regions.regional_plan import Flow, RegionalPlan
from melange.plan.regions.stacked import RegionalFleet, cheapest_in_regions
from melange.plan.solve import with_instances
from melange.profile.profile import Profile, ReplicaType
from melange.service.classes_refused import refuse_classes
from melange.service.events import Listener, silence, task
from melange.service.one_fleet_refused import refuse_two_pools
from melange.service.origins import rates_of_rows
from melange.service.regions_section import OriginSection, RegionsSection
from melange.service.session import Session
from melange.service.stages import profile_of
from melange.service.traffic_sections import SloSection
from melange.slo import Slo
from melange.units import GB, MS_PER_S, S_PER_H
from melange.workload.workload import Array, Workload

# Settings of a plan that plans of several regions support; for others, the message says what is not supported.
_FOLLOWED = {
    "headroom", "max_instances", "max_accelerators", "exclude", "drop_unservable", "time_limit_s", "gap", "seed",
}  # fmt: skip
# Below this share of an origin's requests, a flow is noise of the solver.
_NOISE = 1e-6
# Limits that the network time is subtracted from.
_WITH_WAY = ("ttft", "latency")


class RegionalSession:
    """A service with ``regions:``, opened once.

    Parameters
    ----------
    source
        A ``service.yaml``.
    settings
        ``key.key=value`` each, overriding the file.
    listener
        Called with progress events.

    Raises
    ------
    InputError
        A file that cannot be used, places that are in no table, or shares that do not add up to 1.
    """

    def __init__(self, source: str | Path, *, settings: Sequence[str] = (), listener: Listener = silence) -> None:
        self._listener = listener
        self._session = Session(source, settings=settings, listener=listener)
        service = self._session.service
        if service is None or service.regions is None:
            raise InputError(
                f"{source}: has no regions", hint="regions: {origins: {europe: {share: 1, at: frankfurt}}}"
            )
        refuse_classes(service, "regions")
        refuse_two_pools(service)
        self._section: RegionsSection = service.regions
        self._session.service = self._service = service.model_copy(update={"regions": None})
        if service.profile.source != ["estimate"]:
            raise InputError(
                "regions: needs estimates, since capacities depend on the SLO less the round trip",
                hint="remove profile.source",
            )
        self._own: Trips = {}
        if self._section.round_trips is not None:
            self._own = read_trips(service.path(self._section.round_trips))
        self._options = self._session.options
        default = Options()
        for name in Options.__slots__:
            if name not in _FOLLOWED and getattr(self._options, name) != getattr(default, name):
                raise InputError(
                    f"plan.{name} is for one region and not supported with regions:",
                    hint=f"remove it; supported: {', '.join(sorted(_FOLLOWED))}",
                )
        for name, origin in self._origins.items():
            check_place(origin.at, self._own, f"regions.origins.{name}.at")
        self._profiles: dict[tuple[str, float], Profile] = {}

    @property
    def name(self) -> str:
        """The name of the service on pages."""
        return self._session.name

    @property
    def _origins(self) -> Mapping[str, OriginSection]:
        return self._section.origins

    def plan(self) -> RegionalPlan:
        """The cheapest fleets of all regions by closed form, with a bound; nothing is simulated."""
        return self._answered(self._closed_form)

    def answer(self, *, burstiness: float | None = None) -> RegionalPlan:
        """The plan to deploy: each region's fleet certified as ``melange plan`` certifies one, on drawn requests."""

        def certified(region: str, question: Question, instances: Array) -> Plan:
            session = self._session_of(region, question)
            try:
                return session.answer(burstiness=burstiness)
            except InfeasibleError as error:
                raise InfeasibleError(f"{region}: {error}", reasons=error.reasons, hint=error.hint) from error

        return self._answered(certified)

    def _answered(self, planned: Callable[[str, Question, Array], Plan]) -> RegionalPlan:
        began = time.monotonic()
        workload, slo = self._session.workload(), self._session.slo
        everything, cautions = self._regions()
        ways = self._ways(list(everything), slo)
        types, region_of = self._types(everything)
        rates = self._rates(workload)
        speed = np.zeros((len(types), *rates.shape))
        way_s = np.zeros((len(types), len(rates)))
        for k, origin in enumerate(self._origins):
            for region, trip_s in ways[origin].items():
                here = np.array([one == region for one in region_of])
                speed[here, k] = self._profile(region, slo, trip_s).max_request_rate
                way_s[here, k] = trip_s
        self._check_served(speed, region_of, ways, rates, slo)
        egress = self._egress(region_of, workload)
        with self._task("planning all regions"):
            leaving = np.broadcast_to(egress[:, None, None, :], speed.shape)
            fleet = cheapest_in_regions(types, self._options, rates, speed, leaving, way_s)
        flows = self._flows(fleet, region_of, rates, ways, egress)
        plans = self._plans(planned, fleet, flows, types, region_of, rates, speed, ways)
        return RegionalPlan(
            plans=plans,
            flows=flows,
            bound_per_h=fleet.bound_per_h,
            solve_s=time.monotonic() - began,
            cautions=tuple(cautions),
        )

    def _rates(self, workload: Workload) -> Array:
        """Arrivals by origin and size (K, I, O) [1/s]."""
        shares = [one.share for one in self._origins.values() if one.share is not None]
        if shares:
            return np.asarray(np.array(shares)[:, None, None] * workload.request_rate)
        return rates_of_rows(self._service, self._origins) * workload.total_rate

    def _regions(self) -> tuple[dict[str, Profile], list[Caution]]:
        """Profiles of each region's offers, under the unreduced SLO."""
        whole = self._session.profile()
        names = sorted({one.offer.region for one in whole.replica_types})
        cautions = list(whole.cautions)
        starts = [one.at for one in self._origins.values()]
        placed = [name for name in names if name and any(self._trip(at, name) is not None for at in starts)]
        if lost := sorted({one.offer.provider for one in whole.replica_types if one.offer.region not in placed}):
            cautions.append(
                Caution("no-region", f"left out, since their round trips are unknown: offers of {some_of(lost)}")
            )
        if not placed:
            raise InputError(
                "regions: no offer is in a region with known round trips",
                hint="offers: {regions: [us-east-1, eu-central-1]}, or regions: {round_trips: own.csv}",
            )
        for name, origin in self._origins.items():
            for allowed in origin.allowed or ():
                if allowed not in placed:
                    raise InputError(
                        f"regions.origins.{name}.allowed: no offers in {allowed!r}",
                        hint=f"regions with offers: {', '.join(placed)}",
                    )
        return {name: _of_region(whole, name) for name in placed}, cautions

    def _trip(self, start: str, region: str) -> float | None:
        return round_trip_s(start, region, self._own)

    def _ways(self, regions: list[str], slo: Slo) -> dict[str, dict[str, float]]:
        """The round trip from each origin to its allowed regions, if it leaves time within the SLO [s]."""
        found: dict[str, dict[str, float]] = {}
        reasons = []
        for name, origin in self._origins.items():
            found[name] = {}
            why = []
            for region in regions:
                trip_s = self._trip(origin.at, region)
                if origin.allowed is not None and region not in origin.allowed:
                    why.append(f"{region} is not allowed")
                elif trip_s is None:
                    why.append(f"the round trip to {region} is unknown")
                elif limit := next((m for m in _WITH_WAY if m in slo.limits and slo.limits[m] <= trip_s), None):
                    word, most = limit.upper() if limit == "ttft" else limit, slo.limits[limit]
                    why.append(
                        f"{region} is {trip_s * MS_PER_S:.0f} ms away, but {word} may take {most * MS_PER_S:.0f} ms"
                    )
                else:
                    found[name][region] = trip_s
            if not found[name]:
                reasons.append(f"{name}: {'; '.join(why)}")
        if reasons:
            lacking = [name for name, ways in found.items() if not ways]
            raise InfeasibleError(
                f"no allowed region is close enough for {some_of(lacking)}",
                reasons=reasons,
                hint="allow more regions (regions.origins.NAME.allowed, offers.regions) or relax slo.ttft_ms",
            )
        return found

    @staticmethod
    def _types(everything: Mapping[str, Profile]) -> tuple[tuple[ReplicaType, ...], list[str]]:
        pairs = [(one, region) for region, profile in everything.items() for one in profile.replica_types]
        return tuple(one for one, _ in pairs), [region for _, region in pairs]

    def _profile(self, region: str, slo: Slo, trip_s: float) -> Profile:
        """The capacities of a region's types for requests with a given network time."""
        key = (region, trip_s)
        if key not in self._profiles:
            offers = self._service.offers.model_copy(update={"regions": [region]})
            service = self._service.model_copy(
                update={"offers": offers, "slo": SloSection.of(_less_the_way(slo, trip_s))}
            )
            with self._task(f"estimating the capacity in {region}") as tell:
                found = profile_of(service, self._session.workload(), self._session.catalog, tell)
            self._profiles[key] = _of_region(found, region)
        return self._profiles[key]

    def _check_served(
        self, speed: Array, region_of: list[str], ways: Mapping[str, Mapping[str, float]], rates: Array, slo: Slo
    ) -> None:
        """Raise an error that names the origins whose requests no region can serve within the remaining SLO."""
        reasons, lacking = [], []
        for k, (origin, trips) in enumerate(ways.items()):
            missing = (rates[k] > 0) & ~(speed[:, k] > 0).any(axis=0)
            if not missing.any() or (self._options.drop_unservable and (rates[k] > 0)[~missing].any()):
                continue
            part = float(rates[k][missing].sum() / rates[k].sum())
            way = "; ".join(f"{region}: {trip_s * MS_PER_S:.0f} ms round trip" for region, trip_s in trips.items())
            lacking.append(origin)
            reasons.append(f"{origin}: {part:.2%} of its requests fit nowhere within {slo} ({way})")
        if lacking:
            raise InfeasibleError(
                f"no allowed region serves all requests of {some_of(lacking)}",
                reasons=reasons,
                hint="allow closer regions, relax slo.ttft_ms, or plan for the rest: plan: {drop_unservable: true}",
            )

    def _egress(self, region_of: list[str], workload: Workload) -> Array:
        """The cost of a response that leaves a region, by type and output size (R, O) [USD]."""
        price = self._section.egress_usd_per_gb
        known = price if isinstance(price, dict) else {"default": price}
        if unnamed := sorted(set(known) - {*region_of, "default"}):
            raise InputError(
                f"regions.egress_usd_per_gb: no offers in {unnamed[0]!r}",
                hint=f"regions with offers: {', '.join(sorted(set(region_of)))}, or default",
            )
        per_byte = np.array([known.get(region, known.get("default", 0.0)) / GB for region in region_of])
        rate = workload.request_rate.sum(axis=0)
        tokens = (workload.output_tokens * workload.request_rate).sum(axis=0) / np.where(rate > 0, rate, 1.0)
        return np.asarray(per_byte[:, None] * self._section.bytes_per_token * tokens)

    def _flows(
        self,
        fleet: RegionalFleet,
        region_of: list[str],
        rates: Array,
        ways: Mapping[str, Mapping[str, float]],
        egress: Array,
    ) -> tuple[Flow, ...]:
        flows = []
        for k, (origin, trips) in enumerate(ways.items()):
            for region, trip_s in trips.items():
                here = np.array([one == region for one in region_of])
                sent = fleet.share[here, k] * rates[k]
                if sent.sum() <= _NOISE * rates[k].sum():
                    continue
                flows.append(
                    Flow(
                        origin=origin,
                        region=region,
                        flow_fraction=float(sent.sum() / rates[k].sum()),
                        request_rate=float(sent.sum()),
                        round_trip_s=trip_s,
                        egress_per_h=float((S_PER_H * sent * egress[here][:, None, :]).sum()),
                    )
                )
        return tuple(flows)

    def _plans(
        self,
        planned: Callable[[str, Question, Array], Plan],
        fleet: RegionalFleet,
        flows: tuple[Flow, ...],
        types: tuple[ReplicaType, ...],
        region_of: list[str],
        rates: Array,
        speed: Array,
        ways: Mapping[str, Mapping[str, float]],
    ) -> dict[str, Plan]:
        """Each region's plan for its share of the traffic, within the shared limits that other regions leave."""
        workload, slo = self._session.workload(), self._session.slo
        origins, taken = list(ways), fleet.instances.copy()
        plans: dict[str, Plan] = {}
        for region in dict.fromkeys(one.region for one in flows):
            here = np.flatnonzero([one == region for one in region_of])
            sources = [
                k for k, origin in enumerate(origins) if any((f.origin, f.region) == (origin, region) for f in flows)
            ]
            longest = max(ways[origins[k]][region] for k in sources)
            sent = np.stack([(fleet.share[here, k] * rates[k]) for k in sources], axis=1)  # (R, K, I, O)
            rate = sent.sum(axis=(0, 1))
            base = self._profile(region, slo, longest)
            own = replace(workload, request_rate=rate, cautions=())
            with np.errstate(divide="ignore", invalid="ignore"):
                load = np.where(sent > 0, sent / speed[here][:, sources], 0.0).sum(axis=1)
                mixed = np.where(load > 0, sent.sum(axis=1) / load, base.max_request_rate)
            effective = replace(
                base, max_request_rate=mixed, low=np.minimum(base.low, mixed), high=np.maximum(base.high, mixed)
            )
            others = taken.copy()
            others[here] = 0.0
            options = self._limits_for(base, types, here, others)
            profile = effective if planned == self._closed_form else base
            question = Question(workload=own, profile=profile, options=options)
            plans[region] = planned(region, question, fleet.instances[here])
            taken[here] = plans[region].instances
        return plans

    def _closed_form(self, region: str, question: Question, instances: Array) -> Plan:
        plan = with_instances(question, instances.astype(np.int64))
        if plan is None or float((plan.load / (1 - question.options.headroom)).max()) > 1 + 1e-6:
            raise SolverError(f"{region}: its fleet cannot serve the requests routed to it", hint="this is a bug")
        return replace(plan, bound_per_h=None, gap=1.0, status="several regions", service_file=self._session.name)

    def _limits_for(self, profile: Profile, types: tuple[ReplicaType, ...], here: Positions, others: Array) -> Options:
        """The options of a region (``here``): what the ``others`` leave of each limit that applies to its types."""
        left: dict[str, dict[str, int]] = {"instances": {}, "accelerators": {}}
        for limit in limits_of(types, self._options):
            if np.isin(limit.members, here).any():
                kind, _, name = limit.name.partition(" of ")
                left[kind][name] = max(0, int(limit.most - float(limit.taken(others))))
        known = {one.name for one in profile.replica_types} | {one.offer.accelerator for one in profile.replica_types}
        return replace(
            self._options,
            max_instances=left["instances"],
            max_accelerators=left["accelerators"],
            exclude=tuple(name for name in self._options.exclude if name in known),
        )

    def _session_of(self, region: str, question: Question) -> Session:
        """A session of one region, with its own traffic and the SLO less the network time."""
        own = copy.copy(self._session)
        slo = question.profile.slo
        assert slo is not None
        own.service = self._service.model_copy(
            update={
                "slo": SloSection.of(slo),
                "offers": self._service.offers.model_copy(update={"regions": [region]}),
            }
        )
        own._workload_file = Path("the requests routed to it")  # no log is replayed: a region serves only a part of it
        own.__dict__.update(slo=slo, options=question.options, _workload=question.workload, _profile=question.profile)
        return own

    def _task(self, words: str) -> AbstractContextManager[Callable[[float | str], None]]:
        return task(self._listener, words)


def _less_the_way(slo: Slo, trip_s: float) -> Slo:
    """An SLO less the network time."""
    limits = {f"{m}_s": limit - (trip_s if m in _WITH_WAY else 0.0) for m, limit in slo.limits.items()}
    return Slo.from_json(slo.to_json() | limits)


def _of_region(profile: Profile, region: str) -> Profile:
    """The types of a profile that are in a region."""
    here = np.array([one.offer.region == region for one in profile.replica_types])
    return _picked(profile, here)


def _picked(profile: Profile, kept: Array) -> Profile:
    arrays = {
        name: getattr(profile, name)[kept] for name in ("max_request_rate", "low", "high", "provenance", "reason")
    }
    where = np.flatnonzero(kept)
    engines = tuple(profile.engines[r] for r in where) if profile.engines else ()
    return replace(profile, replica_types=tuple(profile.replica_types[r] for r in where), engines=engines, **arrays)
