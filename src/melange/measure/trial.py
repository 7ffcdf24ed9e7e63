"""One rate of a search: windows of load, repeated until it is clear whether the objective holds."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from melange.measure.load import Load
from melange.measure.point import Point, point_of
from melange.measure.search import MARGIN, Effort, Step
from melange.measure.window import Window, merged
from melange.slo import Slo

# Share of the counted requests that is sent first if the objective is expected to hold by a wide margin.
_FEW_SHARE = 1 / 3

Send = Callable[[Load], Awaitable[Window]]


async def try_rate(send: Send, step: Step, size: tuple[int, int], slo: Slo, effort: Effort, **details: Any) -> Point:
    """Load at one rate, repeated until it is clear whether the objective holds.

    A window in which the client was late says nothing about the server. A window in which latency still grows says
    nothing about the server's steady state: another window follows, with a warm-up as long as the latency that was
    seen.

    Parameters
    ----------
    send
        Sends a load to the server.
    step
        The rate, and the expected latency.
    size
        Input and output tokens.
    slo, effort
        The objective, and how thorough the search is.
    details
        Details to record in the point's measurement.
    """
    windows: list[Window] = []
    others: list[Window] = []
    counted = effort.counted(slo)
    for number, least in enumerate(_counts(counted, step, effort)):
        window = await send(_load(step, size, least, seed=number))
        alone = point_of(window, slo)
        is_unsteady = not window.keeps_up and not window.is_cut and alone.excess_low <= 1
        if window.is_client_late or (is_unsteady and MARGIN * alone.latency_s > step.latency_s):
            others.append(window)
        else:
            windows.append(window)
        if is_unsteady and math.isfinite(alone.latency_s):
            step = replace(step, latency_s=max(step.latency_s, MARGIN * alone.latency_s))
        point = point_of(merged(windows) if windows else others[-1], slo, **details)
        is_enough = point.is_settled(effort.narrow) if least == counted else point.is_clear
        if windows and is_enough and (point.holds or not is_unsteady):
            break
    return point


def _counts(counted: int, step: Step, effort: Effort) -> list[int]:
    """Least number of requests to count in each window."""
    return [*([math.ceil(counted * _FEW_SHARE)] if step.is_far else []), *([counted] * effort.repeats)]


def _load(step: Step, size: tuple[int, int], least: int, seed: int) -> Load:
    assert step.rate is not None
    return Load(
        input_tokens=size[0],
        output_tokens=size[1],
        rate=step.rate,
        warm_up=step.warm_up(),
        counted=step.counted(least),
        patience_s=step.patience_s,
        seed=seed,
    )
