"""The compiled formula of a step against the one over arrays: the same physics, written twice."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import pytest

from melange.replica.simulated import compiled_step
from melange.replica.step import StepCost, step_time_s

KINDS = ("dense", "experts", "windows", "split", "corrected", "drafts", "all")


def random_cost(seed: int, kind: str) -> StepCost:
    """Coefficients of plausible size; of terms that a kind does not have, zeros."""
    rng = np.random.default_rng(seed)
    cost = StepCost(**{one.name: float(rng.uniform(0.1, 1.0)) * 1e-5 for one in fields(StepCost)})
    cost = replace(cost, weights_s=float(rng.uniform(1e-3, 2e-2)), window=float(rng.integers(64, 4096)))
    cost = replace(cost, experts_s=cost.weights_s * 0.9, expert_decay=-float(rng.uniform(0.01, 0.5)))
    cost = replace(cost, batch_power=float(rng.uniform(-0.2, 0.2)), least_batch=2.0, most_batch=64.0)
    cost = replace(cost, draft_tokens=float(rng.integers(1, 8)), accepted_tokens=float(rng.uniform(0.1, 3.0)))
    absent = {
        "experts": ("experts_s", "expert_decay", "padding_s"),
        "windows": ("window_context_s", "window_position_s"),
        "split": ("one_shot_s", "one_shot_token_s", "ring_s", "ring_token_s"),
        "corrected": ("batch_power", "least_batch", "most_batch"),
        "drafts": ("draft_tokens", "accepted_tokens"),
    }
    without = [name for key, names in absent.items() if kind not in (key, "all") for name in names]
    return replace(cost, **dict.fromkeys(without, 0.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(20))
def test_both_formulas_of_a_step_agree(kind: str, seed: int) -> None:
    """On requests that are alike and a prompt that is read in one step: there the compiled sums have a closed form."""
    cost, rng = random_cost(seed, kind), np.random.default_rng(seed)
    batch, context = int(rng.integers(0, 200)), int(rng.integers(1, 20_000))
    prompt, admitted = int(rng.integers(0, 8_000)), int(rng.integers(0, 4))
    longest = int(rng.integers(0, prompt + 1))
    expected = step_time_s(
        cost,
        batch=float(batch),
        context_tokens=float(batch * context),
        prefill_tokens=float(prompt),
        position=prompt / 2,
        admitted=float(admitted),
        longest=float(longest),
    )
    row = np.array(astuple(cost))
    pairs, window_pairs = 0.5 * prompt**2, compiled_step.attended.py_func(prompt, cost.window)
    look_back_s = cost.context_s * batch * context + cost.window_context_s * batch * min(context, cost.window)
    fixed = compiled_step.fixed_s.py_func(row, batch, prompt, longest, pairs, window_pairs, admitted)
    found = compiled_step.batch_factor.py_func(row, batch) * (fixed + look_back_s)
    assert found == pytest.approx(float(expected), rel=1e-12)


def test_every_coefficient_has_its_column() -> None:
    """A field that is added to the one formula must be thought of in the other."""
    columns = (
        "WEIGHTS",
        "EXPERTS",
        "EXPERT_DECAY",
        "TOKEN",
        "OUTPUT",
        "CONTEXT",
        "WINDOW_CONTEXT",
        "WINDOW",
        "POSITION",
    )
    columns += ("WINDOW_POSITION", "ONE_SHOT", "ONE_SHOT_TOKEN", "RING", "RING_TOKEN", "HOST", "SEQUENCE", "REQUEST")
    columns += ("STREAM", "BATCH_POWER", "LEAST_BATCH", "MOST_BATCH", "DRAFT_TOKENS", "ACCEPTED_TOKENS")
    columns += ("RANKS", "STALL", "PADDING")
    names = [one.name.removesuffix("_s").upper() for one in fields(StepCost)]
    assert [getattr(compiled_step, name) for name in columns] == list(range(len(names)))
    assert list(columns) == names
