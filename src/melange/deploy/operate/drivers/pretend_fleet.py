"""A fleet that only exists on paper: instances start and drain in the time that they are given.

The dry run acts on it, and simulations of a controller do, which make some of its orders fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from melange.deploy.operate.fleet_steps import CANCEL, DRAIN, START, Step
from melange.deploy.operate.observation import TypeSeen
from melange.files import Json, read_as, write_document
from melange.records import records

STARTING, READY, DRAINING = "starting", "ready", "draining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretended:
    """An instance on paper.

    Parameters
    ----------
    replica_type
        Name of its type.
    stage
        ``starting``, ``ready`` or ``draining``.
    since_s
        When that stage began (Unix time) [s].
    """

    replica_type: str
    stage: str
    since_s: float


class PretendFleet:
    """Instances on paper, and what is done to them.

    Parameters
    ----------
    start_up_s, drain_s
        How long they start and drain [s].
    path
        File that remembers them; None: nothing does.
    """

    def __init__(self, start_up_s: float, drain_s: float, path: Path | None = None) -> None:
        self.start_up_s, self.drain_s, self.path = start_up_s, drain_s, path
        self.failures: dict[str, list[str]] = {}
        self.instances: tuple[Pretended, ...] = ()
        if path is not None and path.exists():
            self.instances = read_as(path, "operate-pretended", _instances_from)

    def look(self, now_s: float) -> dict[str, TypeSeen]:
        """What there is by replica type name, and what has failed since the last look."""
        self.instances = tuple(
            replace(one, stage=READY, since_s=now_s)
            if one.stage == STARTING and now_s - one.since_s >= self.start_up_s
            else one
            for one in self.instances
        )
        failures, self.failures = self.failures, {}
        names = dict.fromkeys((*(one.replica_type for one in self.instances), *failures))
        return {name: self._of(name, now_s, tuple(failures.get(name, ()))) for name in names}

    def _of(self, name: str, now_s: float, failures: tuple[str, ...]) -> TypeSeen:
        own = [one for one in self.instances if one.replica_type == name]
        ages = {
            stage: tuple(now_s - one.since_s for one in own if one.stage == stage) for stage in (STARTING, DRAINING)
        }
        return TypeSeen(
            ready=sum(one.stage == READY for one in own),
            starting_s=ages[STARTING],
            draining_s=ages[DRAINING],
            drained=sum(age_s >= self.drain_s for age_s in ages[DRAINING]),
            failures=failures,
        )

    def take(self, steps: Iterable[Step], now_s: float) -> None:
        """Take steps."""
        for step in steps:
            if step.verb == START:
                self._order(step.replica_type, step.instances, now_s)
                continue
            stage = {CANCEL: STARTING, DRAIN: READY}.get(step.verb, DRAINING)
            chosen = sorted(
                (one for one in self.instances if one.replica_type == step.replica_type and one.stage == stage),
                key=lambda one: one.since_s,
            )[: step.instances]
            for one in chosen:
                place = self.instances.index(one)
                after = (replace(one, stage=DRAINING, since_s=now_s),) if step.verb == DRAIN else ()
                self.instances = (*self.instances[:place], *after, *self.instances[place + 1 :])
        if self.path is not None:
            write_document(self.path, "operate-pretended", {"instances": [asdict(one) for one in self.instances]})

    def _order(self, name: str, count: int, now_s: float) -> None:
        for _ in range(count):
            if reason := self.refuses(name, now_s):
                self.failures.setdefault(name, []).append(reason)
            else:
                self.instances = (*self.instances, Pretended(replica_type=name, stage=STARTING, since_s=now_s))

    def refuses(self, name: str, now_s: float) -> str:  # for fleets in which orders fail
        """Why an order fails; empty: it does not."""
        return ""


def _instances_from(content: Json) -> tuple[Pretended, ...]:
    return records(Pretended, content["instances"], "instances")
