"""What is planned for a program, judged independently.

The program is written a second time here, from the words of the manual and not from the package's own arrays: rows
one by one, for HiGHS at tighter tolerances than the package uses, without cuts, listings or a reduction of types. A
plan's own claims are checked in NumPy against the inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import highspy
import numpy as np

from melange.errors import InfeasibleError, MelangeError
from melange.plan.solve import solve
from melange.profile.profile import ReplicaType
from programs import Program

# Costs and shares that differ by less, relative, are the same; loads may be over by as much, as of every solver.
SAME = 2e-6
_FEASIBLE = 1e-9


@dataclass(frozen=True)
class _Answer:
    """A fleet n (R,), shares (R, B) and the share of the traffic that is served."""

    n: np.ndarray
    share: np.ndarray
    part: float


def finding(program: Program) -> str:
    """What is wrong with the plan of a program; empty: nothing.

    Whatever a plan claims is checked in NumPy, and so is a better answer of the judge: where that does not stand the
    check, the judge is wrong, and not the plan.
    """
    try:
        plan = solve(program.workload, program.profile, program.options)
    except InfeasibleError:
        plan = None
    except MelangeError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # what is looked for
        return f"{type(error).__name__}: {error}"
    best = _best(program)
    if best is not None and _broken(program, best, 1e-9):
        best = None
    if plan is None:
        return "" if best is None else f"called infeasible, and {_words(program, best)} is feasible"
    with_traffic = program.workload.request_rate.ravel() > 0
    share = plan.share.reshape(len(plan.instances), -1)[:, with_traffic]
    if faults := _broken(program, _Answer(plan.instances.astype(float), share, plan.served_fraction), SAME):
        return faults
    if abs(plan.cost_per_h - _cost(program, plan.instances)) > 1e-9 * max(1.0, plan.cost_per_h):
        return "cost does not add up"
    if best is None:
        return ""
    if program.options.budget_per_h is not None:
        is_worse = plan.status == "optimal" and plan.served_fraction < best.part - 1e-5
        return f"serves {plan.served_fraction:.6g}, and {_words(program, best)} is possible" if is_worse else ""
    cost = _cost(program, best.n)
    if plan.status == "optimal" and plan.cost_per_h > cost * (1 + SAME):
        return f"proven at {plan.cost_per_h:.6g}, and {_words(program, best)} is feasible"
    if plan.bound_per_h is not None and plan.bound_per_h > cost * (1 + SAME):
        return f"bound {plan.bound_per_h:.6g}, and {_words(program, best)} is feasible"
    return ""


def _cost(program: Program, n: np.ndarray) -> float:
    return float(n @ np.array([one.cost_per_h for one in program.profile.replica_types]))


def _words(program: Program, answer: _Answer) -> str:
    return f"{answer.n.astype(int).tolist()} at {_cost(program, answer.n):.6g} for {answer.part:.4g}"


def _broken(program: Program, answer: _Answer, same: float) -> str:
    """What an answer breaks, from the inputs alone, by more than a relative tolerance."""
    asked, items = program.options, program.profile.replica_types
    n, share, load, part = answer.n, answer.share, program.load, answer.part
    p = np.array([one.replicas_per_instance for one in items], float)
    if (share < 0).any() or (share[~np.isfinite(load)] > 0).any():
        return "shares below 0, or where nothing is served"
    if np.abs(share.sum(axis=0) - part).max() > 1e-6:
        return "shares do not add up"
    if asked.slices and np.abs(share * asked.slices - np.round(share * asked.slices)).max() > 1e-6:
        return "shares that are no whole slices"
    busy = np.where(share > 0, np.where(np.isfinite(load), load, 0) * share, 0).sum(axis=1)
    spare = np.array([_of(one, asked.spare_replicas) for one in items], float)
    room = (1 - asked.headroom) * np.maximum(0, p * n - spare * (n > 0))
    if (busy > room * (1 + same)).any():
        return f"overloads {int(np.argmax(busy - room))} by {float((busy - room).max()):g}"
    if asked.spare_total_replicas and (lost := _not_stood(program, n, p, part, same)):
        return f"does not survive the loss of {lost}"
    return _broken_limits(program, n, p, spare)


def _not_stood(program: Program, n: np.ndarray, p: np.ndarray, part: float, same: float) -> str:
    """A type whose loss the fleet does not stand: shares may then be any."""
    for r in np.flatnonzero(n):
        kept = p * n
        kept[r] = max(0.0, kept[r] - program.options.spare_total_replicas)
        if not _carries(program.load * part, (1 - program.options.headroom) * kept, same):
            return program.profile.replica_types[r].name
    return ""


def _carries(load: np.ndarray, room: np.ndarray, same: float) -> bool:
    model = _Model()
    peak = model.add(1.0, 0.0, math.inf, False)
    share = _shares(model, load, [r for r in range(len(load)) if room[r] > 0], 1.0, False)
    for r in range(len(load)):
        if room[r] > 0:
            model.row(
                -math.inf,
                0.0,
                [(share[r, b], load[r, b] / room[r]) for b in range(load.shape[1]) if (r, b) in share] + [(peak, -1.0)],
            )
    if any(not any((r, b) in share for r in range(len(load))) for b in range(load.shape[1])):
        return False
    found = model.solve()
    return found is not None and found[0] <= 1 + same


def _broken_limits(program: Program, n: np.ndarray, p: np.ndarray, spare: np.ndarray) -> str:
    asked, items = program.options, program.profile.replica_types
    for r, one in enumerate(items):
        if n[r] and p[r] * n[r] < max(1, _of(one, asked.min_replicas)):
            return f"{one.name}: fewer replicas than its minimum"
        if n[r] and p[r] * n[r] < spare[r]:
            return f"{one.name}: fewer replicas than its spares"
        if n[r] and (one.name in asked.exclude or one.offer.accelerator in asked.exclude):
            return f"{one.name} is excluded"
    if p @ n < asked.min_total_replicas:
        return "fewer replicas than required"
    if asked.max_types is not None and np.count_nonzero(n) > asked.max_types:
        return "more types than allowed"
    if asked.budget_per_h is not None and n @ [one.cost_per_h for one in items] > asked.budget_per_h * (1 + SAME):
        return "more expensive than the budget"
    for members, weight, most, name in _limits(program):
        if sum(weight[r] * n[r] for r in members) > most + 1e-6:
            return f"more {name} than there are"
    for members, name in _requirements(program):
        if not any(n[r] for r in members):
            return f"{name} is not used"
    return ""


def _limits(program: Program) -> list[tuple[list[int], list[int], int, str]]:
    asked, items = program.options, program.profile.replica_types
    ones = [1] * len(items)
    found = []
    for r, one in enumerate(items):
        if one.offer.max_instances is not None:
            found.append(([r], ones, one.offer.max_instances, one.offer.name))
    for name, most in asked.max_instances.items():
        members = [r for r, one in enumerate(items) if name in (one.name, one.offer.name, one.offer.instance_type)]
        found.append((members, ones, most, name))
    for name, most in asked.max_accelerators.items():
        members = [r for r, one in enumerate(items) if one.offer.accelerator == name]
        found.append((members, [one.offer.accelerators for one in items], most, name))
    return found


def _requirements(program: Program) -> list[tuple[list[int], str]]:
    items = program.profile.replica_types
    return [
        ([r for r, one in enumerate(items) if name in (one.name, one.offer.accelerator)], name)
        for name in program.options.require
    ]


def _of(item: ReplicaType, count: Any) -> int:
    return count if isinstance(count, int) else count.get(item.name, 0)


class _Model:
    """Rows and columns one by one."""

    def __init__(self) -> None:
        self._solver = highspy.Highs()
        for key, value in {
            "output_flag": False, "threads": 1, "presolve": "off", "time_limit": 3600.0, "mip_rel_gap": 0.0,
            "mip_abs_gap": 1e-9,
            "primal_feasibility_tolerance": _FEASIBLE, "mip_feasibility_tolerance": _FEASIBLE,
        }.items():  # fmt: skip
            self._solver.setOptionValue(key, value)
        self._count = 0

    def add(self, cost: float, low: float, high: float, is_whole: bool) -> int:
        self._solver.addCol(cost, low, high, 0, [], [])
        if is_whole:
            self._solver.changeColIntegrality(self._count, highspy.HighsVarType.kInteger)
        self._count += 1
        return self._count - 1

    def row(self, low: float, high: float, entries: list[tuple[int, float]]) -> None:
        self._solver.addRow(low, high, len(entries), [at for at, _ in entries], [value for _, value in entries])

    def solve(self) -> tuple[float, np.ndarray] | None:
        self._solver.run()
        status = self._solver.getModelStatus()
        if status == highspy.HighsModelStatus.kOptimal:
            point = np.array(self._solver.getSolution().col_value)
            return float(self._solver.getInfo().objective_function_value), point
        if status in (highspy.HighsModelStatus.kInfeasible, highspy.HighsModelStatus.kUnboundedOrInfeasible):
            return None
        raise RuntimeError(f"the judge has no answer: {self._solver.modelStatusToString(status)}")


def _shares(
    model: _Model, load: np.ndarray, types: list[int], whole: float, is_whole: bool
) -> dict[tuple[int, int], int]:
    share = {
        (r, b): model.add(0.0, 0.0, whole, is_whole)
        for r in types for b in range(load.shape[1]) if np.isfinite(load[r, b])
    }  # fmt: skip
    for b in range(load.shape[1]):
        model.row(whole, whole, [(share[r, b], 1.0) for r in types if (r, b) in share])
    return share


def incumbent_finding(program: Program, seed: int) -> str:
    """What is wrong with the plan of a program beside a fleet in force: that another as cheap changes less."""
    rng = np.random.default_rng(seed)
    try:
        plan = solve(program.workload, program.profile, program.options)
        before = (plan.instances + rng.integers(-2, 3, len(plan.instances))).clip(0)
        in_force = replace(plan, instances=before)
        again = solve(program.workload, program.profile, program.options, incumbent=in_force)
    except InfeasibleError:
        return ""
    if abs(again.cost_per_h - plan.cost_per_h) > SAME * plan.cost_per_h:
        return f"{again.cost_per_h:g} beside a fleet in force, and {plan.cost_per_h:g} without"
    best = _best(program, (before, plan.cost_per_h))
    if best is None or _broken(program, best, 1e-9) or _cost(program, best.n) > plan.cost_per_h * (1 + 1e-9):
        return ""
    changes, fewest = np.abs(again.instances - before).sum(), np.abs(best.n - before).sum()
    if changes <= fewest:
        return ""
    return (
        f"{before.tolist()} in force: {again.instances.tolist()} changes {changes}, {best.n.tolist()} only {fewest:g}"
    )


def _best(program: Program, near: tuple[np.ndarray, float] | None = None) -> _Answer | None:
    """The fleet of the least cost, or under a budget of the largest share of every size; None: infeasible.

    With a fleet in force and a cost ``near``: the fleet of at most that cost that changes the fewest instances.
    """
    asked, items, load = program.options, program.profile.replica_types, program.load
    types, sizes = load.shape
    p = [one.replicas_per_instance for one in items]
    allowed = [
        r
        for r in range(types)
        if items[r].name not in asked.exclude and items[r].offer.accelerator not in asked.exclude
    ]
    barred = [r for members, weight, most, _ in _limits(program) for r in members if weight[r] > most]
    allowed = [r for r in allowed if r not in barred and np.isfinite(load[r]).any()]
    if any(not np.isfinite(load[allowed, b]).any() for b in range(sizes)):
        return None
    model, free, is_budget = _Model(), 1 - asked.headroom, asked.budget_per_h is not None
    top = [
        math.ceil(np.where(np.isfinite(load[r]), load[r], 0).sum() / free + 12 + asked.min_total_replicas)
        for r in range(types)
    ]
    n = {r: model.add(0.0 if is_budget or near else items[r].cost_per_h, 0, top[r], True) for r in allowed}
    if near is not None:
        for r in allowed:
            change = model.add(1.0, 0.0, math.inf, False)
            model.row(-near[0][r], math.inf, [(change, 1.0), (n[r], -1.0)])
            model.row(near[0][r], math.inf, [(change, 1.0), (n[r], 1.0)])
        model.row(-math.inf, near[1] * (1 + 1e-10), [(n[r], items[r].cost_per_h) for r in allowed])
    used = {r: model.add(0.0, 0, 1, True) for r in allowed}
    part = model.add(-1.0, 0.0, 1.0, bool(asked.slices) and asked.slices == 1) if is_budget else None
    steps = asked.slices or 1
    whole_part = model.add(0.0, 0.0, steps, True) if is_budget and asked.slices else None
    if whole_part is not None:
        model.row(0.0, 0.0, [(part, float(steps)), (whole_part, -1.0)])
    for r in allowed:
        model.row(-math.inf, 0.0, [(n[r], 1.0), (used[r], -float(top[r]))])
        least = max(1.0, math.ceil(max(_of(items[r], asked.min_replicas), _of(items[r], asked.spare_replicas)) / p[r]))
        model.row(0.0, math.inf, [(n[r], 1.0), (used[r], -least)])
    share = _carry(model, program, allowed, n, used, part, lost=None, survives=None)
    if asked.spare_total_replicas:
        for lost in allowed:
            survives = model.add(0.0, 0, 1, True)
            _carry(model, program, allowed, n, used, part, lost=lost, survives=survives)
    _limit(model, program, n, used)
    found = model.solve()
    if found is None or (is_budget and -found[0] < 1e-6):
        return None
    counts, shares = np.zeros(types), np.zeros(load.shape)
    for r in allowed:
        counts[r] = round(found[1][n[r]])
    for (r, b), at in share.items():
        shares[r, b] = round(found[1][at]) / steps if asked.slices else max(0.0, found[1][at])
    return _Answer(counts, shares, -found[0] if is_budget else 1.0)


def _limit(model: _Model, program: Program, n: dict[int, int], used: dict[int, int]) -> None:
    """What binds instances alone."""
    asked, items = program.options, program.profile.replica_types
    p = [one.replicas_per_instance for one in items]
    model.row(asked.min_total_replicas, math.inf, [(n[r], float(p[r])) for r in n])
    if asked.max_types is not None:
        model.row(-math.inf, asked.max_types, [(used[r], 1.0) for r in n])
    if asked.budget_per_h is not None:
        model.row(-math.inf, asked.budget_per_h, [(n[r], items[r].cost_per_h) for r in n])
    for members, weight, most, _ in _limits(program):
        model.row(-math.inf, most, [(n[r], float(weight[r])) for r in members if r in n])
    for members, _ in _requirements(program):
        model.row(1.0, math.inf, [(n[r], 1.0) for r in members if r in n])


def _carry(
    model: _Model, program: Program, allowed: list[int], n: dict[int, int], used: dict[int, int], part: int | None, *,
    lost: int | None, survives: int | None,
) -> dict[tuple[int, int], int]:  # fmt: skip
    """The fleet carries everything: as it is in whole slices, or in any shares once replicas of a type are lost.

    A share is in units of the room that a type has, so that sizes with next to no traffic need a replica too.
    """
    asked, load, free = program.options, program.load, 1 - program.options.headroom
    p = [one.replicas_per_instance for one in program.profile.replica_types]
    steps = asked.slices if asked.slices and lost is None else None
    share = {
        (r, b): model.add(0.0, 0.0, float(steps or 1), bool(steps))
        for r in allowed for b in range(load.shape[1]) if np.isfinite(load[r, b])
    }  # fmt: skip
    for b in range(load.shape[1]):
        entries = [(share[r, b], 1.0 / (steps or 1)) for r in allowed if (r, b) in share]
        if part is None:
            model.row(1.0, 1.0, entries)
        else:
            model.row(0.0, 0.0, [*entries, (part, -1.0)])
    for r in allowed:
        kept = [(n[r], -free * p[r])]
        spare = _of(program.profile.replica_types[r], asked.spare_replicas)
        if lost is None and spare:
            kept.append((used[r], free * spare))
        if r == lost:
            kept.append((survives, free * asked.spare_total_replicas))
        mine = [(share[r, b], load[r, b] / (steps or 1)) for b in range(load.shape[1]) if (r, b) in share]
        model.row(-math.inf, 0.0, mine + kept)
        # What has no replica serves no request, however few they are.
        if r == lost:
            is_there, replicas = survives, [(n[r], float(p[r])), (survives, -float(asked.spare_total_replicas + 1))]
        elif lost is None and spare:
            is_there = model.add(0.0, 0, 1, True)
            replicas = [(n[r], float(p[r])), (used[r], -float(spare)), (is_there, -1.0)]
        else:
            is_there, replicas = used[r], []
        if replicas:
            model.row(0.0, math.inf, replicas)
        for at, _ in mine:
            model.row(-math.inf, 0.0, [(at, 1.0), (is_there, -float(steps or 1))])
    return share
