"""A server without datasheet estimates: only load points give its profile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.catalog.offer import Offer
from melange.errors import Caution
from melange.measure.steps import EngineLimits, fit_engine, one_layer, replicas_with, spread_at
from melange.measure.subject import Subject, completed, divided
from melange.plan.options import Options
from melange.profile.correction import INTERVAL
from melange.profile.estimate_inputs import planned_sizes
from melange.profile.measurement import Measurement
from melange.profile.profile import ANCHORED, Profile, ReplicaType
from melange.profile.rate_cache import RateCache
from melange.replica.capacity import max_request_rate
from melange.replica.reasons import why_zero
from melange.slo import Slo
from melange.units import count_of
from melange.workload.workload import Workload

# Price of an instance if the user gives none [USD/h].
_UNKNOWN_COST_PER_H = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoneServer:
    """A server without datasheet estimates.

    Parameters
    ----------
    name
        Name of its replica type, the only one.
    limits
        What its engine allows, as far as known.
    model
        Name of the served model, for the profile.
    cost_per_h
        Price of the instance that the server runs on [USD/h]; None: 1, with a caution.
    """

    name: str
    limits: EngineLimits
    model: str = ""
    cost_per_h: float | None = None

    @property
    def replica_type(self) -> ReplicaType:
        """The server as a replica type that can be rented."""
        offer = Offer(
            provider="",
            region="",
            instance_type=self.name,
            accelerator="unknown",
            accelerators=1,
            cost_per_h=self.cost_per_h or _UNKNOWN_COST_PER_H,
            source="command line" if self.cost_per_h else "not known",
        )
        return ReplicaType(name=self.name, offer=offer)


def server_subject(server: LoneServer, slo: Slo, workload: Workload, options: Options) -> Subject:
    """A server whose step times are fitted to load points.

    Parameters
    ----------
    server
        What is known about the server.
    slo, workload, options
        The objective, the traffic, and the options that a plan must respect.
    """
    return Subject(
        replica_type=server.name,
        workload=workload,
        slo=slo,
        options=options,
        profile_of=_Fitted(server=server, workload=workload, slo=slo, kept=RateCache()).profile_of,
        cost_per_h=server.cost_per_h,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fitted:
    """A server whose step times are fitted to load points."""

    server: LoneServer
    workload: Workload
    slo: Slo
    kept: RateCache

    def profile_of(self, points: Sequence[Measurement]) -> Profile | None:
        """The profile of the server after some load points; None before there are any."""
        loads, searched = divided(points)
        if not loads:
            return None
        profile = self._closed_form(loads)
        if self.server.cost_per_h is None:
            what = "the instance's price is unknown; 1 USD/h is assumed: set --cost-per-h"
            profile = replace(profile, cautions=(*profile.cautions, Caution("price", what)))
        return completed(profile, searched, np.ones(1, bool), self.workload, self.slo, self.kept)

    def _closed_form(self, points: Sequence[Measurement]) -> Profile:
        """Rates of all buckets, from step times that were fitted to load points, under the limits on the mean."""
        engine, limits = fit_engine(points, self.server.limits), self.slo.limits
        sizes, shape = planned_sizes(self.workload), one_layer(self.server.limits)
        unsure = np.exp(INTERVAL * spread_at(engine, points, sizes))
        mid, low, high = (
            max_request_rate(replicas_with(engine, factor), shape, sizes, limits)
            for factor in (1.0, unsure, 1 / unsure)
        )
        reasons, reason = why_zero(mid, replicas_with(engine), shape, sizes, limits, [""])
        return Profile(
            replica_types=(self.server.replica_type,),
            buckets=self.workload.buckets,
            max_request_rate=mid,
            low=np.minimum(low, mid),
            high=np.maximum(high, mid),
            provenance=np.full(mid.shape, ANCHORED, np.int8),
            reasons=reasons,
            reason=reason,
            slo=self.slo.on_mean(),
            model=self.server.model,
            source=f"step times fitted to {count_of(len(points), 'load point')} of the server itself",
            engines=(engine,),
        )
