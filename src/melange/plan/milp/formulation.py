"""The mixed-integer program of a planning problem, one function a constraint (docs/formulation.md).

Sets: buckets b, replica types r. Data: load l_rb = request rate / max request rate, cost c_r of an instance that
holds p_r replicas, headroom h. Variables: instances n_r, whole; shares f_rb, or slices m_rb = s f_rb, whole.

    minimize  sum_r c_r n_r
    cover     sum_r f_rb = 1                            every bucket
    load      sum_b l_rb f_rb <= (1 - h) p_r n_r        every type

After Griggs et al., Mélange (arXiv 2404.14527), section 5.4.3.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melange.plan.milp.highs import LinearRows
from melange.plan.milp.milp import Block, Columns, Milp
from melange.plan.problem import Positions, Problem
from melange.workload.workload import Array

# A load below this, in instances, gets a row of its own: it is ten times the tolerance of 1e-6 within which the solver
# takes a load for zero. With a smaller value, a bucket may be served by no instance: without such rows one of 48 random
# instances with thin traffic has no plan that passes its check. A larger value adds rows: from 1e-7 to 1e-3 neither
# costs nor times differ there.
_TINY_LOAD = 1e-5
# Loads below this, in replicas, are left out of the load row, since the rows above cover them. HiGHS drops entries
# below 1e-9, and from a given start point it then called 319 optimal where 317 is feasible. If such loads were raised
# to this value instead, they would not fit into a fleet that is completely full. A hundred buckets this thin take a
# millionth of a replica, which is the solver's tolerance.
_LEAST_ENTRY = 1e-8


def formulate(
    problem: Problem, *, scenarios: tuple[int, ...] = (), cuts: Array | None = None, losses: Array | None = None
) -> Milp:
    """The program of ``problem``.

    Parameters
    ----------
    problem
        What is to be planned.
    scenarios
        Types whose loss the whole fleet must survive.
    cuts
        Weights (K, R) of cuts on the loads that the types take; every fleet satisfies them.
    losses
        Weights (K, R) of cuts that every fleet satisfies after any loss, too; None: none.
    """
    columns = _lay_out(problem, scenarios, 0 if losses is None else len(losses))
    blocks = [
        _cover(problem, columns),
        _load(problem, columns),
        _tiny_load(problem, columns),
        _limit(problem, columns),
        _requirement(problem, columns),
        _min_total(problem, columns),
        _used_least(problem, columns),
        _used_most(problem, columns),
        _max_types(problem, columns),
        _budget(problem, columns),
    ]
    if cuts is not None:
        blocks.append(_demand_cuts(problem, columns, cuts))
    if losses is not None:
        blocks += [_loss_cuts(problem, columns, losses), _largest_loss(problem, columns, losses)]
    for position in range(len(scenarios)):
        blocks += [_scenario_cover(problem, columns, position), _scenario_load(problem, columns, position)]
        blocks += [_scenario_tiny_load(problem, columns, position), _scenario_survivor(problem, columns, position)]
        blocks += [_scenario_left(problem, columns, position)]
    return replace(_assemble(problem, columns, [rows for rows in blocks if len(rows.lower)]), losses=losses)


def _lay_out(problem: Problem, scenarios: tuple[int, ...], losses: int) -> Columns:
    """Number the variables: instances, used, shares (by type, then bucket), served, survivors, largest losses."""
    type_of, bucket_of = np.nonzero(np.isfinite(problem.load))
    types, pairs = len(problem.cost), len(type_of)
    used = types if losses or _needs_used(problem) else -1
    share = types * (2 if used >= 0 else 1)
    served = share + pairs * (1 + len(scenarios))
    survivor = served + (problem.budget_per_h is not None)
    largest_loss = survivor + len(scenarios)
    return Columns(
        type_of=type_of,
        bucket_of=bucket_of,
        used=used,
        share=share,
        served=served if problem.budget_per_h is not None else -1,
        scenarios=scenarios,
        survivor=survivor,
        largest_loss=largest_loss,
        count=largest_loss + losses,
    )


def _needs_used(problem: Problem) -> bool:
    """Whether some constraint counts types, or applies to a type only when it is used."""
    return bool(problem.max_types is not None or (problem.spare > 0).any() or (problem.least > 1).any())


def _cover(problem: Problem, columns: Columns, *, block: int = 0, name: str = "cover") -> Block:
    """Every bucket is served: sum_r f_rb = 1, or the served share under a budget (slices: times s)."""
    buckets, pairs = problem.load.shape[1], len(columns.type_of)
    whole = float(problem.slices or 1)
    row, column = [columns.bucket_of], [columns.share + block * pairs + np.arange(pairs)]
    value = [np.ones(pairs)]
    if columns.served >= 0:
        row.append(np.arange(buckets))
        column.append(np.full(buckets, columns.served))
        value.append(np.full(buckets, -1.0))
        whole = 0.0
    return _rows(name, np.full(buckets, whole), np.full(buckets, whole), row, column, value)


def _load(problem: Problem, columns: Columns) -> Block:
    """No type is overloaded: sum_b l_rb f_rb <= (1 - h) (p_r n_r - k_r u_r), k_r the spare replicas."""
    types = len(problem.cost)
    row, column, value = _load_entries(problem, columns, block=0)
    row.append(np.arange(types))
    column.append(np.arange(types))
    value.append(-problem.capacity)
    spared = np.flatnonzero(problem.spare)
    row.append(spared)
    column.append(columns.used + spared)
    value.append(np.asarray((1.0 - problem.headroom) * problem.spare[spared], float))
    return _rows("load", np.full(types, -np.inf), np.zeros(types), row, column, value)


def _tiny_load(problem: Problem, columns: Columns) -> Block:
    """Traffic too thin for the load row still needs a replica: sum of its shares <= (their number) (p_r n_r - k_r u_r).

    A load below the solver's tolerance would otherwise be carried by no replica at all.
    """
    types, row, column, value, count = _thin(problem, columns, block=0)
    spared = np.flatnonzero(problem.spare[types])
    return _rows(
        "tiny_load",
        np.full(len(types), -np.inf),
        np.zeros(len(types)),
        [row, np.arange(len(types)), spared],
        [column, types, columns.used + types[spared]],
        [value, -count * problem.replicas[types], count[spared] * problem.spare[types[spared]]],
    )


def _thin(
    problem: Problem, columns: Columns, *, block: int, lost: int = -1
) -> tuple[Positions, Positions, Positions, Array, Array]:
    """Types with thin traffic; row, column and value of the thin shares; and their number by type, in whole slices.

    All traffic of the ``lost`` type counts as thin.
    """
    pair = problem.load[columns.type_of, columns.bucket_of] / problem.capacity[columns.type_of] < _TINY_LOAD
    pair |= columns.type_of == lost
    thin, pairs = np.flatnonzero(pair), len(columns.type_of)
    types, row, count = np.unique(columns.type_of[thin], return_inverse=True, return_counts=True)
    column = columns.share + block * pairs + thin
    return types, row, column, np.ones(len(thin)), np.asarray(float(problem.slices or 1) * count, float)


def _limit(problem: Problem, columns: Columns) -> Block:
    """Availability: sum_r g_r n_r <= A. A limit on one type is a bound of its variable."""
    shared = [item for item in problem.limits if len(item.members) > 1]
    row = [np.full(len(item.members), at) for at, item in enumerate(shared)]
    column = [item.members for item in shared]
    value = [item.weight for item in shared]
    return _rows("limit", np.full(len(shared), -np.inf), np.array([item.most for item in shared]), row, column, value)


def _requirement(problem: Problem, columns: Columns) -> Block:
    """A type or accelerator that must be used: sum of its n_r >= 1."""
    members = [np.flatnonzero(item.member) for item in problem.requirements]
    row = [np.full(len(member), at) for at, member in enumerate(members)]
    value = [np.ones(len(member)) for member in members]
    return _rows("require", np.ones(len(members)), np.full(len(members), np.inf), row, members, value)


def _min_total(problem: Problem, columns: Columns) -> Block:
    """At least N replicas in total: sum_r p_r n_r >= N."""
    if problem.min_total == 0:
        return _rows("min_total", np.empty(0), np.empty(0), [], [], [])
    types = np.arange(len(problem.cost))
    least = np.array([float(problem.min_total)])
    return _rows("min_total", least, np.array([np.inf]), [np.zeros_like(types)], [types], [problem.replicas])


def _used_least(problem: Problem, columns: Columns) -> Block:
    """A type that is used has its least number of instances: n_r >= m_r u_r."""
    types = np.arange(len(problem.cost) if columns.used >= 0 else 0)
    value = [np.ones(len(types)), -problem.least[types].astype(float)]
    zero, top = np.zeros(len(types)), np.full(len(types), np.inf)
    return _rows("used_least", zero, top, [types, types], [types, columns.used + types], value)


def _used_most(problem: Problem, columns: Columns) -> Block:
    """A type that is not used has no instance: n_r <= N_r u_r."""
    types = np.arange(len(problem.cost) if columns.used >= 0 else 0)
    value = [np.ones(len(types)), -problem.most[types].astype(float)]
    low, zero = np.full(len(types), -np.inf), np.zeros(len(types))
    return _rows("used_most", low, zero, [types, types], [types, columns.used + types], value)


def _max_types(problem: Problem, columns: Columns) -> Block:
    """At most T different types: sum_r u_r <= T."""
    if problem.max_types is None:
        return _rows("max_types", np.empty(0), np.empty(0), [], [], [])
    types = np.arange(len(problem.cost))
    most = np.array([float(problem.max_types)])
    return _rows(
        "max_types", -np.inf * most, most, [np.zeros_like(types)], [columns.used + types], [np.ones(len(types))]
    )


def _budget(problem: Problem, columns: Columns) -> Block:
    """At most B is spent: sum_r c_r n_r <= B."""
    if problem.budget_per_h is None:
        return _rows("budget", np.empty(0), np.empty(0), [], [], [])
    types = np.arange(len(problem.cost))
    most = np.array([problem.budget_per_h])
    return _rows("budget", -np.inf * most, most, [np.zeros_like(types)], [types], [problem.cost])


def _demand_cuts(problem: Problem, columns: Columns, weight: Array) -> Block:
    """Constraints of the shares, in terms of the instances alone: sum_r w_r (1 - h) (p_r n_r - k_r u_r) >= 1."""
    count, types = weight.shape
    row, column = np.repeat(np.arange(count), types), np.tile(np.arange(types), count)
    rows, columns_of, value = [row], [column], [(weight * problem.capacity).ravel()]
    spared = np.flatnonzero(problem.spare)
    if len(spared):
        rows.append(np.repeat(np.arange(count), len(spared)))
        columns_of.append(np.tile(columns.used + spared, count))
        value.append(np.asarray(-(1.0 - problem.headroom) * weight[:, spared] * problem.spare[spared], float).ravel())
    return _rows("demand", np.ones(count), np.full(count, np.inf), rows, columns_of, value)


def least_loss(problem: Problem) -> tuple[Array, Array]:
    """Lower bound on the replicas that a loss takes from a type, a u_r + b n_r: a (R,) and b (R,).

    A loss takes min(K, p_r n_r). This is concave in n_r, so the line between its values at the least and the most
    instances of a used type is below it; with K <= p_r, it is K u_r exactly.
    """
    least = np.maximum(np.maximum(problem.least, np.ceil(problem.spare / problem.replicas)), 1.0)
    most = np.maximum(problem.most, least)
    first = np.minimum(problem.spare_total, problem.replicas * least)
    last = np.minimum(problem.spare_total, problem.replicas * most)
    slope = np.divide(last - first, most - least, out=np.zeros_like(first), where=most > least)
    return first - slope * least, slope


def largest_losses(problem: Problem, weight: Array, count: Positions) -> Array:
    """The least value of the largest loss of a fleet (R,) under each cut (K,), as the program sees it."""
    fixed, slope = least_loss(problem)
    lost = np.where(count > 0, fixed + slope * count, 0.0)
    return np.asarray((1.0 - problem.headroom) * (weight * lost).max(axis=1))


def _loss_cuts(problem: Problem, columns: Columns, weight: Array) -> Block:
    """What is left after the largest loss satisfies each cut: sum_r w_r (1 - h) p_r n_r - d_k >= 1."""
    count, types = weight.shape
    row = [np.repeat(np.arange(count), types), np.arange(count)]
    column = [np.tile(np.arange(types), count), columns.largest_loss + np.arange(count)]
    value = [(weight * problem.capacity).ravel(), -np.ones(count)]
    return _rows("loss_cut", np.ones(count), np.full(count, np.inf), row, column, value)


def _largest_loss(problem: Problem, columns: Columns, weight: Array) -> Block:
    """The largest loss is at least that of each used type: d_k >= w_r (1 - h) (a_r u_r + b_r n_r)."""
    fixed, slope = least_loss(problem)
    cut, lost = np.nonzero(weight > 0)
    row, worth = np.arange(len(cut)), (1.0 - problem.headroom) * weight[cut, lost]
    column = [columns.largest_loss + cut, columns.used + lost, lost]
    value = [np.ones(len(cut)), -worth * fixed[lost], -worth * slope[lost]]
    return _rows("largest_loss", np.zeros(len(cut)), np.full(len(cut), np.inf), [row, row, row], column, value)


def _scenario_cover(problem: Problem, columns: Columns, position: int) -> Block:
    """After the loss every bucket is still served, by shares of its own, which need not be whole slices."""
    return _cover(problem, columns, block=position + 1, name=f"cover_without_{position}")


def _scenario_load(problem: Problem, columns: Columns, position: int) -> Block:
    """After the loss no type is overloaded; the lost one has (1 - h) (p_s n_s - K v_s) left."""
    types, lost = len(problem.cost), columns.scenarios[position]
    row, column, value = _load_entries(problem, columns, block=position + 1)
    row += [np.arange(types), np.array([lost])]
    column += [np.arange(types), np.array([columns.survivor + position])]
    value += [-problem.capacity, np.array([(1.0 - problem.headroom) * problem.spare_total])]
    return _rows(f"load_without_{position}", np.full(types, -np.inf), np.zeros(types), row, column, value)


def _scenario_tiny_load(problem: Problem, columns: Columns, position: int) -> Block:
    """After the loss thin traffic still needs a replica; all traffic of the lost type needs a surviving one.

    The row covers all of that traffic, because its load row allows as much as the most instances carry: a binary
    "survives" of 1e-6, which the solver takes for 0, would let more than thin traffic through.
    """
    types, row, column, value, count = _thin(problem, columns, block=position + 1, lost=columns.scenarios[position])
    is_lost = types == columns.scenarios[position]
    there = np.where(is_lost, columns.survivor + position, types)
    return _rows(
        f"tiny_load_without_{position}",
        np.full(len(types), -np.inf),
        np.zeros(len(types)),
        [row, np.arange(len(types))],
        [column, there],
        [value, -count * np.where(is_lost, 1.0, problem.replicas[types])],
    )


def _scenario_left(problem: Problem, columns: Columns, position: int) -> Block:
    """If the type survives the loss, at least one replica is left: p_s n_s >= (K + 1) v_s."""
    lost = columns.scenarios[position]
    value = np.array([problem.replicas[lost], -(problem.spare_total + 1.0)])
    column = np.array([lost, columns.survivor + position])
    return _rows(f"left_{position}", np.zeros(1), np.full(1, np.inf), [np.zeros(2, np.int64)], [column], [value])


def _scenario_survivor(problem: Problem, columns: Columns, position: int) -> Block:
    """If the type does not survive the loss, it carries nothing: load of the lost type <= (1 - h) p_s N_s v_s."""
    lost, pairs = columns.scenarios[position], len(columns.type_of)
    mine = np.flatnonzero(columns.type_of == lost)
    carried: Array = problem.load[lost, columns.bucket_of[mine]] / (problem.slices or 1)
    top = problem.capacity[lost] * problem.most[lost]
    column = [columns.share + (position + 1) * pairs + mine, np.array([columns.survivor + position])]
    row = [np.zeros_like(mine), np.array([0])]
    return _rows(f"survivor_{position}", np.array([-np.inf]), np.zeros(1), row, column, [carried, np.array([-top])])


def _load_entries(
    problem: Problem, columns: Columns, *, block: int
) -> tuple[list[Positions], list[Positions], list[Array]]:
    pairs = len(columns.type_of)
    carried: Array = problem.load[columns.type_of, columns.bucket_of] / (problem.slices or 1)
    carried = np.where(carried >= _LEAST_ENTRY, carried, 0.0)
    return [columns.type_of], [columns.share + block * pairs + np.arange(pairs)], [carried]


def _rows(
    name: str, lower: Array, upper: Array, row: list[Positions], column: list[Positions], value: list[Array]
) -> Block:
    nothing = np.empty(0, np.int64)
    return Block(
        name=name,
        lower=lower,
        upper=upper,
        row=np.concatenate(row) if row else nothing,
        column=np.concatenate(column) if column else nothing,
        value=np.concatenate(value) if value else np.empty(0),
    )


def _assemble(problem: Problem, columns: Columns, blocks: list[Block]) -> Milp:
    """Stack the rows, sort the entries by column, and set objective, bounds and integrality."""
    first = np.cumsum([0] + [len(rows.lower) for rows in blocks])
    row = np.concatenate([rows.row + at for rows, at in zip(blocks, first, strict=False)])
    column = np.concatenate([rows.column for rows in blocks])
    order = np.argsort(column, kind="stable")
    start = np.zeros(columns.count + 1, np.int32)
    np.cumsum(np.bincount(column, minlength=columns.count), out=start[1:])
    cost, upper, is_integer = _variables(problem, columns)
    program = LinearRows(
        cost=cost,
        lower=np.zeros(columns.count),
        upper=upper,
        is_integer=is_integer,
        row_lower=np.concatenate([rows.lower for rows in blocks]),
        row_upper=np.concatenate([rows.upper for rows in blocks]),
        start=start,
        row=row[order].astype(np.int32),
        value=np.concatenate([rows.value for rows in blocks])[order],
    )
    return Milp(program=program, columns=columns, row_names=tuple((rows.name, len(rows.lower)) for rows in blocks))


def _variables(problem: Problem, columns: Columns) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Objective, upper bounds and integrality of the variables."""
    types, whole = len(problem.cost), float(problem.slices or 1)
    cost, upper = np.zeros(columns.count), np.ones(columns.count)
    is_integer = np.ones(columns.count, bool)
    shares = slice(columns.share, columns.share + len(columns.type_of) * (1 + len(columns.scenarios)))
    upper[:types] = problem.most
    upper[shares] = whole
    is_integer[shares] = False
    is_integer[columns.largest_loss :] = False
    upper[columns.largest_loss :] = np.inf
    if problem.slices is not None:
        # Requests are split in whole slices in normal operation; after a loss, any split that carries them will do.
        is_integer[columns.share : columns.share + len(columns.type_of)] = True
    if columns.served >= 0:
        cost[columns.served] = -1.0
        upper[columns.served] = whole
        is_integer[columns.served] = problem.slices is not None
    else:
        cost[:types] = problem.cost
    return cost, upper, is_integer
