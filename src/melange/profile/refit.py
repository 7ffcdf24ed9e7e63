"""Coefficients of our step-time model, fitted to step times from other sources.

Given step times of a replica (measured operators, a trace) over a grid of batch size, context and prompt chunk, the
result is an ordinary :class:`~melange.replica.step.StepCost`, which the closed form and the simulator use unchanged.
Coefficients that step times cannot distinguish are scaled together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from melange.replica.step import StepCost, step_time_s
from melange.workload.workload import Array

# Each group has its own factor. Host work per request is not part of any step's time, and is unchanged.
_GROUPS = (
    ("weights_s", "experts_s"),
    ("token_s", "output_s", "padding_s"),
    ("context_s", "window_context_s"),
    ("position_s", "window_position_s"),
    ("one_shot_s", "ring_s"),
    ("one_shot_token_s", "ring_token_s"),
    ("host_s",),
    ("sequence_s",),
)
# Weight that pulls the logarithm of each factor toward 0, as a share of the weight of all points: it decides between
# coefficients with the same effect, such as reading weights and the host's work per step, and changes little else.
_PULL = 1e-3
# Levenberg-Marquardt damping at the start and where an iteration is given up; most iterations; and the step of
# difference quotients: if larger, they are not slopes, and if smaller, they lose digits. Chosen by judgment: they
# decide how long a fit takes rather than where it ends.
_DAMPING = 1e-3
_LARGEST_DAMPING = 1e6
_ROUNDS = 60
_NUDGE = 1e-4
# An iteration that reduces the loss by less than this share is the last. Chosen by judgment: step times are less exact.
_SETTLED = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """Times of engine steps on one replica.

    Parameters
    ----------
    batch
        Running requests that generate a token (N,).
    context_tokens
        Tokens that their KV caches hold in total (N,).
    prefill_tokens
        Prompt tokens that the step also processes (N,).
    position
        Mean number of tokens that each of these attends to (N,).
    time_s
        Duration of the step (N,) [s].
    """

    batch: Array
    context_tokens: Array
    prefill_tokens: Array
    position: Array
    time_s: Array


def refit(cost: StepCost, steps: Steps) -> StepCost:
    """The coefficients with a factor for each group, chosen so that predicted steps are closest to the given ones.

    Least squares of ``log(predicted / given)``, by the Levenberg-Marquardt method.

    Parameters
    ----------
    cost
        One replica's coefficients to start from, as plain floats.
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
    """The coefficients with a factor for each group, chosen so that predictions are closest to the observations.

    Parameters
    ----------
    cost
        Coefficients to start from; a group whose coefficients are all 0 is unchanged.
    log_ratio
        Logarithms of predicted over observed values (N,), for trial coefficients.
    groups
        Names of coefficients that are scaled together.
    pull
        Weight of the squared logarithm of each factor, relative to the points; None: a thousandth of all points.
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
