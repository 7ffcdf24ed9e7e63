"""Small engines, fleets and requests that the tests of the simulation share."""

from __future__ import annotations

import math

import numpy as np

from melange.replica.engine import Engine
from melange.replica.policy_state import PolicyState
from melange.replica.step import StepCost


def cost(**seconds: float) -> StepCost:
    """Step costs that are 0 but for those given."""
    names = StepCost.__dataclass_fields__
    zero = dict.fromkeys(names, 0.0) | {"window": math.inf, "least_batch": 1.0, "most_batch": math.inf}
    return StepCost(**(zero | seconds))


def engine(**settings: object) -> Engine:
    """A small engine: 20 ms to read the weights, 0.1 ms a prompt token, some for context."""
    step = cost(
        weights_s=0.02,
        token_s=1e-4,
        output_s=1e-5,
        context_s=2e-6,
        position_s=1e-8,
        host_s=1e-3,
        sequence_s=5e-5,
        request_s=2e-3,
    )
    given: dict[str, object] = {
        "cost": step,
        "kv_tokens": 4 * 4000.0,
        "full_layers": 4,
        "max_sequences": 8,
        "max_batched_tokens": 256,
        "max_context": 2000,
    }
    return Engine(**(given | settings))  # type: ignore[arg-type]


def fleet(
    type_of: list[int], kind: str = "arrays", *, share: np.ndarray | None = None, rate: float = 1.0
) -> PolicyState:
    """A balancer's knowledge of replicas of some types, over 3 x 2 buckets."""
    types, inputs, outputs = max(type_of) + 1, [100.0, 500.0, 2000.0], [50.0, 400.0]
    cells = types * len(inputs) * len(outputs)
    random = np.random.default_rng(5)
    shares = random.dirichlet(np.ones(types), size=len(inputs) * len(outputs)).T.ravel() if share is None else share
    tables = {
        "type_of": np.array(type_of),
        "input_edges": np.array(inputs),
        "output_edges": np.array(outputs),
        "share": shares,
        "part": random.uniform(0.1, 0.4, cells),
        "rate": random.uniform(0.5, 2.0, cells) * rate,
        "is_up": np.ones(len(type_of), np.int64),
        "outstanding": np.zeros(len(type_of), np.int64),
        "fill": np.zeros(len(type_of)),
        "unread": np.zeros(len(type_of)),
        "request_part": random.uniform(0.0, 0.4, types),
        "unread_part": random.uniform(1e-4, 1e-3, types),
        "completions": np.ones(len(inputs) * len(outputs)),
        "seen": np.full(len(inputs), 2.0),
        "output_sum": np.full(len(inputs), 200.0),
        "credit": np.zeros(len(inputs) * types),
        "turn": np.full(types + 1, len(type_of) - 1),
    }
    return PolicyState(**({name: values.tolist() for name, values in tables.items()} if kind == "lists" else tables))
