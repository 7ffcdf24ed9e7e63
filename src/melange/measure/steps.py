"""Fit the step times of an engine to load points, without datasheet estimates.

If the accelerator and the model are known, :mod:`melange.profile.anchor` corrects an estimate; here there is no
estimate. The step has the same form (:mod:`melange.replica.step`), and its coefficients are fitted to the points::

    TPOT of requests at a rate      = mean step of the closed form at that load
    TTFT of requests one at a time  = the steps that read one prompt

Coefficients that the points cannot distinguish keep the proportions of a first guess, which also comes from the points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace

import numpy as np

from melange.catalog.model import Model
from melange.errors import InputError
from melange.profile.comparison import compare
from melange.profile.correction import INTERVAL, SHARES
from melange.profile.measurement import Measurement
from melange.profile.refit import refit_to
from melange.replica.capacity import Replicas, Sizes, prompt_times_s
from melange.replica.engine import Engine
from melange.replica.step import StepCost, scaled, stack
from melange.workload.workload import Array

# Each coefficient has its own scale. TTFT determines the time of prompt tokens, TPOT under load the time of the others.
_GROUPS = (
    ("host_s",),
    ("token_s",),
    ("sequence_s",),
    ("context_s",),
    ("position_s",),
    ("request_s",),
    ("weights_s",),
)
# The first guess: how the step of one request divides, the least share of a prompt's step that goes to its tokens, and
# how much attention adds per token at a prompt of this many tokens. Chosen by judgment; the fit starts from them.
_TOKENS_SHARE = 0.1
_HOST_SHARE, _WEIGHTS_SHARE, _SEQUENCE_SHARE = 0.3, 0.5, 0.1
_CONTEXT_SHARE, _REQUEST_SHARE, _POSITION_SHARE = 0.1, 0.5, 0.2
_POSITION_TOKENS = 1000.0
# Least relative error of step times, however good the fit: one-minute load points differ by this share.
_LEAST_SPREAD = 0.05
# Standard deviation of the logarithm of coefficients in the first guess.
_GUESS_SPREAD = 1.5
# Additional spread at sizes far from all measured ones; the distance scale is the same as for estimates.
_FAR_SPREAD, _REACH = 0.3, SHARES.reach
# A limit that no server reaches; fits into 32 bits.
_UNLIMITED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What an engine allows, as far as known.

    Parameters
    ----------
    max_sequences, max_batched_tokens
        Most running requests, and most tokens of one step.
    max_context
        Longest prompt plus completion [tokens].
    kv_tokens
        Tokens that the KV cache holds in all layers.
    block_tokens
        Tokens of one KV block.
    is_chunked
        Whether prompts are read in chunks together with running requests.
    """

    max_sequences: int = 256
    max_batched_tokens: int = 2048
    max_context: int = 131072
    kv_tokens: float = _UNLIMITED
    block_tokens: int = 16
    is_chunked: bool = True


def fit_engine(points: Sequence[Measurement], limits: EngineLimits | None = None) -> Engine:
    """The engine whose step times fit the load points best.

    Minimizes the squared logarithms of predicted over measured TPOT at every point, and of predicted over measured TTFT
    at points with one request at a time.

    Parameters
    ----------
    points
        With mean TPOT, and with mean TTFT for at least one point with one request at a time (``concurrency=1``).
    limits
        What the engine allows.

    Raises
    ------
    InputError
        No point with one request at a time.
    """
    limits = limits or EngineLimits()
    alone = [point for point in points if point.concurrency == 1 and point.ttft_s.get("mean")]
    if not alone:
        raise InputError(
            "measurements: step times need at least one point with single requests (concurrency 1) and its TTFT"
        )
    model = one_layer(limits)

    def log_ratio(cost: StepCost) -> Array:
        replicas = _replicas(cost, limits)
        ratios = [one[2] / one[1] for point in points if (one := compare(replicas, model, point)) is not None]
        return np.log([*ratios, *(_prompt_ratio(replicas, point) for point in alone)])

    cost = refit_to(_first_guess(alone), log_ratio, _GROUPS, pull=(_LEAST_SPREAD / _GUESS_SPREAD) ** 2)
    spread = max(float(np.sqrt(np.mean(log_ratio(cost) ** 2))), _LEAST_SPREAD)
    return Engine(
        prefix_kept=0.0,
        cost=cost,
        kv_tokens=limits.kv_tokens,
        full_layers=1,
        max_sequences=limits.max_sequences,
        max_batched_tokens=limits.max_batched_tokens,
        block_tokens=limits.block_tokens,
        is_chunked=limits.is_chunked,
        max_context=limits.max_context,
        fast=math.exp(-INTERVAL * spread),
        slow=math.exp(INTERVAL * spread),
        source="measured",
    )


def spread_at(engine: Engine, points: Sequence[Measurement], sizes: Sizes) -> Array:
    """Standard deviation of the logarithm of the step time at each size (1, I, O); it grows with distance from points.

    ``spread^2 = fit^2 + far^2 (1 - exp(-d^2 / (2 reach^2)))``; d is the logarithmic distance to the nearest measured
    size.
    """
    fit = math.log(engine.slow) / INTERVAL
    measured = {(point.input_tokens, point.output_tokens) for point in points}
    apart = np.min([np.log(sizes.inputs / i) ** 2 + np.log(sizes.outputs / o) ** 2 for i, o in measured], axis=0)
    return np.asarray(np.sqrt(fit**2 + _FAR_SPREAD**2 * -np.expm1(-apart / (2 * _REACH**2))))


def replicas_with(engine: Engine, factor: float | Array = 1.0) -> Replicas:
    """The engine in the form that the closed form needs, with all step times multiplied by ``factor``."""
    limits = EngineLimits(
        max_sequences=engine.max_sequences,
        max_batched_tokens=engine.max_batched_tokens,
        max_context=engine.max_context,
        kv_tokens=engine.kv_tokens,
        block_tokens=engine.block_tokens,
        is_chunked=engine.is_chunked,
    )
    replicas = _replicas(engine.cost, limits)
    return replace(replicas, cost=scaled(replicas.cost, factor))


def one_layer(limits: EngineLimits) -> Model:
    """A placeholder for a model of unknown shape: its KV cache is counted in tokens of all layers."""
    return Model(
        name="unknown",
        layers=1,
        hidden_size=1,
        heads=1,
        kv_heads=1,
        head_size=1,
        intermediate_size=1,
        vocabulary_size=1,
        max_context=limits.max_context,
    )


def _replicas(cost: StepCost, limits: EngineLimits) -> Replicas:
    return Replicas(
        cost=stack([cost]),
        kv_tokens=np.full((1, 1, 1), float(limits.kv_tokens)),
        max_sequences=np.full((1, 1, 1), float(limits.max_sequences)),
        max_batched_tokens=np.full((1, 1, 1), float(limits.max_batched_tokens)),
        block_tokens=limits.block_tokens,
        is_chunked=limits.is_chunked,
        max_context=limits.max_context,
    )


def _prompt_ratio(replicas: Replicas, point: Measurement) -> float:
    """Predicted over measured time to first token of a request that is alone."""
    sizes = Sizes(inputs=np.full((1, 1, 1), point.input_tokens), outputs=np.full((1, 1, 1), point.output_tokens))
    own_s = prompt_times_s(replicas, sizes, np.zeros((1, 1, 1)))[0]
    return float(own_s[0, 0, 0]) / point.ttft_s["mean"]


def _first_guess(alone: Sequence[Measurement]) -> StepCost:
    """Coefficients of the right magnitude, from requests one at a time."""
    longest = max(alone, key=lambda point: point.input_tokens)
    prompt_s = longest.ttft_s["mean"]
    step_s = longest.tpot_s.get("mean") or prompt_s / longest.input_tokens
    token_s = max(prompt_s - step_s, _TOKENS_SHARE * prompt_s) / longest.input_tokens
    absent = {one.name: 0.0 for one in fields(StepCost) if one.default is MISSING}
    return replace(
        StepCost(**(absent | {"window": math.inf})),
        host_s=_HOST_SHARE * step_s,
        weights_s=_WEIGHTS_SHARE * step_s,
        sequence_s=_SEQUENCE_SHARE * step_s,
        context_s=_CONTEXT_SHARE * step_s / max(longest.input_tokens, 100.0),
        token_s=token_s,
        request_s=_REQUEST_SHARE * step_s,
        position_s=_POSITION_SHARE * token_s / _POSITION_TOKENS,
    )
