"""A plan in two pools: one reads prompts, the other generates tokens, and KV caches move between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melange.errors import Caution
from melange.files import Json, dump_document, write_document
from melange.plan.plan import Plan
from melange.profile.profile import DECODE_POOL, PREFILL_POOL
from melange.records import check_cost
from melange.units import saved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DisaggregatedPlan:
    """Prefill and decode replicas, each a plan of its own for its part of the same traffic.

    Parameters
    ----------
    prefill
        Reads prompts and generates no tokens: its workload has completions of one token.
    decode
        Generates the tokens: the prompts of its workload are in its KV cache on arrival.
    target
        Share of requests that must meet every limit, 0-1; None: nothing was simulated.
    attainment, low
        Share that met them in simulations of both pools together, and the lower end of its 95 % interval, 0-1; None
        if nothing was simulated.
    requests, seeds
        Requests of one such simulation, and number of simulations; 0 if there were none.
    transfer_s
        Mean time to move a request's KV cache [s]; part of the time to first token.
    aggregated_per_h
        Cost of the plan whose replicas do both [USD/h]; None if there is none.
    cautions
        Warnings besides those of its two plans.
    """

    prefill: Plan
    decode: Plan
    target: float | None = None
    attainment: float | None = None
    low: float | None = None
    requests: int = 0
    seeds: int = 0
    transfer_s: float = 0.0
    aggregated_per_h: float | None = None
    cautions: tuple[Caution, ...] = ()

    def __post_init__(self) -> None:
        check_cost(self.aggregated_per_h, "aggregated_per_h")

    @property
    def plans(self) -> dict[str, Plan]:
        """The plan of each pool, by the pool's name."""
        return {PREFILL_POOL: self.prefill, DECODE_POOL: self.decode}

    @property
    def cost_per_h(self) -> float:
        """Cost of all instances [USD/h]."""
        return self.prefill.cost_per_h + self.decode.cost_per_h

    @property
    def holds(self) -> bool | None:
        """Whether simulations have shown, with confidence, that the target is met; None if there was none."""
        return None if self.low is None or self.target is None else self.low >= self.target

    @property
    def savings(self) -> float | None:
        """Savings against replicas that do both, 0-1; None if there is no plan of such replicas."""
        return saved(self.cost_per_h, self.aggregated_per_h)

    def to_json(self) -> Json:
        """As a JSON object; each pool as in ``plan.json``."""
        return {
            "cost_per_h": self.cost_per_h,
            "aggregated_per_h": self.aggregated_per_h,
            "savings": self.savings,
            "holds": self.holds,
            "target": self.target,
            "attainment": self.attainment,
            "low": self.low,
            "requests": self.requests,
            "seeds": self.seeds,
            "transfer_s": self.transfer_s,
            "warnings": [one.to_json() for one in self.cautions],
            **{name: one.to_json() for name, one in self.plans.items()},
        }

    def dumps(self) -> str:
        """The text of its file."""
        return dump_document("disaggregated", self.to_json())

    def save(self, path: str | Path) -> Path:
        """Write its file, and next to it one file for each pool, which ``melange deploy`` reads."""
        where = Path(path)
        for name, one in self.plans.items():
            one.save(where.with_name(f"{where.stem}-{name}.json"))
        return write_document(path, "disaggregated", self.to_json())
