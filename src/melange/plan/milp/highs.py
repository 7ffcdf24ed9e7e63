"""The only file that uses HiGHS: a program in arrays goes in, the point found and the bound proven come out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from melange.errors import SolverError
from melange.plan.search_clock import count_linear, count_whole, is_by_work, on_machine_s, pauses_within
from melange.workload.workload import Array

# If a good point is known, heuristics and restarts only cost time: two thirds of it in one large run; 2 to 7 % on 40
# random instances each of 60 buckets x 20 and 40 types (bench/instances.py).
_NO_HEURISTICS = {
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_allow_restart": False,
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearRows:
    """A program in arrays, as a solver needs it: minimize cost x, with A x and x within bounds.

    Parameters
    ----------
    cost, lower, upper
        Cost and bounds of the variables (C,).
    row_lower, row_upper
        Bounds of the constraints (M,).
    start, row, value
        The matrix A by columns.
    is_integer
        Which variables are whole (C,); None if none are.
    """

    cost: Array
    lower: Array
    upper: Array
    row_lower: Array
    row_upper: Array
    start: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]
    value: Array
    is_integer: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Solved:
    """What the solver found.

    Parameters
    ----------
    status
        ``optimal`` (within the gap), ``infeasible`` or ``time limit``.
    x
        The best point (C,); None if none was found.
    bound
        No point is better than this.
    row_dual, reduced_cost
        Duals and reduced costs of an optimal linear program (M,), (C,); empty otherwise.
    """

    status: str
    x: Array | None
    bound: float
    row_dual: Array
    reduced_cost: Array


def minimise(
    program: LinearRows,
    *,
    time_limit_s: float = 60.0,
    gap: float = 0.0,
    seed: int = 0,
    start: Array | None = None,
    heuristics: bool = True,
    target: float = -np.inf,
    presolve: bool = False,
) -> Solved:
    """Solve a program.

    Parameters
    ----------
    program
        What to solve.
    time_limit_s, gap, seed
        Settings of the solver.
    start
        A point to begin from (C,).
    heuristics
        Whether to look for better points by other means than branching; not worthwhile if a good point is known.
    target
        A point that costs less than this ends the search.
    presolve
        Whether to simplify a program with whole variables first.

    Raises
    ------
    SolverError
        The solver failed, or stopped for a reason that gives no answer.
    """
    import highspy  # the import takes 60 ms, and only a plan needs it

    is_whole = program.is_integer is not None and bool(program.is_integer.any())
    solver = _solver(highspy, time_limit_s=on_machine_s(time_limit_s), gap=gap, seed=seed)
    solver.setOptionValue("objective_target", target)
    if is_whole and not presolve:
        # HiGHS 1.15 calls 28.42 optimal where 0.88 is feasible, after its presolve has seen loads of 1e-7 beside
        # "used" rows. Without presolve it is right, and as fast on these programs.
        solver.setOptionValue("presolve", "off")
    if not heuristics:
        for key, value in _NO_HEURISTICS.items():
            solver.setOptionValue(key, value)
    _check(solver.passModel(_model(highspy, program)), highspy, "pass the model")
    rows = len(program.row_lower)
    if start is not None:
        point = highspy.HighsSolution()
        point.col_value = start.tolist()
        solver.setSolution(point)
    pauses = _stopped_after(highspy, solver, pauses_within(rows, time_limit_s)) if is_whole and is_by_work() else []
    _check(solver.run(), highspy, "run")
    iterations = solver.getInfo().simplex_iteration_count
    if is_whole:
        count_whole(rows, len(pauses))
    else:
        count_linear(rows, iterations)
    found = _solved(highspy, solver, program)
    if is_whole and not presolve and not iterations and found.status == "optimal" and found.x is not None:
        # Without presolve HiGHS 1.15 may call the first point it finds optimal, before it solves any linear program:
        # 705.54 where 434.06 is feasible. With presolve it is right there, but wrong elsewhere: the better one counts.
        again = minimise(
            program, time_limit_s=time_limit_s, gap=gap, seed=seed, start=start, heuristics=heuristics, target=target,
            presolve=True,
        )  # fmt: skip
        if again.x is not None and program.cost @ again.x < program.cost @ found.x:
            return again
    return found


def _stopped_after(highspy: Any, solver: Any, most: float) -> list[None]:
    """Let a mixed-integer program stop after a number of pauses instead of by the clock; the list gets one entry each.

    HiGHS pauses and asks whether to go on at each node, round of cuts and heuristic: at the same places in every run.
    """
    pauses: list[None] = []

    def asked(_kind: Any, _message: str, _out: Any, answer: Any, _user: Any) -> None:
        pauses.append(None)
        answer.user_interrupt = len(pauses) > most

    highspy._Highs.setCallback(solver, asked, None)
    solver.startCallback(highspy.cb.HighsCallbackType.kCallbackMipInterrupt)
    return pauses


def _solver(highspy: Any, *, time_limit_s: float, gap: float, seed: int) -> Any:
    # highspy 1.16 prints a banner when it enables callbacks, before output can be turned off; none of them is used.
    quiet = type("QuietHighs", (highspy.Highs,), {"enableCallbacks": lambda _: None})
    solver = quiet()
    options = {
        "output_flag": False,
        "time_limit": max(time_limit_s, 1e-3),  # HiGHS rejects values below 0, which a deadline may leave
        "mip_rel_gap": gap,
        "mip_abs_gap": 1e-9,  # never reached before the relative gap: a very small service could reach the default 1e-6
        "random_seed": seed,
        "threads": 1,  # the same seed must give the same plan, and callers run several plans at once
    }
    for key, value in options.items():
        solver.setOptionValue(key, value)
    return solver


def _model(highspy: Any, program: LinearRows) -> Any:
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = len(program.cost), len(program.row_lower)
    model.col_cost_, model.col_lower_, model.col_upper_ = program.cost, program.lower, program.upper
    model.row_lower_, model.row_upper_ = program.row_lower, program.row_upper
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_ = program.start, program.row
    model.a_matrix_.value_ = program.value
    if program.is_integer is not None and program.is_integer.any():
        kinds = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
        model.integrality_ = [kinds[whole] for whole in program.is_integer.tolist()]
    return model


def _check(status: Any, highspy: Any, what: str) -> None:
    """HiGHS returns errors instead of raising them; raise them."""
    if status == highspy.HighsStatus.kError:
        raise SolverError(f"HiGHS could not {what}")


def _solved(highspy: Any, solver: Any, program: LinearRows) -> Solved:
    status, info = solver.getModelStatus(), solver.getInfo()
    is_mip = program.is_integer is not None and bool(program.is_integer.any())
    kinds = highspy.HighsModelStatus
    if status in (kinds.kInfeasible, kinds.kUnboundedOrInfeasible):
        return Solved(status="infeasible", x=None, bound=np.inf, row_dual=np.empty(0), reduced_cost=np.empty(0))
    if status not in (kinds.kOptimal, kinds.kTimeLimit, kinds.kInterrupt, kinds.kSolutionLimit, kinds.kObjectiveTarget):
        raise SolverError(f"HiGHS stopped without an answer: {solver.modelStatusToString(status)}")
    solution = solver.getSolution()
    has_point = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    optimal = status == kinds.kOptimal
    value = info.mip_dual_bound if is_mip else info.objective_function_value if optimal else -np.inf
    dual = optimal and not is_mip
    return Solved(
        status="optimal" if optimal else "time limit",
        x=np.array(solution.col_value) if has_point else None,
        bound=float(value),
        row_dual=np.array(solution.row_dual) if dual else np.empty(0),
        reduced_cost=np.array(solution.col_dual) if dual else np.empty(0),
    )


class PeakLoad:
    """The lowest peak load of fleets, one after another: a linear program that starts from the previous solution.

    minimize t: sum_r f_rb = 1, sum_b l_rb f_rb <= t C_r; C changes from fleet to fleet.
    """

    def __init__(self, load: Array) -> None:
        """Set up for loads (R, B), infinite if a type cannot serve a bucket."""
        import highspy

        self._highspy = highspy
        self._types, self._buckets = load.shape
        # Each linear program takes milliseconds; the limit counts the time of all fleets and must never stop one.
        self._solver = _solver(highspy, time_limit_s=np.inf, gap=0.0, seed=0)
        # Presolve saves no time here (8,000 fleets of 4 types), and gave wrong answers in that function.
        self._solver.setOptionValue("presolve", "off")
        self._able = np.isfinite(load)
        type_of, bucket_of = self._pair = np.nonzero(self._able)
        pairs = self._pairs = len(type_of)
        row = np.column_stack([bucket_of, self._buckets + type_of]).ravel()
        value = np.column_stack([np.ones(pairs), load[type_of, bucket_of]]).ravel()
        start = np.append(np.arange(0, 2 * pairs + 1, 2), 2 * pairs + self._types)
        program = LinearRows(
            cost=np.append(np.zeros(pairs), 1.0),
            lower=np.zeros(pairs + 1),
            upper=np.full(pairs + 1, np.inf),
            row_lower=np.concatenate([np.ones(self._buckets), np.full(self._types, -np.inf)]),
            row_upper=np.concatenate([np.ones(self._buckets), np.zeros(self._types)]),
            start=start.astype(np.int32),
            row=np.concatenate([row, self._buckets + np.arange(self._types)]).astype(np.int32),
            value=np.concatenate([value, -np.ones(self._types)]),
        )
        _check(self._solver.passModel(_model(highspy, program)), highspy, "pass the model")

    def __call__(self, carried: Array) -> tuple[float, Array, Array]:
        """Peak of a fleet that takes ``carried`` (R,), and the duals of its load rows (R,) and cover rows (B,).

        The peak is infinite if a bucket has no type: its cover row then has the whole dual. The solver would not notice
        if the bucket's load is below its tolerance.
        """
        lacking = ~self._able[carried > 0].any(axis=0)
        if lacking.any():
            worth = np.zeros(self._buckets)
            worth[int(np.argmax(lacking))] = 1.0
            return np.inf, np.zeros(self._types), worth
        for r, load in enumerate(carried.tolist()):
            self._solver.changeCoeff(self._buckets + r, self._pairs, -load)
        _check(self._solver.run(), self._highspy, "run")
        count_linear(self._buckets + self._types, self._solver.getInfo().simplex_iteration_count)
        if self._solver.getModelStatus() != self._highspy.HighsModelStatus.kOptimal:
            return np.inf, np.zeros(self._types), np.zeros(self._buckets)
        self._solution = self._solver.getSolution()
        dual = np.array(self._solution.row_dual)
        peak = float(self._solver.getInfo().objective_function_value)
        return peak, np.maximum(-dual[self._buckets :], 0.0), dual[: self._buckets]

    def fix(self, bucket: int, share: Array) -> None:
        """Fix the shares (R,) of one bucket from now on."""
        columns = np.flatnonzero(self._pair[1] == bucket)
        for column, r in zip(columns.tolist(), self._pair[0][columns].tolist(), strict=True):
            self._solver.changeColBounds(column, float(share[r]), float(share[r]))

    def shares(self) -> Array:
        """The shares (R, B) of the last fleet as the solver left them, so exact only to its tolerance."""
        share = np.zeros((self._types, self._buckets))
        share[self._pair] = np.array(self._solution.col_value)[:-1]
        return share
