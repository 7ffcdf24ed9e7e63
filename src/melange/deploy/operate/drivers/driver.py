"""What a driver is: eyes and hands of a controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from melange.deploy.operate.fleet_steps import Step
    from melange.deploy.operate.observation import TypeSeen
    from melange.errors import Caution
    from melange.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Order:
    """What a driver is to do.

    Parameters
    ----------
    at_s
        When it was decided (Unix time) [s].
    steps
        What to do with instances.
    target
        Instances that are wanted in the end, by replica type name.
    plan
        The plan of the wanted fleet, with shares for the traffic; None where none could be made.
    balancer_plan
        A plan for balancers that also knows what still drains; None where theirs stays.
    is_changed
        Whether another fleet is wanted than at the last order.
    """

    at_s: float
    steps: tuple[Step, ...]
    target: Mapping[str, int]
    plan: Plan | None = None
    balancer_plan: Plan | None = None
    is_changed: bool = False


class Driver(Protocol):
    """Starts, drains and stops instances; the same order twice does no harm, as a controller may die in between.

    Raises
    ------
    MelangeError
        What cannot be looked at or done now; the controller says so, and looks again.
    """

    def look(self, now_s: float) -> Mapping[str, TypeSeen]:
        """What there is by replica type name, with what has failed since the last look."""
        ...

    def act(self, order: Order) -> Sequence[Caution]:
        """Carry out an order; what fails is told at the next look.

        Returns
        -------
        Sequence
            What users should know about the result.
        """
        ...
