"""The dataclass of the plan stage: replica types, counts and routing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InputError
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.certificate import Certificate
from melange.plan.energy import energy_of
from melange.plan.fingerprint import fingerprint
from melange.plan.least_carbon import LeastCarbon
from melange.plan.options import Options
from melange.plan.question import Question
from melange.plan.question_file import question_to_json
from melange.plan.server import servers_of
from melange.plan.simulation import Simulation
from melange.profile.profile import ReplicaType
from melange.records import check_cost
from melange.replica.engine import Engine
from melange.slo import Slo
from melange.units import S_PER_H, TOKENS_PER_MTOK, saved
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import Array, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The cheapest plan that uses one replica type only.

    Parameters
    ----------
    cost_per_h
        Its cost [USD/h]; None if the type cannot serve the workload by itself.
    instances
        Instances that it rents; 0 if it cannot serve the workload.
    reason
        Why it cannot serve the workload; empty if it can.
    served_fraction
        Share of the requests whose sizes it can serve, 0-1.
    rest_cost_per_h
        Cost of serving these requests with this type alone [USD/h]; None if it serves none, or too few are available.
    """

    cost_per_h: float | None
    instances: int = 0
    reason: str = ""
    served_fraction: float = 1.0
    rest_cost_per_h: float | None = None

    def __post_init__(self) -> None:
        check_cost(self.cost_per_h, "cost_per_h")
        check_cost(self.rest_cost_per_h, "rest_cost_per_h")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Replica types, counts, routing, cost, and the bound that proves the cost.

    Arrays have the axes (replica type R, input bucket I, output bucket O), in the order of ``replica_types``: every
    type that was considered, including unused types.

    Parameters
    ----------
    question
        The question that the plan answers: its workload, profile and options.
    instances
        Instances rented of each type (R,).
    share
        Fraction of each bucket's requests that goes to each type (R, I, O), 0-1. Sums to 1 over R for every bucket
        that is served; less than 1 under a budget; 0 if a bucket was left out.
    load
        Share of its replicas' capacity that each type's traffic takes (R,), 0-1; headroom is not part of it.
    cost_per_h
        Cost of all instances [USD/h].
    bound_per_h
        No plan under the same settings costs less [USD/h]; for a certified plan: no fleet that holds costs less, as far
        as loads add up. None under a budget, where traffic is maximized, if nothing is proven, and for plans of least
        emissions.
    gap
        Proven distance to the best possible plan, 0-1; 1 if nothing is proven.
    single_type
        The cheapest single-type plan by closed form, or why there is none, by replica type name.
    cost_at
        Cost of the cheapest plan if every replica carried the ``low`` end, the ``mid`` and the ``high`` end of its
        interval [USD/h], None if no fleet carries the traffic then; empty if not asked for.
    next_measurement
        The measurement that would save most, in a sentence; empty if not asked for, or if none would save anything.
    served_fraction
        Share of all requests that the plan carries, 0-1; below 1 under a budget or where buckets were left out.
    unservable
        Why buckets were left out, one sentence each.
    status
        ``optimal`` (within the gap that was asked for), ``time limit``, or ``certified``.
    solve_s
        Time that the search took [s].
    cautions
        Warnings, including those of the workload and of the profile.
    certificate
        The proof by simulation; None if the plan was not searched for by simulation.
    simulation
        The result of one simulation of the plan; None if there was none, or if a certificate has it.
    not_simulated
        Why the plan could not be simulated although a simulation was requested; empty otherwise.
    least_carbon
        Comparison with the cheapest plan, if the least emissions were asked for; else None.
    service_file
        Name of the service's file, for the commands of load points; empty: not known.
    max_request_rate
        The rates that the plan counts on, at the confidence of its question (R, I, O) [1/s]; 0 for a type that is not
        used.
    """

    question: Question
    instances: npt.NDArray[np.int64]
    share: Array
    load: Array
    cost_per_h: float
    bound_per_h: float | None
    gap: float
    single_type: dict[str, Baseline]
    cost_at: Mapping[str, float | None] = field(default_factory=dict)
    next_measurement: str = ""
    served_fraction: float = 1.0
    unservable: tuple[str, ...] = ()
    status: str = "optimal"
    solve_s: float = 0.0
    cautions: tuple[Caution, ...] = ()
    certificate: Certificate | None = None
    simulation: Simulation | None = None
    not_simulated: str = ""
    least_carbon: LeastCarbon | None = None
    service_file: str = ""
    max_request_rate: Array = field(init=False)

    def __post_init__(self) -> None:
        types = len(self.replica_types)
        counts = frozen_array(self.instances, "plan.instances", (types,))
        if (counts < 0).any() or (counts != np.round(counts)).any():
            raise InputError(f"plan.instances must be whole numbers >= 0, got {counts.tolist()}")
        instances = counts.astype(np.int64)
        instances.flags.writeable = False
        object.__setattr__(self, "instances", instances)
        object.__setattr__(self, "load", frozen_array(self.load, "plan.load", (types,)))
        shape = (types, *self.workload.buckets.shape)
        object.__setattr__(self, "share", frozen_array(self.share, "plan.share", shape))
        rates = self.question.at_confidence().profile.max_request_rate
        used = np.where((instances > 0)[:, None, None], rates, 0.0)
        object.__setattr__(self, "max_request_rate", frozen_array(used, "plan.max_request_rate", shape))

    @property
    def workload(self) -> Workload:
        """The planned traffic."""
        return self.question.workload

    @property
    def options(self) -> Options:
        """The settings of the plan."""
        return self.question.options

    @property
    def replica_types(self) -> tuple[ReplicaType, ...]:
        """Every type that was considered (R)."""
        return self.question.profile.replica_types

    @property
    def engines(self) -> tuple[Engine | None, ...]:
        """The engine of one replica of each type (R), to simulate the plan on.

        None if nothing is known of its steps, or the type is not used.
        """
        engines = self.question.profile.engines or (None,) * len(self.replica_types)
        return tuple(engine if count else None for engine, count in zip(engines, self.instances, strict=True))

    @property
    def slo(self) -> Slo | None:
        """The SLO under which the rates hold; None if the profile does not say."""
        return self.question.profile.slo

    @property
    def model(self) -> str:
        """Name of the model; empty if the profile does not say."""
        return self.question.profile.model

    @property
    def kind(self) -> str:
        """How the plan was shown to hold: ``certified``, ``simulated`` (once, as it is) or ``closed form``."""
        if self.certificate is not None:
            return "certified"
        return "closed form" if self.simulation is None else "simulated"

    @property
    def target(self) -> float | None:
        """Share of requests that the SLO asks to meet every limit, 0-1; None if it asks for no share."""
        if self.certificate is not None:
            wanted = self.certificate.wanted
            return self.certificate.target if wanted is None else wanted
        if self.simulation is not None:
            return self.simulation.target
        return self.slo.attainment if self.slo else None

    @property
    def attainment(self) -> float | None:
        """Share of requests that met every limit in simulation, 0-1; None if nothing was simulated."""
        shown = self.certificate or self.simulation
        return shown.attainment if shown else None

    @property
    def low(self) -> float | None:
        """Lower end of the 95 % interval of :attr:`attainment`, 0-1; None if nothing was simulated."""
        shown = self.certificate or self.simulation
        return shown.low if shown else None

    @property
    def holds(self) -> bool | None:
        """Whether a simulation has shown, with confidence, that the target is met; None if either is missing."""
        return None if self.low is None or self.target is None else self.low >= self.target

    @property
    def replicas(self) -> dict[str, int]:
        """Running copies of the model by replica type name; 0 for a type that is not used."""
        return {
            replica_type.name: int(count) * replica_type.replicas_per_instance
            for replica_type, count in zip(self.replica_types, self.instances, strict=True)
        }

    @property
    def instances_by_name(self) -> dict[str, int]:
        """Instances of each replica type, by its name; 0 for one that is not used."""
        return {one.name: int(n) for one, n in zip(self.replica_types, self.instances, strict=True)}

    def changes_from(self, incumbent: Plan) -> dict[str, int]:
        """Instances to add to the current plan, by replica type name; negative: to remove; only changes are listed."""
        before, after = incumbent.instances_by_name, self.instances_by_name
        names = dict.fromkeys((*after, *before))
        return {name: change for name in names if (change := after.get(name, 0) - before.get(name, 0))}

    @property
    def best_single(self) -> tuple[str, Baseline] | None:
        """The cheapest single-type plan, by name; None if no type can serve the workload alone."""
        able = [(name, baseline) for name, baseline in self.single_type.items() if baseline.cost_per_h is not None]
        return min(able, key=lambda pair: pair[1].cost_per_h or 0.0) if able else None

    @property
    def savings(self) -> float | None:
        """Savings against the cheapest single type (certified if the plan is), 0-1; None if no single type works."""
        if self.certificate is not None:
            return saved(self.cost_per_h, self.certificate.single_type_per_h)
        best = self.best_single
        return None if best is None else saved(self.cost_per_h, best[1].cost_per_h)

    @property
    def cost_per_mtok(self) -> dict[str, float] | None:
        """Plan cost over a million tokens served: ``input``, ``output`` and ``total`` (both) [USD]."""
        if self.workload.buckets.is_ordinal:
            return None
        served = self.share.sum(axis=0) * self.workload.request_rate
        inputs = float((served * self.workload.input_tokens).sum()) * S_PER_H / TOKENS_PER_MTOK
        outputs = float((served * self.workload.output_tokens).sum()) * S_PER_H / TOKENS_PER_MTOK
        if outputs == 0:
            return None
        return {
            "input": self.cost_per_h / inputs,
            "output": self.cost_per_h / outputs,
            "total": self.cost_per_h / (inputs + outputs),
        }

    @property
    def fingerprint(self) -> str:
        """Stable hash of the plan's content: equal for plans with the same fleet and routing."""
        return fingerprint(self.question, self.instances, self.share, self.max_request_rate)

    def to_json(self) -> Json:
        """As a JSON object."""
        from melange.plan.load_points import load_points

        return {
            "fingerprint": self.fingerprint,
            "kind": self.kind,
            "holds": self.holds,
            "target": self.target,
            "attainment": self.attainment,
            "low": self.low,
            "cost_per_h": self.cost_per_h,
            "cost_per_mtok": self.cost_per_mtok,
            "energy": {name: one.to_json() for name, one in energy_of(self).items()},
            "replicas": self.replicas,
            "instances": self.instances_by_name,
            "load": {t.name: float(load) for t, load in zip(self.replica_types, self.load, strict=True)},
            "bound_per_h": self.bound_per_h,
            "gap": self.gap,
            "status": self.status,
            "single_type": {name: asdict(baseline) for name, baseline in self.single_type.items()},
            "savings": self.savings,
            "served_fraction": self.served_fraction,
            "unservable": list(self.unservable),
            "headroom": self.options.headroom,
            "slices": self.options.slices,
            "confidence": self.options.confidence,
            "cost_at": dict(self.cost_at) or None,
            "next_measurement": self.next_measurement,
            "slo": self.slo.to_json() if self.slo else None,
            "model": self.model,
            "solve_s": self.solve_s,
            "warnings": [caution.to_json() for caution in self.cautions],
            "share": self.share.tolist(),
            # The row of an unused type is null: there may be a thousand of them.
            "max_request_rate": [rates.tolist() if rates.any() else None for rates in self.max_request_rate],
            "servers": [server.to_json() for server in servers_of(self)],
            "load_points": [point.to_json(self.service_file) for point in load_points(self)],
            "certificate": self.certificate.to_json() if self.certificate else None,
            "simulation": self.simulation.to_json() if self.simulation else None,
            "not_simulated": self.not_simulated,
            "least_carbon": self.least_carbon.to_json() if self.least_carbon else None,
            **({"service_file": self.service_file} if self.service_file else {}),
            **question_to_json(self.question, self.instances > 0),
        }

    @classmethod
    def from_json(cls, content: Json) -> Plan:
        """From the JSON object that :meth:`to_json` makes."""
        from melange.plan.plan_file import plan_from_json

        return plan_from_json(content)

    def dumps(self) -> str:
        """The text of a ``plan.json``."""
        return dump_document("plan", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``plan.json``."""
        return write_document(path, "plan", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Plan:
        """Read a ``plan.json``."""
        return read_as(path, "plan", cls.from_json)
