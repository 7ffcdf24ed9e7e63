"""The noun of the program: its arrays, and what its variables and rows mean."""

from __future__ import annotations

from dataclasses import dataclass

from melange.plan.milp.highs import LinearRows
from melange.plan.problem import Positions
from melange.workload.workload import Array


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Columns:
    """Where each variable stands.

    Parameters
    ----------
    type_of, bucket_of
        Type and bucket of each share (P,): the pairs that are not forbidden.
    used
        First of the R binaries "type is used"; -1 where no constraint needs them.
    share
        First of the P shares; those of the scenarios follow in blocks of P.
    served
        The share of traffic that is served (under a budget); -1 otherwise.
    scenarios
        Types whose loss the fleet must stand as a whole.
    survivor
        First of the binaries "this type keeps some replicas after the loss", one a scenario.
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
    count: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProgramRows:
    """Some rows of the program: lower <= A x <= upper, A as triplets.

    Parameters
    ----------
    name
        The constraint that they are of.
    lower, upper
        Bounds of each row (M,); infinite where there is none.
    row, column, value
        Entries of A: the row within these, the variable, and the coefficient (K,).
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
        Where each variable stands.
    row_names
        Constraint function and how many rows it made, in order.
    """

    program: LinearRows
    columns: Columns
    row_names: tuple[tuple[str, int], ...]
