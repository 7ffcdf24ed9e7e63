"""A plan from its file: every value has the right kind, and the values are consistent with each other.

A truncated, edited or damaged file may still be JSON with all keys. Redundant values are compared, because otherwise
users would first notice the damage in a deployment.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_type_hints

import numpy as np

from melange.errors import InputError, some_of
from melange.files import Json
from melange.plan.confidence import CONFIDENCE_BY_END
from melange.plan.plan import Baseline, Plan
from melange.plan.question_file import question_from_json
from melange.records import mapping, number, record, shown, value_of, whole

# Tolerance between redundant values: sums of floats in a different order.
_ROUNDING = 1e-6
# The parts of a plan besides its question and its arrays, by their keys in the file.
_PLAIN = {"cost_per_h": "cost_per_h", "bound_per_h": "bound_per_h", "gap": "gap", "status": "status"}
_PLAIN |= {"solve_s": "solve_s", "served_fraction": "served_fraction", "unservable": "unservable"}
_PLAIN |= {"warnings": "cautions"}
_OPTIONAL = (
    "cost_at",
    "next_measurement",
    "certificate",
    "simulation",
    "not_simulated",
    "least_carbon",
    "service_file",
)


def plan_from_json(content: Json) -> Plan:
    """A plan from the output of its ``to_json``.

    Raises
    ------
    InputError
        A value has the wrong kind, or values contradict each other; the message names the key.
    """
    question = question_from_json(content)
    names = [one.name for one in question.profile.replica_types]
    hints = {one.name: get_type_hints(Plan)[one.name] for one in fields(Plan)}
    plain: dict[str, Any] = {field: value_of(hints[field], content[key], key) for key, field in _PLAIN.items()}
    plain |= {key: value_of(hints[key], content[key], key) for key in _OPTIONAL if content.get(key) is not None}
    singles = mapping(content["single_type"], "single_type")
    plan = Plan(
        question=question,
        instances=np.array([whole(one, f"instances.{name}") for name, one in _of_each(content, "instances", names)]),
        share=content["share"],
        load=np.array([number(one, f"load.{name}") for name, one in _of_each(content, "load", names)]),
        single_type={name: record(Baseline, one, f"single_type.{name}") for name, one in singles.items()},
        **plain,
    )
    _check_names(plan)
    _check(plan, content)
    return plan


def _check_names(plan: Plan) -> None:
    """Refuse names of replica types that the plan does not have, and costs at other ends than those of intervals."""
    known = {one.name for one in plan.replica_types}
    named = [(f"single_type.{name}", name) for name in plan.single_type]
    if plan.certificate is not None:
        named += [(f"certificate.headroom.{name}", name) for name in plan.certificate.headroom]
        alone = plan.certificate.single_type
        named += [] if alone is None else [(f"certificate.single_type: {shown(alone)}", alone)]
    if extra := [where for where, name in named if name not in known]:
        raise InputError(f"{extra[0]}: no such name in replica_types")
    if plan.cost_at and plan.cost_at.keys() != CONFIDENCE_BY_END.keys():
        raise InputError(f"cost_at must have {', '.join(CONFIDENCE_BY_END)}, got {some_of(plan.cost_at)}")


def _of_each(content: Json, key: str, names: list[str]) -> list[tuple[str, Any]]:
    """One value for each replica type."""
    values = mapping(content[key], key)
    if missing := [name for name in names if name not in values]:
        raise InputError(f"{key}.{missing[0]} is missing")
    if extra := sorted(values.keys() - set(names)):
        raise InputError(f"{key}.{extra[0]}: no such name in replica_types")
    return [(name, values[name]) for name in names]


def _check(plan: Plan, content: Json) -> None:
    """Compare redundant values of the file."""
    for key, least, most in (("gap", 0.0, 1.0), ("served_fraction", 0.0, 1.0), ("solve_s", 0.0, np.inf)):
        if not least <= getattr(plan, key) <= most * (1 + _ROUNDING):
            raise InputError(f"{key}: must be {least:g} to {most:g}, got {getattr(plan, key):g}")
    share = plan.share
    if (share < 0).any() or (share.sum(axis=0) > 1 + _ROUNDING).any():
        raise InputError("share: must be 0 to 1, and add up to at most 1 for each size")
    if (share[plan.instances == 0] > 0).any():
        raise InputError("share: a type without instances has requests")
    prices = np.array([one.cost_per_h for one in plan.replica_types])
    _agree("cost_per_h", plan.cost_per_h, float(plan.instances @ prices), "the instances at their prices cost")
    if (share[plan.max_request_rate <= 0] > 0).any():
        raise InputError("share: requests go to a type that cannot serve their size")
    served = float((share.sum(axis=0) * plan.workload.request_rate).sum() / plan.workload.total_rate)
    _agree("served_fraction", plan.served_fraction, served, "the shares add up to")
    if "fingerprint" in content and content["fingerprint"] != plan.fingerprint:
        raise InputError(
            f"fingerprint: the file says {str(content['fingerprint'])[:32]!r}, but its content has "
            f"{plan.fingerprint}: the file was changed after it was written",
            hint="plan again: melange plan service.yaml --out plan.json",
        )


def _agree(key: str, said: float, found: float, words: str) -> None:
    if abs(said - found) > _ROUNDING * max(1.0, abs(found)):
        raise InputError(
            f"{key}: the file says {said:g}, but {words} {found:g}", hint="the file is damaged: plan again"
        )
