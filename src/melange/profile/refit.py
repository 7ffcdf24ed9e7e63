"""Our step's coefficients, fitted to step times that come from elsewhere.

Given step times of a replica (measured operators, a trace) over a grid of batch, context and prompt chunk, the result
is a :class:`~melange.replica.step.StepCost` like any other, so the closed form and the simulator run on it unchanged.
Coefficients that step times cannot distinguish are scaled together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.replica.step import StepCost, step_time_s
from melange.workload.workload import Array

# Each group is multiplied by a factor of its own. Host work of a request is in no step's time, and stays.
_GROUPS = (
    ("weights_s", "experts_s"),
    ("token_s", "output_s"),
    ("context_s", "window_context_s"),
    ("position_s", "window_position_s"),
    ("one_shot_s", "ring_s"),
    ("one_shot_token_s", "ring_token_s"),
    ("host_s",),
    ("sequence_s",),
)
# Pull of each logarithm of a factor towards 0, as a share of the weight of all points: decides between coefficients
# that act alike, such as the reading of weights and the host's work of a step, and hardly anything else.
_PULL = 1e-3
# Levenberg and Marquardt's damping at the start and where a round is given up; rounds at most; and the step of
# difference quotients, which are no slopes where it is larger and lose digits where it is smaller. Judgments: they
# decide how long a fit takes rather than where it ends.
_DAMPING = 1e-3
_LARGEST_DAMPING = 1e6
_ROUNDS = 60
_NUDGE = 1e-4
# A round that lowers the loss by less than this share of itself is the last. A judgment: step times are known to less.
_SETTLED = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Times of engine steps on one replica.

    Parameters
    ----------
    batch
        Running requests that get a token (N,).
    context_tokens
        Tokens that their KV caches hold in total (N,).
    prefill_tokens
        Prompt tokens that the step reads besides (N,).
    position
        Tokens that each of those attends to, on average (N,).
    time_s
        What the step took (N,) [s].
    """

    batch: Array
    context_tokens: Array
    prefill_tokens: Array
    position: Array
    time_s: Array


def refit(cost: StepCost, steps: Steps) -> StepCost:
    """The coefficients, each group times the factor with which predicted steps come nearest to the given ones.

    Least squares of ``log(predicted / given)``, by the method of Levenberg and Marquardt.

    Parameters
    ----------
    cost
        One replica's coefficients, plain floats, to start from.
    steps
        Step times, at least one.

    Examples
    --------
    >>> from melange.catalog.bundled import accelerators, find_model
    >>> from melange.replica.era import find_era
    >>> from melange.replica.step import scaled, step_cost
    >>> llama = find_model("meta-llama/Llama-3.1-8B")
    >>> ours = step_cost(llama, accelerators()["H100-80GB"], constants=find_era("vllm").constants)
    >>> batch = np.array([1.0, 16.0, 256.0])
    >>> times = Steps(
    ...     batch=batch, context_tokens=1000 * batch, prefill_tokens=0 * batch, position=0 * batch,
    ...     time_s=predicted_s(scaled(ours, 1.2), batch=batch, context_tokens=1000 * batch),
    ... )
    >>> found = predicted_s(refit(ours, times), batch=batch, context_tokens=1000 * batch)
    >>> bool(np.allclose(found / times.time_s, 1, atol=0.01))
    True
    """
    return refit_to(cost, lambda trial: _log_ratio(trial, steps))


def refit_to(
    cost: StepCost,
    log_ratio: Callable[[StepCost], Array],
    groups: Sequence[Sequence[str]] = _GROUPS,
    *,
    pull: float | None = None,
) -> StepCost:
    """The coefficients, each group times the factor with which whatever was predicted comes nearest to what was seen.

    Parameters
    ----------
    cost
        Coefficients to start from; a group whose coefficients are all 0 stays as it is.
    log_ratio
        Logarithms of predicted over seen (N,), for trial coefficients.
    groups
        Names of coefficients that are scaled together.
    pull
        Weight of the squared logarithm of each factor beside those of the points; None: a thousandth of all points.
    """
    groups = [group for group in groups if any(getattr(cost, name) > 0 for name in group)]
    factors = np.zeros(len(groups))
    residual = log_ratio(cost)
    pull = _PULL * len(residual) if pull is None else pull
    best = float(residual @ residual)
    damping = _DAMPING
    for _ in range(_ROUNDS):
        slopes = np.stack(
            [
                (log_ratio(_with(cost, groups, factors + _NUDGE * unit)) - residual) / _NUDGE
                for unit in np.eye(len(groups))
            ],
            axis=1,
        )
        gradient = slopes.T @ residual + pull * factors
        curvature = slopes.T @ slopes + pull * np.eye(len(groups))
        while damping < _LARGEST_DAMPING:
            trial = factors - np.linalg.solve(curvature + damping * np.eye(len(groups)), gradient)
            trial_residual = log_ratio(_with(cost, groups, trial))
            loss = float(trial_residual @ trial_residual + pull * (trial @ trial))
            if loss < best:
                break
            damping *= 10
        else:
            break
        is_done = best - loss < _SETTLED * best
        factors, residual, best, damping = trial, trial_residual, loss, damping / 10
        if is_done:
            break
    return _with(cost, groups, factors)


def misfit(cost: StepCost, steps: Steps) -> float:
    """Root mean square of ``log(predicted / given)`` step time."""
    return float(np.sqrt(np.mean(_log_ratio(cost, steps) ** 2)))


def predicted_s(cost: StepCost, *, batch: Array, context_tokens: Array, **others: Array) -> Array:
    """Step times as an array, whatever the coefficients are [s]."""
    return np.asarray(step_time_s(cost, batch=batch, context_tokens=context_tokens, **others), float)


def _log_ratio(cost: StepCost, steps: Steps) -> Array:
    step_s = predicted_s(
        cost,
        batch=steps.batch,
        context_tokens=steps.context_tokens,
        prefill_tokens=steps.prefill_tokens,
        position=steps.position,
    )
    return np.asarray(np.log(step_s / steps.time_s))


def _with(cost: StepCost, groups: Sequence[Sequence[str]], factors: Array) -> StepCost:
    """The coefficients of each group times ``exp(factor)``."""
    values = {
        name: float(getattr(cost, name) * np.exp(np.clip(factor, -20.0, 20.0)))
        for group, factor in zip(groups, factors, strict=True)
        for name in group
    }
    return replace(cost, **values)
