"""A program as text in the LP format, for people and for other solvers."""

from __future__ import annotations

import numpy as np

from melange.plan.milp.milp import Milp

# Entries of a line before it is broken: about 100 characters, which people can still read.
_PER_LINE = 6


def to_lp(milp: Milp) -> str:
    """The program in CPLEX LP format.

    Variables are n_type, u_type, f_type_bucket, theta, g_scenario_type_bucket, v_type; types and buckets are numbered
    from 0, in the order of the problem.
    """
    program, names = milp.program, _variables(milp)
    rows: list[list[tuple[int, float]]] = [[] for _ in program.row_lower]
    column = np.repeat(np.arange(len(program.cost)), np.diff(program.start))
    for row, c, value in zip(program.row.tolist(), column.tolist(), program.value.tolist(), strict=True):
        rows[row].append((c, value))
    lines = [
        "minimize",
        *_sum(" cost:", [(c, v) for c, v in enumerate(program.cost.tolist()) if v], names),
        "subject to",
    ]
    labels = [f"{name}_{at}" for name, count in milp.row_names for at in range(count)]
    for label, entries, low, high in zip(labels, rows, program.row_lower, program.row_upper, strict=True):
        sense = f"= {low:.12g}" if low == high else f">= {low:.12g}" if np.isinf(high) else f"<= {high:.12g}"
        lines += _sum(f" {label}:", entries, names, sense)
    lines.append("bounds")
    lines += [
        f" {low:.12g} <= {n} <= {high:.12g}" for n, low, high in zip(names, program.lower, program.upper, strict=True)
    ]
    whole = [] if program.is_integer is None else [names[c] for c in np.flatnonzero(program.is_integer)]
    if whole:
        lines += ["general", *(f" {name}" for name in whole)]
    return "\n".join([*lines, "end", ""])


def _sum(head: str, entries: list[tuple[int, float]], names: list[str], tail: str = "") -> list[str]:
    terms = [f"{'-' if value < 0 else '+'} {abs(value):.12g} {names[c]}" for c, value in entries]
    lines = [" ".join(terms[at : at + _PER_LINE]) for at in range(0, len(terms), _PER_LINE)] or ["0"]
    lines[0] = f"{head} {lines[0]}"
    lines[-1] = f"{lines[-1]} {tail}".rstrip()
    return [lines[0], *(f"   {line}" for line in lines[1:])]


def _variables(milp: Milp) -> list[str]:
    columns = milp.columns
    types = columns.used if columns.used >= 0 else columns.share
    names = [f"n_{r}" for r in range(types)]
    names += [f"u_{r}" for r in range(types)] if columns.used >= 0 else []
    pairs = list(zip(columns.type_of.tolist(), columns.bucket_of.tolist(), strict=True))
    names += [f"f_{r}_{b}" for r, b in pairs]
    names += [f"g_{lost}_{r}_{b}" for lost in columns.scenarios for r, b in pairs]
    names += ["theta"] if columns.served >= 0 else []
    return names + [f"v_{lost}" for lost in columns.scenarios]
