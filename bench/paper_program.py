"""The paper's program from its equations (Mélange, arXiv 2404.14527, section 5.4.3), with PuLP and CBC.

Every bucket is divided into slices i; A_ij = 1 if slice i goes to type j; B_j instances of type j are rented.

    min   sum_j c_j B_j
    s.t.  sum_j A_ij = 1                 every slice i
          sum_i A_ij L_ij <= B_j         every type j
          A_ij in {0, 1}, B_j >= 0 whole
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pulp


@dataclass(frozen=True)
class PaperAnswer:
    """CBC's result: the cost (None: no solution), whether it is proven, and the time, including building the model."""

    cost_per_h: float | None
    is_proven: bool
    seconds: float


def solve_paper(load: np.ndarray, cost: np.ndarray, *, slices: int, time_limit_s: float = 30.0) -> PaperAnswer:
    """Solve for loads of whole buckets (R, B), infinite if a type cannot serve a bucket, and costs (R,).

    PuLP also returns "Optimal" if the time limit stopped the run, so a result counts as proven only if the run ended
    clearly before the limit.
    """
    began = time.perf_counter()
    types, buckets = load.shape
    program = pulp.LpProblem("melange", pulp.LpMinimize)
    rented = [pulp.LpVariable(f"B_{j}", lowBound=0, cat="Integer") for j in range(types)]
    terms: list[list[tuple[pulp.LpVariable, float]]] = [[] for _ in range(types)]
    program += pulp.lpSum(float(cost[j]) * rented[j] for j in range(types))
    for b in range(buckets):
        able = [j for j in range(types) if np.isfinite(load[j, b])]
        for i in range(slices):
            chosen = {j: pulp.LpVariable(f"A_{b}_{i}_{j}", cat="Binary") for j in able}
            program += pulp.lpSum(chosen.values()) == 1
            for j, variable in chosen.items():
                terms[j].append((variable, float(load[j, b]) / slices))
    for j in range(types):
        program += pulp.lpSum(weight * variable for variable, weight in terms[j]) <= rented[j]
    program.solve(pulp.PULP_CBC_CMD(msg=0, timeLimit=time_limit_s))
    seconds = time.perf_counter() - began
    found = program.sol_status in (pulp.LpSolutionOptimal, pulp.LpSolutionIntegerFeasible)
    proven = program.status == pulp.LpStatusOptimal and seconds < 0.98 * time_limit_s
    value = float(cost @ [round(variable.value()) for variable in rented]) if found else None
    return PaperAnswer(cost_per_h=value, is_proven=proven and found, seconds=seconds)
