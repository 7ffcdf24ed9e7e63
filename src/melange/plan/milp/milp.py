"""The program in arrays, with the meaning of its columns and rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melange.plan.milp.highs import LinearRows
from melange.plan.problem import Positions
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """The position of each variable.

    Parameters
    ----------
    type_of, bucket_of
        Type and bucket of each share (P,): the pairs that are not forbidden.
    used
        Position of the first of the R binaries "type is used"; -1 if no constraint needs them.
    share
        Position of the first of the P shares; the shares of the scenarios follow in blocks of P.
    served
        Position of the served share of traffic (under a budget); -1 otherwise.
    scenarios
        Types whose loss the fleet must survive as a whole.
    survivor
        Position of the first of the binaries "this type keeps some replicas after the loss", one per scenario.
    largest_loss
        Position of the first of the largest losses, one per cut that takes losses into account.
    count
        Number of variables.
    """

    type_of: Positions
    bucket_of: Positions
    used: int
    share: int
    served: int
    scenarios: tuple[int, ...]
    survivor: int
    largest_loss: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Block:
    """Some rows of the program: lower <= A x <= upper, A as triplets.

    Parameters
    ----------
    name
        Name of the constraint.
    lower, upper
        Bounds of each row (M,).
    row, column, value
        Entries of A as triplets (E,).
    """

    name: str
    lower: Array
    upper: Array
    row: Positions
    column: Positions
    value: Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Milp:
    """A program in arrays, and what its variables and rows mean.

    Parameters
    ----------
    program
        The arrays.
    columns
        Position of each variable.
    row_names
        Constraint function and how many rows it made, in order.
    losses
        Weights (K, R) of the cuts that take losses into account; None if there are none.
    """

    program: LinearRows
    columns: Columns
    row_names: tuple[tuple[str, int], ...]
    losses: Array | None = None


def extended(milp: Milp, *, cost: Array, upper: Array, added: Block) -> Milp:
    """The program with continuous columns and rows added at its end, under another objective.

    Parameters
    ----------
    milp
        With C columns and M rows.
    cost
        Objective of all columns (C + K,).
    upper
        Upper bounds of the new columns (K,); their lower bound is 0.
    added
        The new rows: row counted from 0, column from the first of all.
    """
    old, new = milp.program, len(upper)
    columns, rows = len(old.cost) + new, len(old.row_lower)
    every_column = np.concatenate([np.repeat(np.arange(len(old.cost)), np.diff(old.start)), added.column])
    order = np.argsort(every_column, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(every_column, minlength=columns)))
    whole = np.zeros(len(old.cost), bool) if old.is_integer is None else old.is_integer
    program = LinearRows(
        cost=cost,
        lower=np.append(old.lower, np.zeros(new)),
        upper=np.append(old.upper, upper),
        row_lower=np.append(old.row_lower, added.lower),
        row_upper=np.append(old.row_upper, added.upper),
        start=start.astype(np.int32),
        row=np.concatenate([old.row, rows + added.row])[order].astype(np.int32),
        value=np.concatenate([old.value, added.value])[order],
        is_integer=np.append(whole, np.zeros(new, bool)),
    )
    return Milp(program=program, columns=milp.columns, row_names=(*milp.row_names, (added.name, len(added.lower))))
