"""Long jobs of the page that users follow. A job that no user follows any more is canceled."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from melange.files import Json
from melange.serve.job import Job, State
from melange.serve.queue import Queue

# Number of results to keep: a certified plan of the whole market has some megabytes.
_MOST_KEPT = 48
# Longest time without a line: a line detects a closed page, and proxies close silent connections.
_KEEP_ALIVE_S = 5.0


@dataclass(slots=True, eq=False)
class _Followed:
    """A job, and the number of users who follow it."""

    job: Job
    followers: int = 0


class FollowedJobs:
    """Jobs by question: users who ask the same question follow one job, and its result is kept.

    Parameters
    ----------
    queue
        Runs the jobs.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._running: dict[str, _Followed] = {}
        self._results: OrderedDict[str, Json] = OrderedDict()
        self._ending: set[asyncio.Task[None]] = set()

    def result(self, key: str) -> Json | None:
        """The result of a job; None if the job has not ended, or ended long ago."""
        return self._results.get(key)

    async def follow(self, key: str, verb: str, arguments: Sequence[str]) -> AsyncIterator[Json]:
        """Yield the progress of a job, then its result or its error; a comment after a time without progress.

        Raises
        ------
        BusyError
            Too many jobs are waiting.
        """
        if (known := self._results.get(key)) is not None:
            yield {"result": known}
            return
        followed = self._running.get(key)
        if followed is None or followed.job.is_ended:
            followed = _Followed(self._queue.add(verb, arguments, {}, {}, "", is_confined=False))
            self._running[key] = followed
        followed.followers += 1
        job, told = followed.job, 0
        try:
            yield {"progress": "waiting for other work" if job.state is State.QUEUED else "starting"}
            while True:
                if told < len(job.progress):
                    told = len(job.progress)
                    yield {"progress": job.progress[-1]}
                if job.is_ended:
                    break
                if not await _is_news(job, told):
                    yield {}
            if job.state is State.DONE:
                self._keep(key, job.result)
                yield {"result": job.result}
            else:
                yield {"error": job.error or {"message": "canceled", "hint": "", "reasons": []}}
        finally:
            self._leave(key, followed)

    def _keep(self, key: str, result: Json) -> None:
        self._results[key] = result
        if len(self._results) > _MOST_KEPT:
            self._results.popitem(last=False)

    def _leave(self, key: str, followed: _Followed) -> None:
        followed.followers -= 1
        if followed.followers > 0:
            return
        if self._running.get(key) is followed:
            del self._running[key]
        if not followed.job.is_ended:
            ending = asyncio.create_task(followed.job.cancel())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)


async def _is_news(job: Job, told: int) -> bool:
    """Whether there is news before the next line is due."""
    try:
        async with asyncio.timeout(_KEEP_ALIVE_S), job.changed:
            await job.changed.wait_for(lambda: job.is_ended or len(job.progress) > told)
    except TimeoutError:
        return False
    return True
