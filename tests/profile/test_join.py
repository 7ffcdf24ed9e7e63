"""Profiles that were measured one by one, planned together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from profile_cases import offer

from melange.catalog.model import Model
from melange.errors import Caution, InputError
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.profile.formats.profiles import read_profile
from melange.profile.formats.release import measured_profile, named_type
from melange.profile.join import join
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

SLO = Slo(tpot_s=0.05)
BUCKETS = Buckets(input_edges=(500, 1000), output_edges=(100,))


def measured(name: str, rates: list[list[float]], **details: Any) -> Profile:
    """One measured type at 1 USD/h."""
    given = {"buckets": BUCKETS, "slo": SLO, "model": "llama", "source": f"measured {name}"} | details
    return measured_profile((named_type(name, 1.0, ""),), rate=np.array([rates]), **given)


def test_all_types_keep_what_is_known_of_them(llama: Model, tmp_path: Path) -> None:
    """Rates, intervals, why a cell is 0, engines, cautions and sources, each in its place, also from files."""
    doubt = Caution("price", "the price is unknown")
    small = replace(measured("small", [[2.0], [0.0]]), cautions=(doubt,))
    known = replace(estimate(llama, [offer("L4"), offer("A10G")], SLO, BUCKETS), model="")
    large = replace(measured("large", [[0.0], [9.0]]), cautions=(doubt,))
    files = [one.save(tmp_path / f"{place}.json") for place, one in enumerate((small, known, large))]
    for both in (join([small, known, large], ["a", "b", "c"]), read_profile(*files)):
        assert [one.name for one in both.replica_types] == ["small", "cloud/here/l4x1", "cloud/here/a10gx1", "large"]
        for name in ("max_request_rate", "low", "high", "provenance"):
            assert (getattr(both, name)[1:3] == getattr(known, name)).all()
            assert getattr(both, name)[3].tolist() == getattr(large, name)[0].tolist()
        assert [both.why(r, i, 0) for r, i in ((0, 0), (0, 1), (3, 0), (3, 1))] == [
            "",
            small.reasons[1],
            large.reasons[1],
            "",
        ]
        assert both.engines == (None, *known.engines, None)
        assert (both.model, both.slo) == ("llama", SLO)
        assert both.source == f"measured small; {known.source}; measured large"
        assert both.cautions == (doubt, *known.cautions)


def test_a_plan_may_rent_both(tmp_path: Path) -> None:
    """Each carries what the other cannot."""
    both = join([measured("short", [[2.0], [0.0]]), measured("long", [[0.0], [2.0]])], ["a", "b"])
    assert both.engines == ()
    plan = solve(Workload.at_upper_edges(BUCKETS, np.array([[1.0], [1.0]])), both)
    assert plan.instances.tolist() == [1, 1]


def test_one_is_itself() -> None:
    """Nothing to join."""
    one = measured("small", [[2.0], [1.0]])
    assert join([one], ["a.json"]) is one


@pytest.mark.parametrize(
    ("other", "words", "hint"),
    [
        (measured("small", [[1.0], [1.0]]), "replica_types: both contain 'small'", "--replica-type"),
        (
            measured("large", [[1.0], [1.0]], slo=Slo(tpot_s=0.1)),
            "slo must be the same in both, got TPOT <= 50 ms for 99% of requests",
            "SLO",
        ),
        (measured("large", [[1.0], [1.0]], model="qwen"), "model must be the same in both, got llama and qwen", "name"),
        (
            measured("large", [[1.0]], buckets=Buckets(input_edges=(500,), output_edges=(100,))),
            "input_edges must be the same in both, got [500, 1000] and [500]",
            "workload",
        ),
        (
            measured("large", [[1.0], [1.0]], buckets=Buckets(input_edges=(500, 1000), output_edges=(99,))),
            "output_edges must be the same in both, got [100] and [99]",
            "workload",
        ),
        (measured("large", [[1.0], [1.0]], buckets=Buckets.ordinal(2, 1)), "is_ordinal must be the same", "edges"),
    ],
    ids=("name", "slo", "model", "inputs", "outputs", "numbered"),
)
def test_what_does_not_go_together_is_said_of_both_files(other: Profile, words: str, hint: str, tmp_path: Path) -> None:
    """With the field, also where a file between the two says nothing of it."""
    silent = measured("silent", [[1.0], [1.0]], slo=None, model="")
    files = [
        one.save(tmp_path / f"{name}.json")
        for name, one in (("a", measured("small", [[2.0], [1.0]])), ("b", silent), ("c", other))
    ]
    with pytest.raises(InputError) as caught:
        read_profile(*files)
    assert f"{caught.value}".startswith(f"{files[0]} and {files[2]}: {words}")
    assert hint in caught.value.hint


def test_other_tools_files_are_not_joined_with_ours(tmp_path: Path) -> None:
    """A release's configuration says neither sizes nor SLO."""
    (tmp_path / "release.json").write_text('{"gpu_info": {"A10G": {"cost": 1.0, "tputs": [[1.0]]}}}')
    ours = measured("small", [[2.0], [1.0]]).save(tmp_path / "ours.json")
    with pytest.raises(InputError, match="several profiles can be combined only if"):
        read_profile(ours, tmp_path / "release.json")
