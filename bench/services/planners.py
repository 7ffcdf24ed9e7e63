"""The compared planners: each makes a plan for a service, or gives a reason why it cannot."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import single_type
from aibrix import aibrix
from fleets import carrying_all, on_mean
from greedy import greedy
from melange.errors import MelangeError
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.service.session import Session

PAPER_SLICES = 8


@dataclass(frozen=True)
class Answer:
    """A plan, or the reason why there is none; whether it claims to hold, and its CPU time [s]."""

    plan: Plan | None
    reason: str
    claims: bool
    cpu_s: float


def default(session: Session) -> Plan:
    """The plan of `melange plan`."""
    return session.answer()


def quick(session: Session) -> Plan:
    """The closed form alone."""
    return session.plan()


def paper(session: Session) -> Plan:
    """The program of the Mélange paper as its authors solve it, to optimality.

    It uses capacities under limits on the mean, 8 slices per bucket that each go to one type, no headroom, and whole
    GPUs (here whole instances, as they are rented). Sizes are the means within buckets, as for all planners here, not
    the buckets' upper edges.
    """
    question = on_mean(session)
    options = replace(question.options, headroom=0.0, slices=PAPER_SLICES)
    return carrying_all(solve(replace(question, options=options)))


PLANNERS: dict[str, Callable[[Session], Plan]] = {
    "default": default,
    "quick": quick,
    "paper": paper,
    "aibrix": aibrix,
    "greedy": greedy,
    "single": single_type.closed_form,
    "single-certified": single_type.certified,
    "h100": single_type.rented_by_everybody,
}
TITLES = {
    "default": "`melange plan`",
    "quick": "closed form alone",
    "paper": "the paper's program",
    "aibrix": "AIBrix's rule",
    "greedy": "adaptive greedy (2604.07472)",
    "single": "cheapest single type, closed form",
    "single-certified": "cheapest single type, certified",
    "h100": "H100 only",
}


def answered(name: str, session: Session, limit_s: float) -> Answer:
    """The answer of a planner for a service within a limit on CPU time."""
    began = _cpu_s()
    plan, reason = None, ""
    try:
        with _stopped_after(limit_s):
            plan = PLANNERS[name](session)
    except MelangeError as error:
        reason = str(error)
    except TimeoutError:
        reason = f"stopped after {limit_s:g} s of CPU"
    except Exception as error:  # a defect of a planner is also a result, and the others continue
        reason = f"defect: {type(error).__name__}: {error}"
    return Answer(plan=plan, reason=reason, claims=_claims(plan), cpu_s=_cpu_s() - began)


def _claims(plan: Plan | None) -> bool:
    """Whether a plan claims to hold, which it does unless it reports that it misses the target."""
    return plan is not None and plan.holds is not False


def _cpu_s() -> float:
    """CPU time of this process and its children so far [s]."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def _stopped_after(limit_s: float) -> Iterator[None]:
    """Raise TimeoutError in the body after this CPU time."""

    def stop(_: int, __: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
