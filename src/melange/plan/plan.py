"""The noun of the plan stage: which replicas, how many, and which requests go where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.errors import Caution, InputError
from melange.files import Json, dump_document, read_as, write_document
from melange.plan.certificate import Certificate
from melange.plan.fingerprint import fingerprint
from melange.profile.profile import ReplicaType
from melange.replica.engine import Engine, engines_from_json, engines_to_json
from melange.slo import Slo
from melange.units import S_PER_H, TOKENS_PER_MTOK
from melange.workload.workload import Array, Workload, frozen_array


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """The cheapest plan that uses one replica type only.

    Parameters
    ----------
    cost_per_h
        Its cost [USD/h]; None where the type cannot carry the workload by itself.
    instances
        Instances it rents; 0 where it cannot.
    reason
        Why it cannot; empty where it can.
    served_fraction
        Share of the requests whose sizes it can serve, 0-1.
    rest_cost_per_h
        What it costs to carry those with it alone [USD/h]; None where it serves none of them, or all but cannot be had.
    """

    cost_per_h: float | None
    instances: int = 0
    reason: str = ""
    served_fraction: float = 1.0
    rest_cost_per_h: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Which replicas, how many, which requests go where, at what cost, and the bound that proves it.

    Arrays have the axes (replica type R, input bucket I, output bucket O), in the order of ``replica_types``: every
    type that was considered, also those that are not used.

    Parameters
    ----------
    replica_types
        R of them, with unique names.
    instances
        Instances rented of each type (R,).
    share
        Fraction of each bucket's requests that goes to each type (R, I, O), 0-1. Sums to 1 over R for every bucket
        that is served; less than 1 under a budget; 0 where a bucket was left out.
    load
        Share of its replicas' capacity that each type's traffic takes (R,), 0-1; headroom is not part of it.
    max_request_rate
        What one replica of each type was planned to carry (R, I, O) [1/s]; 0 for types that are not used.
    engines
        The engine of one replica of each type (R), to simulate the plan on; None where nothing is known of its steps
        or the type is not used.
    cost_per_h
        Of all instances [USD/h].
    bound_per_h
        No plan under the same settings costs less [USD/h]; None under a budget, where traffic is what is sought, and
        for a certified plan, which a search has found and nothing proves to be the cheapest.
    gap
        Proven distance to the best possible plan, 0-1; 1 where nothing is proven.
    single_type
        The cheapest plan with one type only, or why there is none, by replica type name.
    workload
        What was planned for.
    headroom, slices, confidence
        The settings that the shares depend on; a confidence of None plans on the estimates themselves.
    cost_at
        Cost of the cheapest plan if every replica carried what the ``low`` end, the ``mid`` and the ``high`` end of its
        interval say [USD/h], None where none carries the traffic then; empty where nobody asked.
    next_measurement
        The measurement that would save most, in a sentence; empty where nobody asked or none would.
    slo, model
        What the profile's rates hold under; None and empty where it does not say.
    served_fraction
        Share of all requests that the plan carries, 0-1; below 1 under a budget or where buckets were left out.
    unservable
        Why buckets were left out, one sentence each.
    status
        ``optimal`` (within the gap that was asked for), ``time limit``, or ``certified``.
    solve_s
        Time that the search took [s].
    cautions
        What a reader should know: those of the workload and of the profile included.
    certificate
        What a simulation has shown of it; None where nobody asked.
    """

    replica_types: tuple[ReplicaType, ...]
    instances: npt.NDArray[np.int64]
    share: Array
    load: Array
    max_request_rate: Array
    cost_per_h: float
    bound_per_h: float | None
    gap: float
    single_type: dict[str, Baseline]
    workload: Workload
    headroom: float = 0.0
    slices: int | None = None
    confidence: float | None = None
    cost_at: Mapping[str, float | None] = field(default_factory=dict)
    next_measurement: str = ""
    slo: Slo | None = None
    model: str = ""
    served_fraction: float = 1.0
    unservable: tuple[str, ...] = ()
    status: str = "optimal"
    solve_s: float = 0.0
    cautions: tuple[Caution, ...] = ()
    engines: tuple[Engine | None, ...] = ()
    certificate: Certificate | None = None

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
        for name in ("share", "max_request_rate"):
            object.__setattr__(self, name, frozen_array(getattr(self, name), f"plan.{name}", shape))
        object.__setattr__(self, "engines", tuple(self.engines) or (None,) * types)
        if len(self.engines) != types:
            raise InputError(f"plan.engines: {types} are needed, got {len(self.engines)}")

    @property
    def replicas(self) -> dict[str, int]:
        """Running copies of the model by replica type name; 0 for a type that is not used."""
        return {
            replica_type.name: int(count) * replica_type.replicas_per_instance
            for replica_type, count in zip(self.replica_types, self.instances, strict=True)
        }

    @property
    def best_single(self) -> tuple[str, Baseline] | None:
        """The cheapest single-type plan, by name; None where no type can do it alone."""
        able = [(name, baseline) for name, baseline in self.single_type.items() if baseline.cost_per_h is not None]
        return min(able, key=lambda pair: pair[1].cost_per_h or 0.0) if able else None

    @property
    def savings(self) -> float | None:
        """Saved against the cheapest single type, 0-1; None where no type can do it alone."""
        best = self.best_single
        if best is None or best[1].cost_per_h is None:
            return None
        return 1.0 - self.cost_per_h / best[1].cost_per_h

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
        """By what it is known again: the same for plans that run the same fleet and send the same requests to it."""
        return fingerprint(self)

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "fingerprint": self.fingerprint,
            "cost_per_h": self.cost_per_h,
            "cost_per_mtok": self.cost_per_mtok,
            "replicas": self.replicas,
            "instances": {t.name: int(n) for t, n in zip(self.replica_types, self.instances, strict=True)},
            "load": {t.name: float(load) for t, load in zip(self.replica_types, self.load, strict=True)},
            "bound_per_h": self.bound_per_h,
            "gap": self.gap,
            "status": self.status,
            "single_type": {name: asdict(baseline) for name, baseline in self.single_type.items()},
            "savings": self.savings,
            "served_fraction": self.served_fraction,
            "unservable": list(self.unservable),
            "headroom": self.headroom,
            "slices": self.slices,
            "confidence": self.confidence,
            "cost_at": dict(self.cost_at) or None,
            "next_measurement": self.next_measurement,
            "slo": self.slo.to_json() if self.slo else None,
            "model": self.model,
            "solve_s": self.solve_s,
            "warnings": [caution.to_json() for caution in self.cautions],
            "workload": self.workload.to_json(),
            "replica_types": [replica_type.to_json() for replica_type in self.replica_types],
            "share": self.share.tolist(),
            # A row of a type that is not used is null: there may be a thousand of them.
            "max_request_rate": [rates.tolist() if rates.any() else None for rates in self.max_request_rate],
            **engines_to_json(self.engines),
            "certificate": self.certificate.to_json() if self.certificate else None,
        }

    @classmethod
    def from_json(cls, content: Json) -> Plan:
        """From the JSON object that :meth:`to_json` makes."""
        replica_types = tuple(ReplicaType.from_json(item) for item in content["replica_types"])
        names = [replica_type.name for replica_type in replica_types]
        workload = Workload.from_json(content["workload"])
        rates = content.get("max_request_rate") or [None] * len(names)  # a plan of before 0.2 has none
        unused = np.zeros(workload.buckets.shape)
        return cls(
            replica_types=replica_types,
            instances=np.array([content["instances"][name] for name in names], np.int64),
            share=content["share"],
            load=np.array([content["load"][name] for name in names]),
            cost_per_h=content["cost_per_h"],
            bound_per_h=content["bound_per_h"],
            gap=content["gap"],
            single_type={name: Baseline(**item) for name, item in content["single_type"].items()},
            workload=workload,
            max_request_rate=np.array([unused if rate is None else rate for rate in rates], float),
            headroom=content["headroom"],
            slices=content["slices"],
            confidence=content.get("confidence"),
            cost_at=content.get("cost_at") or {},
            next_measurement=content.get("next_measurement", ""),
            slo=Slo.from_json(content["slo"]) if content["slo"] else None,
            model=content["model"],
            served_fraction=content["served_fraction"],
            unservable=tuple(content["unservable"]),
            status=content["status"],
            solve_s=content["solve_s"],
            cautions=tuple(Caution(**caution) for caution in content["warnings"]),
            engines=engines_from_json(content),
            certificate=Certificate.from_json(content["certificate"]) if content.get("certificate") else None,
        )

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
