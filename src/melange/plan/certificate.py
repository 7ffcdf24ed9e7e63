"""Result of certifying a plan by simulation, and its effect on cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from melange.files import Json
from melange.plan.class_result import ClassResult
from melange.records import check_cost, record

# The sum of mean loads was at most 1.26 times what simulated replicas needed (docs/proof.md). A fleet whose summed
# loads exceed its capacity even with this factor is not tried.
MOST_CARRIED = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The proof by simulation that goes with a certified plan.

    Parameters
    ----------
    target
        Share of requests that must meet the SLO, 0-1; the plan was found for it.
    attainment, low
        Share that met it in simulation, and the lower end of its 95 % interval, 0-1; with spare replicas lost, if the
        options ask for spare replicas.
    requests, seeds
        Counted requests of one run, and runs: without the warm-up, and without the end of steady traffic.
    policy
        How requests were balanced.
    cost_before_per_h
        Cost of the closed-form plan, with rates for the sizes that may miss [USD/h]; the cost of this plan if too few
        instances are available for the closed-form plan.
    attainment_before
        Share of requests that met the SLO under the closed-form plan in some of the simulations that decide, 0-1.
    headroom
        Share of a replica's capacity that is kept free, by replica type name; below 0 if the simulation has shown that
        a replica carries more than the sum of its loads suggests.
    plans
        Plans that were simulated.
    wanted
        Share of requests that the SLO asks for, 0-1. It is above ``target`` if no fleet can reach it, or none was found
        that does. None: equal to the target.
    reach
        Share of requests that meet the SLO on a replica of their own, 0-1; no fleet exceeds it.
    beyond_reach
        Why the other requests miss, what would help, and why the target was lowered further, one sentence each.
    single_type
        Replica type of the cheapest fleet of one type that was proven as the plan was; None: no such fleet.
    single_type_per_h
        Cost of that fleet [USD/h].
    arrivals
        Which requests were simulated, in words.
    rate
        Requests per second, on average [1/s]; None in files without it.
    sends_unservable
        Whether requests of sizes that the plan leaves out were sent anyway: they take capacity and count as missed,
        because nobody asked to drop them.
    margin
        Fraction by which all steps may take longer than estimated while the plan still holds (0.09: until they are 9 %
        slower); negative if steps must be shorter than estimated. None in files without it.
    chance
        Chance that the plan holds by the intervals of its types' step times, 0-1; None in files without it.
    slowed_by
        Factor on the estimated step times in simulation, by replica type name, for a plan with confidence; empty if
        steps were simulated as estimated.
    classes
        What each class of requests attained; empty without classes. With classes, ``target``, ``attainment`` and
        ``low`` are those of the class that is nearest to its target.
    """

    target: float
    attainment: float
    low: float
    requests: int
    seeds: int
    policy: str
    cost_before_per_h: float
    attainment_before: float
    headroom: Mapping[str, float]
    plans: int
    wanted: float | None = None
    reach: float = 1.0
    beyond_reach: tuple[str, ...] = ()
    single_type: str | None = None
    single_type_per_h: float | None = None
    arrivals: str = ""
    rate: float | None = None
    sends_unservable: bool = False
    margin: float | None = None
    chance: float | None = None
    slowed_by: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[ClassResult, ...] = ()

    def __post_init__(self) -> None:
        check_cost(self.cost_before_per_h, "certificate.cost_before_per_h")
        check_cost(self.single_type_per_h, "certificate.single_type_per_h")

    def price(self, cost_per_h: float) -> float:
        """Extra cost of the certified plan over the closed-form plan, as a fraction; negative if it is cheaper."""
        return cost_per_h / self.cost_before_per_h - 1.0

    def to_json(self) -> Json:
        """As a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Json) -> Certificate:
        """From the JSON object that :meth:`to_json` makes."""
        return record(cls, content, "certificate")
