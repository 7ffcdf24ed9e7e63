"""The hash of a plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from plan_cases import answering, offer, profile, workload

from melange.errors import Caution
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.slo import Slo


def solved(rate: float = 40.0, **options: object) -> Plan:
    """Two types for two sizes."""
    rates = profile([offer("A", 1.0), offer("B", 1.5)], [[[4.0], [1.0]], [[3.0], [3.0]]])
    return solve(workload([[rate], [30.0]]), rates, Options(**options))


def test_a_plan_that_is_solved_again_is_known_again(tmp_path: Path) -> None:
    """However long it took; and its file says so."""
    first, second = solved(), replace(solved(), solve_s=60.0)
    assert first.solve_s != second.solve_s
    assert first.fingerprint == second.fingerprint
    assert Plan.read(first.save(tmp_path / "plan.json")).fingerprint == first.fingerprint
    assert f'"fingerprint": "{first.fingerprint}"' in (tmp_path / "plan.json").read_text()


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, gap=0.5, bound_per_h=0.1, status="time limit"),
        lambda plan: replace(plan, cautions=(Caution("stale-price", "of May"),), next_measurement="A"),
        lambda plan: replace(plan, single_type={}, cost_at={"low": 9.0}, cost_per_h=9.0),
        lambda plan: replace(plan, share=plan.share + 1e-13),
    ],
    ids=("how it was found", "what is said of it", "what it and others cost", "rounding"),
)
def test_how_it_was_found_and_what_it_costs_change_nothing(change: Callable[[Plan], Plan]) -> None:
    """The same fleet gets the same requests."""
    assert change(solved()).fingerprint == solved().fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda plan: replace(plan, instances=plan.instances + 1),
        lambda plan: replace(plan, share=plan.share[::-1].copy()),
        lambda plan: answering(plan, slo=Slo(tpot_s=0.1)),
        lambda plan: answering(plan, model="another"),
        lambda plan: answering(plan, options={"headroom": 0.2}),
        lambda plan: replace(plan, question=plan.question.at_rate(2 * plan.workload.total_rate)),
        lambda plan: answering(plan, replica_types=tuple(replace(one, engine="other") for one in plan.replica_types)),
    ],
    ids=("instances", "shares", "slo", "model", "headroom", "traffic", "engine"),
)
def test_another_plan_has_another_one(change: Callable[[Plan], Plan]) -> None:
    """Whatever of it changes."""
    assert change(solved()).fingerprint != solved().fingerprint


def test_types_that_were_looked_at_and_not_used_do_not_count() -> None:
    """There may be a thousand of them."""
    plan = solved()
    profile = plan.question.profile
    longer = {
        name: np.concatenate([getattr(profile, name), getattr(profile, name)[:1]])
        for name in ("max_request_rate", "low", "high", "provenance", "reason")
    }
    unused = replace(plan.replica_types[0], name="unused")
    larger = replace(profile, replica_types=(*plan.replica_types, unused), **longer)
    more = replace(
        plan,
        question=replace(plan.question, profile=larger),
        instances=np.append(plan.instances, 0),
        load=np.append(plan.load, 0.0),
        share=np.concatenate([plan.share, np.zeros_like(plan.share[:1])]),
    )
    assert more.fingerprint == plan.fingerprint
