"""Load on a server: requests in sequence, or at random times regardless of earlier answers."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from melange.errors import MeasurementError
from melange.measure.answer import BUSY, Answer, ask
from melange.measure.endpoint import Endpoint
from melange.measure.window import Window
from melange.units import count_of
from melange.workload.workload import Array

if TYPE_CHECKING:
    import aiohttp

# How often the client checks its own clock, and whether a server is hopelessly behind [s].
_TICK_S, _LOOK_S = 0.02, 0.25
# A server is hopelessly behind if this many more requests are in flight than before the window, if they are this share
# of the requests sent since, and if completing them takes longer (Little's law) than this share of the patience.
_HOPELESS, _HOPELESS_SHARE, _PATIENCE_SHARE = 24, 0.4, 0.5
# A connection without data for this long is dead [s].
_SILENCE_S = 600.0
# A connection that was idle longer is not reused: many servers close theirs after 5 s, maybe just as a request is sent.
_KEPT_S = 2.0
# Lengths may differ from the requested ones by one token, or by this share.
_OFF_TOKENS, _OFF_SHARE = 1.0, 0.02
# Up to this share of failures is ignored; with more, the server cannot serve the size at that rate; if most requests
# fail, something else is wrong.
_FEW_FAILED, _MOST_FAILED = 0.01, 0.5
_GIVEN_UP = "timed out"
# Status codes with which a server rejects requests of a size.
_REFUSED = (400, 413, 422)


class RefusedError(MeasurementError):
    """The server rejects requests of this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load to send.

    Parameters
    ----------
    input_tokens, output_tokens
        Size of every request.
    rate
        Requests per second.
    warm_up
        Requests sent before the first that is counted.
    counted
        Requests that are counted.
    patience_s
        How long to wait for the last counted request after all were sent [s].
    seed
        Seed of the send times.
    """

    input_tokens: int
    output_tokens: int
    rate: float
    warm_up: int
    counted: int
    patience_s: float
    seed: int = 0

    def times_s(self) -> Array:
        """When to send the warm-up requests, the counted ones, and at least as many more while those complete [s].

        Times of a Poisson process, given the number of requests in each of the three parts: uniformly random, so that
        the rate is exact in every part and not only on average.
        """
        random = np.random.default_rng(self.seed)
        ends = np.array([self.warm_up, self.counted, max(self.counted, math.ceil(self.patience_s * self.rate))])
        begins = np.concatenate([[0], np.cumsum(ends)])[:-1]
        parts = [
            begin + np.sort(random.random(count)) * count
            for begin, count in zip(begins.tolist(), ends.tolist(), strict=True)
        ]
        return np.asarray(np.concatenate(parts) / self.rate)


@contextlib.asynccontextmanager
async def client_session(api_key: str = "") -> AsyncIterator[aiohttp.ClientSession]:
    """A session that allows as many connections as requests are in flight."""
    import aiohttp

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT_S),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0, sock_read=_SILENCE_S),
        headers=headers,
        auto_decompress=True,
    ) as session:
        yield session


async def send_alone(
    session: aiohttp.ClientSession, endpoint: Endpoint, input_tokens: int, output_tokens: int, count: int
) -> Window:
    """Send requests one after another: the latency of an idle server.

    Raises
    ------
    MeasurementError
        A request fails, or lengths differ from the requested ones.
    """
    now = asyncio.get_running_loop().time
    answers = []
    for _ in range(count):
        began = now()
        answer = await ask(session, endpoint.target, endpoint.body(input_tokens, output_tokens), began)
        # The client makes the prompt before it sends the request, so the prompt adds nothing to the server's time.
        answer.scheduled_s = answer.sent_s
        answers.append(answer)
        if answer.failure:
            _fail_alone(endpoint, answer, input_tokens, output_tokens)
    _check(endpoint, answers, input_tokens, output_tokens)
    span_s = answers[-1].last_s - answers[0].scheduled_s
    return _window(answers, None, input_tokens, output_tokens, finished=count, span_s=span_s)


def _fail_alone(endpoint: Endpoint, answer: Answer, input_tokens: int, output_tokens: int) -> NoReturn:
    """A request that was alone on the server failed."""
    what = f"{endpoint.target}: a request of {input_tokens} tokens in and {output_tokens} out, alone, failed"
    if answer.status in _REFUSED:
        raise RefusedError(f"{what}: {answer.failure}", hint="the server's message says what it accepts")
    hint = "make sure that nobody else uses the server" if answer.status in BUSY else "check the server's log"
    raise MeasurementError(f"{what}: {answer.failure}", hint=hint)


async def send_at_rate(session: aiohttp.ClientSession, endpoint: Endpoint, load: Load) -> Window:
    """Send requests at random times, whether or not earlier ones were answered.

    A request's latency starts at its scheduled time. Sending continues until the counted requests are answered;
    requests still in flight then are canceled. Ends early if the server is hopelessly behind.

    Raises
    ------
    MeasurementError
        Most requests fail, or lengths differ from the requested ones.
    """
    test = _Test(session=session, endpoint=endpoint, load=load)
    await test.run()
    answers = test.counted()
    _check(endpoint, answers, load.input_tokens, load.output_tokens)
    finished, span_s = test.finished()
    return _window(
        answers,
        load.rate,
        load.input_tokens,
        load.output_tokens,
        finished=finished,
        span_s=span_s,
        tick_lag_s=test.tick_lag_s,
        is_cut=test.is_cut,
    )


class _Test:
    """One load test while it runs."""

    def __init__(self, *, session: aiohttp.ClientSession, endpoint: Endpoint, load: Load) -> None:
        self.session, self.endpoint, self.load = session, endpoint, load
        self.now = asyncio.get_running_loop().time
        self.tasks: dict[int, asyncio.Task[Answer]] = {}
        self.answers: dict[int, Answer] = {}
        self.begin_s: dict[int, float] = {}
        self.tick_lag_s: list[float] = []
        self.is_cut = False
        self.start_s = self.end_s = self.now()
        self.first, self.last = load.warm_up, load.warm_up + load.counted

    async def run(self) -> None:
        """Send, watch, and leave no request in flight."""
        self.start_s = self.now()
        helpers = [asyncio.create_task(self._tick()), asyncio.create_task(self._send())]
        try:
            await self._watch(helpers[1])
        finally:
            self.end_s = self.now()
            left = [*helpers, *self.tasks.values()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    def counted(self) -> list[Answer]:
        """Answers that count, in the order of sending; requests without an answer count as given up."""
        sent = [(place, self.begin_s[place]) for place in range(self.first, self.last) if place in self.begin_s]
        return [
            self.answers.get(place) or Answer(scheduled_s=begin_s, sent_s=begin_s, failure=_GIVEN_UP)
            for place, begin_s in sent
        ]

    def finished(self) -> tuple[int, float]:
        """Requests that completed while the counted ones were being sent, and how long that took [s]."""
        begin_s = self.start_s + self.first / self.load.rate
        end_s = min(self.start_s + self.last / self.load.rate, self.end_s)
        ends = [answer.last_s for answer in self.answers.values() if not answer.failure]
        return sum(begin_s < last_s <= end_s for last_s in ends), max(end_s - begin_s, 0.0)

    async def _send(self) -> None:
        start_s = self.start_s
        for place, time_s in enumerate(self.load.times_s().tolist()):
            # The prompt is made ahead of time, so that it does not delay sending.
            body = self.endpoint.body(self.load.input_tokens, self.load.output_tokens)
            if (wait_s := start_s + time_s - self.now()) > 0:
                await asyncio.sleep(wait_s)
            self.begin_s[place] = start_s + time_s
            task = asyncio.create_task(ask(self.session, self.endpoint.target, body, start_s + time_s))
            self.tasks[place] = task
            task.add_done_callback(partial(self._done, place))

    def _done(self, place: int, task: asyncio.Task[Answer]) -> None:
        self.tasks.pop(place, None)
        if not task.cancelled():
            self.answers[place] = task.result()

    async def _tick(self) -> None:
        while True:
            due_s = self.now() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self.tick_lag_s.append(self.now() - due_s)

    async def _watch(self, sender: asyncio.Task[None]) -> None:
        """Wait until the counted requests have completed, time has run out, or the server is hopelessly behind."""
        deadline_s = math.inf
        before: int | None = None
        while not self._is_answered() and self.now() < deadline_s:
            await asyncio.sleep(min(_LOOK_S, 0.5 / self.load.rate))
            if sender.done() and not self.tasks:
                sender.result()
                return
            sent = len(self.begin_s)
            if sent >= self.last and math.isinf(deadline_s):
                deadline_s = self.now() + self.load.patience_s
            if sent >= self.first:
                before = len(self.tasks) if before is None else before
                self.is_cut = self._is_hopeless(len(self.tasks) - before, sent - self.first)
                if self.is_cut or self._is_broken():
                    return

    def _is_hopeless(self, more: int, sent: int) -> bool:
        is_slow = len(self.tasks) > _PATIENCE_SHARE * self.load.patience_s * self.load.rate
        return is_slow and more > _HOPELESS and more > _HOPELESS_SHARE * sent

    def _is_answered(self) -> bool:
        return all(place in self.answers for place in range(self.first, self.last))

    def _is_broken(self) -> bool:
        failed = sum(bool(answer.failure) for answer in self.answers.values())
        return failed > 8 and failed > _MOST_FAILED * len(self.answers)


def _check(endpoint: Endpoint, answers: Sequence[Answer], input_tokens: int, output_tokens: int) -> None:
    """Check that the server did what was requested."""
    whole = [answer for answer in answers if not answer.failure]
    failures = [answer for answer in answers if answer.failure and answer.failure != _GIVEN_UP]
    others = [answer for answer in failures if answer.status not in BUSY]
    if others and len(others) > _MOST_FAILED * len(answers):
        raise MeasurementError(
            f"{endpoint.target}: {len(others)} of {len(answers)} requests of {input_tokens} tokens in and "
            f"{output_tokens} out failed; the first: {others[0].failure}",
            hint="check the server's log",
        )
    counted = [answer for answer in whole if answer.is_counted]
    if not whole:
        return
    if not counted:
        raise MeasurementError(f"{endpoint.target}: none of {count_of(len(whole), 'stream')} had a usage block")
    for what, wanted, found in (
        ("prompts", input_tokens, float(np.mean([answer.input_tokens for answer in counted]))),
        ("completions", output_tokens, float(np.mean([answer.output_tokens for answer in counted]))),
    ):
        if abs(found - wanted) > max(_OFF_TOKENS, _OFF_SHARE * wanted):
            raise MeasurementError(
                f"{endpoint.target}: {what} must be {wanted} tokens, but the server counts {found:g} on average",
                hint="the server must support ignore_eos or min_tokens" if what == "completions" else "",
            )


def _window(
    answers: Sequence[Answer],
    rate: float | None,
    input_tokens: int,
    output_tokens: int,
    *,
    finished: int,
    span_s: float,
    tick_lag_s: Sequence[float] = (),
    is_cut: bool = False,
) -> Window:
    """Answers in the order of sending, as arrays."""
    failures = [answer.failure for answer in answers if answer.failure and answer.failure != _GIVEN_UP]
    if len(failures) <= _FEW_FAILED * len(answers):
        answers = [answer for answer in answers if answer.failure in ("", _GIVEN_UP)]

    def of(name: str) -> Array:
        return np.array([math.inf if answer.failure else getattr(answer, name) for answer in answers], float)

    scheduled = np.array([answer.scheduled_s for answer in answers], float)
    return Window(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        offered_rate=rate,
        scheduled_s=scheduled - scheduled[0] if len(scheduled) else scheduled,
        ttft_s=of("ttft_s"),
        tpot_s=of("tpot_s"),
        ntpot_s=of("ntpot_s"),
        latency_s=of("latency_s"),
        itl_s=np.array([gap for answer in answers for gap in answer.gaps], float),
        lag_s=np.array([answer.lag_s for answer in answers], float),
        tick_lag_s=np.array(tick_lag_s, float),
        finished=finished,
        span_s=span_s,
        failed=len(failures),
        failure=failures[0] if failures else "",
        is_cut=is_cut,
    )
