"""Requests of mixed sizes on a real server, and what came of them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import aiohttp
import numpy as np
import numpy.typing as npt

from melange.measure.answer import Answer, ask
from melange.measure.endpoint import Endpoint

Floats = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Requests:
    """N requests: when they arrive [s] and their sizes [tokens]."""

    arrival_s: Floats
    input_tokens: Whole
    output_tokens: Whole

    @property
    def made(self) -> int:
        """Output tokens of all."""
        return int(self.output_tokens.sum())


def poisson(sizes: list[tuple[int, int]], shares: list[float], rate: float, count: int, seed: int) -> Requests:
    """Requests of those sizes at random times."""
    random = np.random.default_rng(seed)
    chosen = np.array(sizes)[random.choice(len(sizes), size=count, p=np.array(shares) / sum(shares))]
    return Requests(
        arrival_s=np.cumsum(random.exponential(1 / rate, count)), input_tokens=chosen[:, 0], output_tokens=chosen[:, 1]
    )


async def send_all(session: aiohttp.ClientSession, endpoint: Endpoint, requests: Requests) -> list[Answer]:
    """All of them at their times; none is canceled."""
    now = asyncio.get_running_loop().time
    bodies = [
        endpoint.body(int(inputs), int(outputs))
        for inputs, outputs in zip(requests.input_tokens, requests.output_tokens, strict=True)
    ]
    start_s, tasks = now() + 0.1, []
    for time_s, body in zip((start_s + requests.arrival_s).tolist(), bodies, strict=True):
        await asyncio.sleep(max(time_s - now(), 0))
        tasks.append(asyncio.create_task(ask(session, endpoint.target, body, time_s)))
    return list(await asyncio.gather(*tasks))


def span_s(answers: list[Answer]) -> float:
    """From when the first was to be sent to the last token of all [s]."""
    return max(answer.last_s for answer in answers) - answers[0].scheduled_s
