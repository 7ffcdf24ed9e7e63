"""The dataclasses of the profile stage: the rate that one replica of each type serves within the SLO.

Arrays have the axes (replica type R, input bucket I, output bucket O).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.catalog.offer import Offer
from melange.errors import Caution, InputError
from melange.files import Json, dump_document, read_as, write_document
from melange.records import one_line, record, records, text, value_of
from melange.replica.engine import Engine, engines_from_json, engines_to_json
from melange.replica.parallelism import Layout, layout_of
from melange.slo import Slo
from melange.workload.frozen_array import frozen_array
from melange.workload.workload import Array, Buckets

# Origin of a profile's cells; arrays hold the index.
PROVENANCES = ("measured", "anchored", "estimated")
MEASURED, ANCHORED, ESTIMATED = range(3)
# Requests per second of a replica: outside of this range, sums of loads lose digits.
_LEAST_RATE, _MOST_RATE = 1e-12, 1e15


# Pools of replicas: for long prompts, for prefill only, and for decode only.
LONG_POOL, PREFILL_POOL, DECODE_POOL = "long", "prefill", "decode"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaType:
    """The means to serve one copy of the model: an offer, a tensor-parallel degree, an engine.

    Parameters
    ----------
    offer
        The instance that is rented.
    tensor_parallel
        Accelerators that split each layer of one copy.
    engine
        Serving engine or its era (``vllm``, ``vllm-0.2``, ``sglang``, ``trtllm``); empty if the file does not say.
    name
        Unique within a profile.
    variant
        Quantized variant of the model that it serves (``fp8``, ``int4+fp8-kv``); empty: the model as published.
    pool
        Purpose of a second pool of the same replica type (``long``: prompts above some length; ``prefill`` and
        ``decode``: only that phase of requests); empty: the first pool, for whole requests of all sizes.
    expert_parallel, pipeline_parallel
        Number of accelerators that divide the experts of a mixture, and number of stages that divide the layers
        (:class:`~melange.replica.parallelism.Layout`).
    """

    name: str
    offer: Offer
    tensor_parallel: int = 1
    engine: str = ""
    variant: str = ""
    pool: str = ""
    expert_parallel: int = 1
    pipeline_parallel: int = 1

    def __post_init__(self) -> None:
        for field in ("name", "engine", "variant", "pool"):
            one_line(getattr(self, field), f"replica type: {field}")
        held, layout = self.offer.accelerators, self.layout
        if not 1 <= self.tensor_parallel <= held:
            raise InputError(
                f"{self.name}: tensor_parallel must be 1 to {held} "
                f"(the accelerators of the instance), got {self.tensor_parallel}"
            )
        if self.expert_parallel > held:
            raise InputError(
                f"{self.name}: expert_parallel must be 1 to {held} (the accelerators of the instance), "
                f"got {self.expert_parallel}"
            )
        if layout.accelerators > held and (layout.accelerators % held or held % self.tensor_parallel):
            raise InputError(f"{self.name}: {layout.suffix} does not fill instances of {held} accelerators")

    @property
    def type_name(self) -> str:
        """Name of the type without its pool: the name of its first pool."""
        return self.name.removesuffix(f" {self.pool}") if self.pool else self.name

    @property
    def layout(self) -> Layout:
        """The layout of one replica over accelerators."""
        return layout_of(self.tensor_parallel, self.expert_parallel, self.pipeline_parallel)

    @property
    def machines(self) -> int:
        """Machines of one instance of this type: more than one if a replica spans several."""
        return max(1, self.layout.accelerators // self.offer.accelerators)

    @property
    def accelerators(self) -> int:
        """Accelerators of an instance, on all of its machines."""
        return self.offer.accelerators * self.machines

    @property
    def replicas_per_instance(self) -> int:
        """Replicas that one instance holds."""
        return self.accelerators // self.layout.accelerators

    @property
    def cost_per_h(self) -> float:
        """Price of one whole instance, on all of its machines [USD/h]."""
        return self.offer.cost_per_h * self.machines

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "name": self.name,
            "offer": self.offer.to_json(),
            "tensor_parallel": self.tensor_parallel,
            "engine": self.engine,
            "variant": self.variant,
            "pool": self.pool,
            "expert_parallel": self.expert_parallel,
            "pipeline_parallel": self.pipeline_parallel,
        }

    @classmethod
    def from_json(cls, content: Json) -> ReplicaType:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content, "replica type")


def pool_of(replica_type: ReplicaType, pool: str) -> ReplicaType:
    """A second pool of a replica type, with its own name."""
    return replace(replica_type, name=f"{replica_type.name} {pool}", pool=pool)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profile:
    """The highest rate of each request size that one replica of each type serves within the SLO.

    Parameters
    ----------
    replica_types
        The replica types (R), with unique names.
    buckets
        The grid of sizes (I, O).
    max_request_rate
        Highest request rate of one bucket on one replica (R, I, O) [1/s]; 0 = it cannot serve the bucket.
    low, high
        Ends of its 80 % interval (R, I, O) [1/s]; equal to the rate if the error is unknown.
    provenance
        Index into ``PROVENANCES`` (R, I, O).
    reasons, reason
        Sentences, the first of them empty, and the index of each cell's sentence (R, I, O): why the rate is 0.
    slo
        The objective that the rates meet; None if the file does not say.
    model
        Name of the model; empty if the file does not say.
    source
        Where the figures come from, in words.
    cautions
        Warnings about these figures.
    engines
        The engine of one replica of each type (R), on which a plan can be simulated; None if its steps are unknown, and
        empty if those of all types are.

    Raises
    ------
    InputError
        Rates that are negative or not finite, wrong shapes, names that repeat.
    """

    replica_types: tuple[ReplicaType, ...]
    buckets: Buckets
    max_request_rate: Array
    low: Array
    high: Array
    provenance: npt.NDArray[np.int8]
    reasons: tuple[str, ...] = ("",)
    reason: npt.NDArray[np.int32]
    slo: Slo | None = None
    model: str = ""
    source: str = ""
    cautions: tuple[Caution, ...] = ()
    engines: tuple[Engine | None, ...] = ()

    def __post_init__(self) -> None:
        if self.engines and len(self.engines) != len(self.replica_types):
            raise InputError(f"profile.engines: {len(self.replica_types)} are needed, got {len(self.engines)}")
        shape = (len(self.replica_types), *self.buckets.shape)
        names = [replica_type.name for replica_type in self.replica_types]
        if not names:
            raise InputError("profile: at least one replica type is needed")
        repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
        if repeated:
            raise InputError(f"profile: names of replica types must be unique, {', '.join(repeated)} repeats")
        for name in ("max_request_rate", "low", "high"):
            values = frozen_array(getattr(self, name), f"profile.{name}", shape)
            bad = np.argwhere(~((values == 0) | ((values >= _LEAST_RATE) & (values <= _MOST_RATE))))
            if len(bad):
                r, i, o = bad[0]
                raise InputError(
                    f"profile.{name} must be 0, or {_LEAST_RATE:g} to {_MOST_RATE:g}, got {values[r, i, o]:g} "
                    f"for {names[r]} at {self.buckets.label(i, o)}"
                )
            object.__setattr__(self, name, values)
        for name, dtype, count in (("provenance", np.int8, len(PROVENANCES)), ("reason", np.int32, len(self.reasons))):
            stored = frozen_array(getattr(self, name), f"profile.{name}", shape)
            if not ((stored >= 0) & (stored < count) & (stored == np.floor(stored))).all():
                raise InputError(f"profile.{name} must hold whole numbers from 0 to {count - 1}")
            indices = stored.astype(dtype)
            indices.flags.writeable = False
            object.__setattr__(self, name, indices)

    def index(self, name: str) -> int:
        """Position of a replica type along the first axis."""
        return [replica_type.name for replica_type in self.replica_types].index(name)

    def why(self, r: int, i: int, o: int) -> str:
        """The reason why the rate of a cell is 0; empty if it is not 0."""
        return self.reasons[int(self.reason[r, i, o])]

    def to_json(self) -> Json:
        """As a JSON object."""
        return self.buckets.to_json() | {
            "replica_types": [replica_type.to_json() for replica_type in self.replica_types],
            "max_request_rate": self.max_request_rate.tolist(),
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "provenances": list(PROVENANCES),
            "provenance": self.provenance.tolist(),
            "reasons": list(self.reasons),
            "reason": self.reason.tolist(),
            "slo": self.slo.to_json() if self.slo else None,
            "model": self.model,
            "source": self.source,
            "warnings": [caution.to_json() for caution in self.cautions],
            **engines_to_json(self.engines),
        }

    @classmethod
    def from_json(cls, content: Json) -> Profile:
        """From the JSON object that :meth:`to_json` makes."""
        return cls(
            replica_types=records(ReplicaType, content["replica_types"], "replica_types"),
            buckets=Buckets.from_json(content),
            max_request_rate=content["max_request_rate"],
            low=content["low"],
            high=content["high"],
            provenance=content["provenance"],
            reasons=value_of(tuple[str, ...], content["reasons"], "reasons"),
            reason=content["reason"],
            slo=value_of(Slo | None, content.get("slo"), "slo"),
            model=one_line(content.get("model", ""), "model"),
            source=text(content.get("source", ""), "source"),
            cautions=records(Caution, content.get("warnings", ()), "warnings"),
            engines=engines_from_json(content),
        )

    def dumps(self) -> str:
        """The text of a ``profile.json``."""
        return dump_document("profile", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write a ``profile.json``."""
        return write_document(path, "profile", self.to_json())

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Read a ``profile.json``."""
        return read_as(path, "profile", cls.from_json)
