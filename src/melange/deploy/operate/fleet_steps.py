"""Steps from the current fleet to the target, in each iteration: make before break, drain before stop."""

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
    """An action on instances of one type.

    Parameters
    ----------
    verb
        ``start``: order instances; ``cancel``: give up starting ones; ``drain``: send them no new requests; ``stop``:
        end draining ones, those without requests first.
    replica_type
        Name of the type.
    instances
        Number of instances.
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
    """The steps to take now.

    Parameters
    ----------
    target
        Target number of instances by replica type name.
    out
        Excluded types, which may not be ordered.
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
        # Instances are drained only once all target instances serve.
        surplus = one.ready - max(want, brief.held.get(name, 0))
        if is_whole and surplus > 0:
            steps.append(Step(verb=DRAIN, replica_type=name, instances=surplus))
        ending = one.ending(settings.drain_s)
        if ending:
            steps.append(Step(verb=STOP, replica_type=name, instances=ending))
    return tuple(steps)
