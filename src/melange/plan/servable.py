"""Which buckets the allowed types can serve, and why they cannot serve the others."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from melange.errors import InfeasibleError
from melange.plan.problem import allowed_types
from melange.plan.question import Question
from melange.profile.profile import Profile
from melange.replica.layout_cost import UNSPLITTABLE
from melange.units import S_PER_MS, count_of, percent, significant
from melange.workload.workload import Mask

# Sentences of an error, reasons in a sentence, names of types or sizes before a reason. With more, the text is too long
# to read; with fewer, types that a reader could act on are left out. Chosen by judgment; a profile's --json has them
# all.
_MOST_SENTENCES = 12
_MOST_REASONS = 8
_MOST_NAMES = 4
_MOST_SIZES = 3
_SPLIT_HINT = "give degrees that divide the model (profile.tensor_parallel, pipeline_parallel), or leave them out"
# A figure with its unit in a reason: reasons that differ only in such figures are merged into one.
_FIGURE = re.compile(r"(\d[\d,]*(?:\.\d+)?)( (?:ms|s)\b)?")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scope:
    """The types and buckets of a question that are planned for.

    Parameters
    ----------
    allowed
        Types that may be used, and serve some bucket with traffic (R,).
    served
        Buckets with traffic to plan for (I x O,).
    unservable
        Why buckets were left out, one sentence each.
    """

    allowed: Mask
    served: Mask
    unservable: tuple[str, ...]


def scope_of(question: Question) -> Scope:
    """The types and buckets that are planned with.

    Raises
    ------
    InfeasibleError
        A bucket has no allowed type that serves it, unless such buckets may be dropped; or no bucket has one.
    """
    workload, profile = question.workload, question.profile
    allowed = allowed_types(question)
    wanted = workload.request_rate.ravel() > 0
    able = profile.max_request_rate.reshape(len(profile.replica_types), -1) > 0
    served = wanted & able[allowed].any(axis=0)
    missing = np.flatnonzero(wanted & ~served)
    useful = allowed & able[:, wanted].any(axis=1)  # an instance of another type would count, and serve nothing
    if not len(missing):
        return Scope(allowed=useful, served=served, unservable=())
    if not allowed.any():
        raise InfeasibleError(
            "every replica type is excluded or limited to no instances",
            hint="allow some: plan.exclude, offers.max, or the prices' own numbers of instances",
        )
    rate = workload.request_rate.ravel()
    part = rate[missing].sum() / workload.total_rate
    reasons = _why_unservable(question, allowed, missing)
    if question.options.drop_unservable and served.any():
        return Scope(allowed=useful, served=served, unservable=reasons)
    noun = "request size" if len(missing) == 1 else "request sizes"
    hint = _SPLIT_HINT if _is_never_split(profile, allowed, missing) else "relax the SLO or offer larger accelerators"
    if served.any():
        hint = f"plan for the rest with --drop-unservable, {hint}"
    raise InfeasibleError(
        f"no replica type can serve {len(missing)} {noun} ({percent(part, 2)} of requests)", reasons=reasons, hint=hint
    )


def _is_never_split(profile: Profile, allowed: Mask, cells: np.ndarray) -> bool:
    """Whether all types are split in ways that the model cannot be."""
    reason = profile.reason.reshape(len(profile.replica_types), -1)[allowed][:, cells]
    why = [profile.reasons[one] for one in np.unique(reason)]
    return bool(why) and all(UNSPLITTABLE.search(one) for one in why)


def _why_unservable(question: Question, allowed: Mask, cells: Sequence[int] | np.ndarray) -> tuple[str, ...]:
    """One sentence for each group of buckets that share their reasons, the busiest first."""
    profile = question.profile
    rate = question.workload.request_rate.ravel()
    cells_by_why: dict[str, list[int]] = defaultdict(list)
    for cell in cells:
        cells_by_why[_why(profile, allowed, int(cell))].append(int(cell))
    groups = sorted(cells_by_why.items(), key=lambda item: -rate[item[1]].sum())
    sentences = [
        f"{_listed([_label(profile, cell) for cell in group], _MOST_SIZES)} "
        f"({significant(rate[group].sum())} req/s): {why}"
        for why, group in groups[:_MOST_SENTENCES]
    ]
    rest = sum(len(group) for _, group in groups[_MOST_SENTENCES:])
    return (*sentences, f"and {count_of(rest, 'more request size')}") if rest else tuple(sentences)


def _why(profile: Profile, allowed: Mask, cell: int) -> str:
    """Why no type serves one bucket; reasons that differ only in their figures are merged."""
    reason = profile.reason.reshape(len(profile.replica_types), -1)[:, cell]
    told_by_kind: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for r, item in enumerate(profile.replica_types):
        able = profile.max_request_rate.reshape(len(profile.replica_types), -1)[r, cell] > 0
        if allowed[r]:
            why = profile.reasons[reason[r]] or "its max request rate is 0"
        elif able:
            why = "could serve it, but is excluded or not available"
        else:
            continue
        held = item.layout.accelerators
        name = item.offer.accelerator + (f" x {held}" * (held > 1))
        told_by_kind[_FIGURE.sub("#", why)].append((name, why))
    if not told_by_kind:
        return "no replica type is allowed"
    parts = [_together(told) for told in list(told_by_kind.values())[:_MOST_REASONS]]
    rest = len(told_by_kind) - len(parts)
    return "; ".join(parts) + (f"; and {count_of(rest, 'more reason')}" if rest > 0 else "")


def _together(told: Sequence[tuple[str, str]]) -> str:
    """Types and their common reason: each figure as a range, and the types with the lowest figures first."""
    figures = [_FIGURE.findall(why) for _, why in told]
    varying = [k for k in range(len(figures[0])) if len({row[k] for row in figures}) > 1]
    order = sorted(
        (*(_in_base_units(*row[k]) for k in varying), name) for row, (name, _) in zip(figures, told, strict=True)
    )
    names = list(dict.fromkeys(str(entry[-1]) for entry in order))
    ends = iter(range(len(figures[0])))

    def ranged(found: re.Match[str]) -> str:
        k = next(ends)
        if k not in varying:
            return found[0]
        column = sorted((row[k] for row in figures), key=lambda figure: _in_base_units(*figure))
        return f"{''.join(column[0])} to {''.join(column[-1])}"

    return f"{_listed(names, _MOST_NAMES)}: {_FIGURE.sub(ranged, told[0][1])}"


def _in_base_units(number: str, unit: str) -> float:
    return float(number.replace(",", "")) * (S_PER_MS if unit == " ms" else 1.0)


def _label(profile: Profile, cell: int) -> str:
    i, o = np.unravel_index(cell, profile.buckets.shape)
    return profile.buckets.label(int(i), int(o))


def _listed(names: Sequence[str], most: int) -> str:
    rest = len(names) - most
    return ", ".join(names) if rest <= 0 else f"{', '.join(names[:most])} and {rest} more"
