"""From what there is to what is wanted, one look at a time: make before break, drain before stop."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melange.files import Json

if TYPE_CHECKING:
    from melange.deploy.operate.decide import Brief
    from melange.deploy.operate.observation import Observation

START, CANCEL, DRAIN, STOP = "start", "cancel", "drain", "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Something to do with instances of a type.

    Parameters
    ----------
    verb
        ``start``: order them; ``cancel``: give up some that start; ``drain``: send them no new requests; ``stop``: end
        some that drain, those without requests first.
    replica_type
        Its name.
    instances
        How many.
    """

    verb: str
    replica_type: str
    instances: int

    def __str__(self) -> str:
        return f"{self.verb} {self.instances} x {self.replica_type}"

    def to_json(self) -> Json:
        """As a JSON object."""
        return {"verb": self.verb, "replica_type": self.replica_type, "instances": self.instances}


def steps_towards(target: Mapping[str, int], seen: Observation, out: Set[str], brief: Brief) -> tuple[Step, ...]:
    """What to do now.

    Parameters
    ----------
    target
        Instances that are wanted, by replica type name.
    out
        Types that may not be ordered.
    """
    steps: list[Step] = []
    settings = brief.settings
    is_whole = all(seen.of(name).ready >= count for name, count in target.items())
    for name in sorted({*target, *seen.fleet}):
        one, want = seen.of(name), target.get(name, 0)
        on_time = one.starting - one.late(settings.patience_s)
        coming = min(max(0, want - one.ready), on_time)
        if one.starting > coming:
            steps.append(Step(verb=CANCEL, replica_type=name, instances=one.starting - coming))
        lacking = want - one.ready - coming
        if lacking > 0 and name not in out:
            steps.append(Step(verb=START, replica_type=name, instances=lacking))
        # What is wanted serves before what is not wanted stops.
        surplus = one.ready - max(want, brief.held.get(name, 0))
        if is_whole and surplus > 0:
            steps.append(Step(verb=DRAIN, replica_type=name, instances=surplus))
        ending = one.ending(settings.drain_s)
        if ending:
            steps.append(Step(verb=STOP, replica_type=name, instances=ending))
    return tuple(steps)
