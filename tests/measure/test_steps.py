"""Step times fitted to load points: what the points tell, and how sure that is."""

from dataclasses import replace

import numpy as np
import pytest
from measuring import queue_engine

from melange.errors import InputError
from melange.measure.steps import EngineLimits, fit_engine, replicas_with, spread_at
from melange.profile.measurement import Measurement
from melange.replica.capacity import Sizes, mean_step_s, prompt_times_s
from melange.replica.engine import Engine


def engine() -> Engine:
    """One with costs of all kinds: of a step, of each that runs, of prompts, of context."""
    plain = queue_engine(8.0, 0.6)
    cost = replace(plain.cost, weights_s=4e-3, token_s=5e-5, context_s=2e-7, request_s=1e-3)
    return replace(plain, cost=cost, max_batched_tokens=2048)


def at(inputs: float, outputs: float) -> Sizes:
    """One size."""
    return Sizes(inputs=np.full((1, 1, 1), inputs), outputs=np.full((1, 1, 1), outputs))


def points(inputs: int, outputs: int, *batches: float, noise: float = 0.0, seed: int = 0) -> list[Measurement]:
    """What the closed form says of one request at a time, and at the rates where that many run."""
    replicas, sizes, random = replicas_with(engine()), at(inputs, outputs), np.random.default_rng(seed)
    own_s = float(prompt_times_s(replicas, sizes, np.zeros((1, 1, 1)))[0][0, 0, 0])
    found = []
    for batch in (1.0, *batches):
        step_s = float(mean_step_s(replicas, sizes, np.full((1, 1, 1), batch))[0, 0, 0]) * np.exp(
            noise * random.normal()
        )
        load = {"concurrency": 1.0} if batch == 1.0 else {"offered_rate": batch / (outputs * step_s)}
        found.append(
            Measurement(
                input_tokens=inputs, output_tokens=outputs, ttft_s={"mean": own_s}, tpot_s={"mean": step_s}, **load
            )
        )
    return found


def step_at(fitted: Engine, inputs: float, outputs: float, batch: float) -> float:
    """Mean step of a batch of one size [s]."""
    return float(mean_step_s(replicas_with(fitted), at(inputs, outputs), np.full((1, 1, 1), batch))[0, 0, 0])


def test_points_of_three_sizes_tell_the_steps_of_a_fourth() -> None:
    """Within 5 % without noise, between and a little beyond the batches that were measured."""
    loads = [*points(64, 64, 4, 16), *points(1024, 64, 2, 8), *points(256, 256, 8, 24)]
    fitted = fit_engine(loads, EngineLimits(max_batched_tokens=2048))
    for inputs, outputs, batch in ((512, 128, 6), (128, 128, 20), (2048, 64, 4)):
        known = step_at(engine(), inputs, outputs, batch)
        assert step_at(fitted, inputs, outputs, batch) == pytest.approx(known, rel=0.05)


def test_noise_widens_what_is_held_possible() -> None:
    """The interval is as wide as points disagree with the fit, and never narrower than points of a minute do."""
    sure = fit_engine([*points(64, 64, 4, 16), *points(1024, 64, 2, 8)])
    loads = [*points(64, 64, *range(2, 18), noise=0.2), *points(1024, 64, *range(2, 10), noise=0.2, seed=1)]
    unsure = fit_engine(loads)
    assert 1.05 < sure.slow < 1.1
    assert 1.15 < unsure.slow < 1.35
    assert unsure.fast == pytest.approx(1 / unsure.slow)


def test_sizes_far_from_all_points_are_less_sure() -> None:
    """The nearer the surer; a measured size is as sure as the fit."""
    loads = points(64, 64, 4, 16)
    fitted = fit_engine(loads)
    near, middle, far = (
        float(spread_at(fitted, loads, at(*size))[0, 0, 0]) for size in ((64, 64), (128, 64), (8000, 64))
    )
    assert near == pytest.approx(np.log(fitted.slow) / 1.1)
    assert near < middle < far < 0.35


def test_without_a_request_alone_nothing_can_be_fitted() -> None:
    """Its first token is what tells the time of a prompt."""
    with pytest.raises(InputError, match="at least one point with single requests"):
        fit_engine(points(64, 64, 4)[1:])
