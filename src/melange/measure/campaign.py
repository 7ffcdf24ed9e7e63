"""A campaign: measure buckets one by one, most important first, until more results cannot change the plan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from melange.errors import Caution, MeasurementError
from melange.files import Json
from melange.measure.endpoint import Endpoint
from melange.measure.journal import Journal
from melange.measure.load import Load, RefusedError, send_alone, send_at_rate
from melange.measure.outlook import guess_of
from melange.measure.point import Point, point_of
from melange.measure.search import Effort, Found, Step, find_rate
from melange.measure.subject import Bucket, Subject, latency_bound_s
from melange.measure.trial import try_rate
from melange.measure.window import Window
from melange.measure.worth import choose
from melange.profile.measurement import Measurement
from melange.profile.profile import Profile

if TYPE_CHECKING:
    import aiohttp

# After a load, a short request must take at most this multiple of its idle latency before the next load; the wait is
# limited [s].
_IDLE_FACTOR, _SETTLE_S = 3.0, 60.0
# Below this latency, a server counts as idle [s]; pause between two tries [s].
_IDLE_S, _PAUSE_S = 0.02, 0.1
# Input and output tokens of that request: few, because it is sent repeatedly. Chosen by judgment.
_SHORT = (8, 2)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """The result of a campaign.

    Parameters
    ----------
    profile
        Measured cells; cells of other sizes of the same kind of replica are anchored to them.
    found_by_bucket
        The searches that were completed.
    ended
        Why the campaign ended, in words.
    is_settled
        Whether the plan would stay the same for all possible rates of the other buckets.
    points
        Load points that were measured.
    """

    profile: Profile
    found_by_bucket: dict[Bucket, Found]
    ended: str
    is_settled: bool
    points: int

    def to_json(self) -> Json:
        """The results and why the campaign ended, as a JSON object; the profile is saved in a separate file."""
        found = [{"bucket": list(bucket), **one.to_json()} for bucket, one in self.found_by_bucket.items()]
        return {"found": found, "ended": self.ended, "is_settled": self.is_settled, "points": self.points}


@dataclass(frozen=True, slots=True)
class News:
    """What a campaign is doing or has done.

    Parameters
    ----------
    text
        The step, in one sentence.
    is_done
        Whether the step is done; then the text stays on the screen.
    """

    text: str
    is_done: bool = False


class _TimeIsUpError(Exception):
    """The time budget is spent."""


def header_of(subject: Subject, endpoint: Endpoint, effort: Effort) -> Json:
    """What a journal is about: a journal with any other value belongs to another campaign."""
    workload = subject.workload
    return {
        "replica_type": subject.replica_type,
        "model": endpoint.model,
        "slo": subject.slo.to_json(),
        "effort": {name: getattr(effort, name) for name in effort.__slots__},
        **workload.buckets.to_json(),
        "input_tokens": workload.input_tokens.tolist(),
        "output_tokens": workload.output_tokens.tolist(),
    }


def _measurements_of(journal: Journal) -> list[Measurement]:
    """Load points that the server kept up with, and the highest rates that were found."""
    points = [
        point.measurement
        for bucket in journal.guess_by_bucket
        for point in journal.points(bucket)
        if point.keeps_up and point.measurement is not None
    ]
    return points + list(journal.searched.values())


async def run_campaign(
    session: aiohttp.ClientSession,
    endpoint: Endpoint,
    subject: Subject,
    journal: Journal,
    *,
    effort: Effort | None = None,
    most_buckets: int | None = None,
    budget_s: float | None = None,
    progress: Callable[[News], None] | None = None,
) -> Result:
    """Measure buckets one by one; results in the journal are not measured again.

    Parameters
    ----------
    session, endpoint
        The client and the server.
    subject
        What is measured, and for which traffic and objective.
    journal
        The campaign's journal, new or from an interrupted run.
    effort
        How thorough each search is.
    most_buckets
        Number of buckets to measure, regardless of the plan; None: measure until the plan is settled, at least one
        bucket.
    budget_s
        Time after which no more load is sent [s]; None: no limit.
    progress
        Called with each step and its result.

    Raises
    ------
    MeasurementError
        The server or the client cannot be measured, or the time ran out before the first result.
    """
    effort = effort or Effort()
    tell = progress or (lambda _: None)
    now = asyncio.get_running_loop().time
    deadline_s = now() + budget_s if budget_s is not None else float("inf")
    tester = _Tester(session, endpoint, subject, journal, effort, deadline_s, tell)
    while True:
        profile = subject.profile_of(_measurements_of(journal))
        choice = choose(subject, profile)
        left = [bucket for bucket in choice.buckets if bucket not in journal.found_by_bucket]
        ended = _end(journal, left, most_buckets, is_settled=choice.is_settled)
        if not ended:
            bucket = journal.unfinished() or left[0]
            try:
                await tester.search(bucket, guess_of(subject, profile, bucket))
            except _TimeIsUpError:
                ended = "the budget is spent"
        if ended:
            profile = subject.profile_of(_measurements_of(journal))
            if profile is None:
                why = next((found.why for found in journal.found_by_bucket.values()), ended)
                raise MeasurementError(
                    f"nothing was measured: {why}", hint="" if why != ended else "allow more time with --budget"
                )
            return Result(
                profile=_with_cautions(profile, journal, subject),
                found_by_bucket=dict(journal.found_by_bucket),
                ended=ended,
                is_settled=choice.is_settled,
                points=journal.count,
            )


def _end(journal: Journal, left: Sequence[Bucket], most_buckets: int | None, *, is_settled: bool) -> str:
    """Why a campaign ends here; empty if it continues."""
    done = len(journal.found_by_bucket)
    if most_buckets is not None and done >= most_buckets:
        return f"{done} bucket{'s' if done != 1 else ''} measured, as requested"
    if journal.unfinished() is not None:
        return ""
    if most_buckets is None and done and is_settled:
        return "the plan would no longer change"
    return "" if left else "all buckets that the replica type would serve are measured"


def _with_cautions(profile: Profile, journal: Journal, subject: Subject) -> Profile:
    """The profile, with cautions about searches that ended because the client was too slow."""
    cautions = [
        Caution("client", f"{subject.workload.buckets.label(*bucket)}: {found.why}")
        for bucket, found in journal.found_by_bucket.items()
        if np.isinf(found.failed_rate)
    ]
    return replace(profile, cautions=(*profile.cautions, *cautions))


class _Tester:
    """Sends loads to one server and records the results."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        endpoint: Endpoint,
        subject: Subject,
        journal: Journal,
        effort: Effort,
        deadline_s: float,
        tell: Callable[[News], None],
    ) -> None:
        self.session, self.endpoint, self.subject, self.journal = session, endpoint, subject, journal
        self.effort, self.deadline_s, self.tell = effort, deadline_s, tell
        self.now = asyncio.get_running_loop().time
        self.idle_s: float | None = None

    async def search(self, bucket: Bucket, guess: float | None) -> None:
        """Find the highest rate of one bucket, or continue where the journal ends."""
        journal, size = self.journal, self.subject.size(bucket)
        if bucket in journal.guess_by_bucket:
            guess = journal.guess_by_bucket[bucket]
        else:
            journal.begin(bucket, size, guess)
        limit = self.endpoint.max_context
        if limit is not None and sum(size) > limit:
            why = f"{sum(size):,} tokens exceed the context limit of {limit:,}"
            self._end(bucket, Found.nothing(why))
            return
        label = self.subject.workload.buckets.label(*bucket)

        async def probe(step: Step) -> Point:
            point = journal.recorded(bucket, step)
            if point is None:
                self.tell(News(f"{label}: {_load(step.rate)}"))
                point = await self._point(size, step)
                journal.add(bucket, step, point)
                self.tell(News(f"{label}: {point}", is_done=True))
            return point

        bound_s = latency_bound_s(self.subject.slo, size[1])
        try:
            found = await find_rate(probe, self.subject.slo, guess=guess, effort=self.effort, bound_s=bound_s)
        except RefusedError as error:
            found = Found.nothing(f"refused: {error}")
        self._end(bucket, found)
        self.tell(News(f"{label}: highest rate {found.max_request_rate:.3g} requests/s", is_done=True))

    def _end(self, bucket: Bucket, found: Found) -> None:
        inputs, outputs = self.subject.size(bucket)
        measurement = Measurement(
            input_tokens=inputs,
            output_tokens=outputs,
            replica_type=self.subject.replica_type,
            max_request_rate=found.max_request_rate,
            max_request_rate_low=found.low,
            max_request_rate_high=found.high,
            slo=self.subject.slo,
            source=self._source(found.max_request_rate),
        )
        self.journal.end(bucket, found, measurement)

    def _source(self, rate: float | None) -> str:
        return f"{self.endpoint.target}, {_load(rate)}"

    async def _point(self, size: tuple[int, int], step: Step) -> Point:
        """Measure requests in sequence, or one rate of a search."""
        details = {"replica_type": self.subject.replica_type, "source": self._source(step.rate)}
        if step.rate is None:
            self._check_time()
            await self._settle()
            await send_alone(self.session, self.endpoint, *size, 1)  # the first request of each size may be slow
            window = await send_alone(self.session, self.endpoint, *size, self.effort.alone)
            return point_of(window, self.subject.slo, **details)

        async def send(load: Load) -> Window:
            self._check_time()
            await self._settle()
            return await send_at_rate(self.session, self.endpoint, load)

        return await try_rate(send, step, size, self.subject.slo, self.effort, **details)

    def _check_time(self) -> None:
        if self.now() >= self.deadline_s:
            raise _TimeIsUpError

    async def _settle(self) -> None:
        """Wait until the server has dropped canceled requests: a short request is as fast as on an idle server."""
        limit_s = self.now() + _SETTLE_S
        tokens = max(_SHORT[0], self.endpoint.vocabulary.fixed_tokens + 1)
        while True:
            try:
                window = await send_alone(self.session, self.endpoint, tokens, _SHORT[1], 2)
            except MeasurementError:  # still too busy for a request that succeeded when the server was idle
                if self.idle_s is None or self.now() > limit_s:
                    raise
            else:
                latency_s = float(window.latency_s.min())
                self.idle_s = latency_s if self.idle_s is None else min(self.idle_s, latency_s)
                if latency_s <= max(_IDLE_FACTOR * self.idle_s, _IDLE_S) or self.now() > limit_s:
                    return
            await asyncio.sleep(_PAUSE_S)


def _load(rate: float | None) -> str:
    return "one request at a time" if rate is None else f"{rate:.3g} requests/s"
