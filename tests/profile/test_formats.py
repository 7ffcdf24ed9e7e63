"""Other tools' profiles: what they mean, round trips, and every way of getting them wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from profile_cases import offer

from melange.catalog.model import Model
from melange.errors import InputError
from melange.profile.estimate import estimate
from melange.profile.formats.aibrix import aibrix_from, profile_from_aibrix
from melange.profile.formats.profiles import (
    combine,
    read_melange_config,
    read_profile,
    write_aibrix_profile,
    write_melange_config,
)
from melange.profile.formats.release import measured_profile, named_type
from melange.profile.profile import MEASURED, Profile
from melange.slo import Slo
from melange.workload.workload import Buckets

# The example of the authors' release.
EXAMPLE: dict[str, Any] = {
    "gpu_info": {
        "A10G": {"cost": 1.01, "tputs": [[2, 1], [5, 2]]},
        "A100-80GB": {"cost": 3.67, "tputs": [[20, 20], [40, 20]]},
    },
    "workload_distribution": [[0.2, 0.1], [0.5, 0.2]],
    "total_request_rate": 30.0,
    "slice_factor": 2,
}
A10G = ("gpu_info", "A10G", "tputs")
# Three input sizes, two output sizes: AIBrix's rows are outputs.
AIBRIX: dict[str, Any] = {
    "gpu": "simulator-a100",
    "cost": 1.5,
    "tputs": [[8.0, 4.0, 2.0], [4.0, 2.0, 0.0]],
    "indexes": [[128, 512], [256, 512, 1024]],
    "created": 1748888478.2,
    "e2e": [[0.1, 0.2, 0.4], [0.4, 0.8, 1.6]],
    "slos": {"percentile": 99, "e2e": 5.0},
}


def written(folder: Path, content: object, name: str = "file.json") -> Path:
    """A file with that JSON, or that text."""
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_the_release_example(tmp_path: Path) -> None:
    """Shares times rate, tables as they stand, prices by name; slices, no headroom, the exact optimum."""
    workload, profile, settings = read_melange_config(written(tmp_path, EXAMPLE))
    assert workload.request_rate.tolist() == [[6.0, 3.0], [15.0, 6.0]]
    assert workload.buckets == profile.buckets == Buckets.ordinal(2, 2)
    assert profile.max_request_rate.tolist() == [[[2, 1], [5, 2]], [[20, 20], [40, 20]]]
    assert [(one.name, one.cost_per_h) for one in profile.replica_types] == [("A10G", 1.01), ("A100-80GB", 3.67)]
    assert (profile.provenance == MEASURED).all()
    assert settings == {"slices": 2, "headroom": 0.0, "gap": 0.0}


def test_the_release_as_a_profile_alone(tmp_path: Path) -> None:
    """``gpu_info`` suffices for a profile."""
    path = written(tmp_path, {"gpu_info": EXAMPLE["gpu_info"]})
    assert read_profile(path).max_request_rate[0].tolist() == [[2, 1], [5, 2]]


def test_the_release_survives_its_file(tmp_path: Path) -> None:
    """Written and read again: the same traffic, capacities and slice factor."""
    workload, profile, _ = read_melange_config(written(tmp_path, EXAMPLE))
    again, same, settings = read_melange_config(
        write_melange_config(tmp_path / "again.json", workload, profile, slice_factor=8)
    )
    assert again.request_rate == pytest.approx(workload.request_rate)
    assert (same.max_request_rate == profile.max_request_rate).all()
    assert settings["slices"] == 8


def test_an_instance_of_four_replicas_is_one_gpu_of_the_release(llama: Model, tmp_path: Path) -> None:
    """The release rents what it names: the whole instance at its price, with what its four replicas carry."""
    buckets = Buckets(input_edges=(500,), output_edges=(100,))
    profile = estimate(llama, [offer("L4", 4, cost_per_h=4.0)], Slo(tpot_s=0.1), buckets, tensor_parallel=1)
    again = read_profile(write_aibrix_profile(tmp_path / "profile.json", profile))
    assert again.max_request_rate[0] == pytest.approx(4 * profile.max_request_rate[0])
    assert again.replica_types[0].cost_per_h == 4.0


def test_aibrix_is_transposed(tmp_path: Path) -> None:
    """Rows of the file are outputs, ours are inputs; its objective comes along; a rate of 0 has its reason."""
    profile = read_profile(written(tmp_path, AIBRIX))
    assert profile.buckets == Buckets(input_edges=(256, 512, 1024), output_edges=(128, 512))
    assert profile.max_request_rate[0].tolist() == [[8, 4], [4, 2], [2, 0]]
    assert profile.slo == Slo(latency_s=5.0, statistic="p99")
    assert profile.reasons[profile.reason[0, 2, 1]] == "the file gives it a rate of 0"


def test_several_aibrix_profiles(tmp_path: Path) -> None:
    """One a line, as a list, or a file each: the same profile of two GPUs."""
    other = AIBRIX | {"gpu": "simulator-l4", "cost": 0.5}
    lines = written(tmp_path, f"{json.dumps(AIBRIX)}\n{json.dumps(other)}\n", "lines.jsonl")
    listed = written(tmp_path, [AIBRIX, other], "list.json")
    files = written(tmp_path, AIBRIX, "a.json"), written(tmp_path, other, "b.json")
    for profile in (read_profile(lines), read_profile(listed), read_profile(*files)):
        assert [one.name for one in profile.replica_types] == ["simulator-a100", "simulator-l4"]
        assert profile.max_request_rate.shape == (2, 3, 2)


def test_objectives_of_aibrix_without_a_counterpart_are_said(tmp_path: Path) -> None:
    """A token throughput is no latency: it is dropped, and a caution says so."""
    profile = read_profile(written(tmp_path, AIBRIX | {"slos": {"percentile": 0, "tt": 100, "ttft": 1.0}}))
    assert profile.slo == Slo(ttft_s=1.0, statistic="mean")
    assert "tt 100" in profile.cautions[0].message


@given(
    rates=arrays.arrays(float, arrays.array_shapes(min_dims=3, max_dims=3, max_side=4), elements=st.integers(0, 99)),
)
def test_aibrix_survives_its_file_and_writes_floats(rates: np.ndarray) -> None:
    """Any table comes back as it was; whole numbers are written as floats, for AIBrix plans no GPU on integers."""
    buckets = Buckets.ordinal(*rates.shape[1:])
    buckets = Buckets(input_edges=buckets.input_edges, output_edges=buckets.output_edges)
    types = tuple(named_type(f"gpu-{r}", 1.0, "") for r in range(len(rates)))
    profile = measured_profile(types, buckets, rates, slo=Slo(tpot_s=0.1, statistic="mean"))
    documents = json.loads(json.dumps(aibrix_from(profile, created_s=1.0)))
    assert all(isinstance(cell, float) for one in documents for row in one["tputs"] for cell in row)
    again = profile_from_aibrix(documents, [""] * len(documents))
    assert (again.max_request_rate == rates).all()
    assert (again.buckets, again.slo) == (profile.buckets, profile.slo)


def test_aibrix_has_no_word_for_requests() -> None:
    """Rates that hold for a share of requests are written as those that hold in the mean, as estimated ones do."""
    documents = {
        statistic: aibrix_from(
            measured_profile(
                (named_type("gpu", 1.0, ""),),
                Buckets(input_edges=(9,), output_edges=(9,)),
                np.ones((1, 1, 1)),
                slo=Slo(tpot_s=0.1, statistic=statistic),
            ),
            created_s=1.0,
        )
        for statistic in ("requests", "mean", "p99")
    }
    assert documents["requests"] == documents["mean"]
    assert [documents[name][0]["slos"]["percentile"] for name in ("mean", "p99")] == [0, 99]


def changed(content: dict[str, Any], *path: str | int, value: object) -> dict[str, Any]:
    """A copy in which one value is another."""
    copy = json.loads(json.dumps(content))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed(EXAMPLE, "gpu_info", "A10G", "tputs", 0, value=[-2, 1]),
            r"A10G.tputs\[0\]\[0\] must be >= 0, got -2",
        ),
        (
            changed(EXAMPLE, "gpu_info", "A10G", "tputs", 0, value=["2", 1]),
            r"\[0\]\[0\] must be a number, got '2'",
        ),
        (changed(EXAMPLE, *A10G, value=[[2, 1], [5]]), "rows of one length, got 1 and 2"),
        (changed(EXAMPLE, *A10G, value=[[2, 1]]), "must be 1 x 2 as A10G's, got 2 x 2"),
        (changed(EXAMPLE, "gpu_info", "A10G", "cost", value=0), "cost_per_h must be > 0 and finite, got 0"),
        (changed(EXAMPLE, "gpu_info", value={}), "at least one GPU"),
        (changed(EXAMPLE, "workload_distribution", value=[[0.2, 0.1], [0.5, 0.1]]), "must add up to 1, got 0.9"),
        (changed(EXAMPLE, "workload_distribution", value=[[1.2, -0.2], [0, 0]]), "must be >= 0, got -0.2"),
        (changed(EXAMPLE, "workload_distribution", value=[[1.0]]), "must be 2 x 2 as the tputs, got 1 x 1"),
        (changed(EXAMPLE, "total_request_rate", value=0), "total_request_rate must be > 0, got 0"),
        (changed(EXAMPLE, "slice_factor", value=1.5), "slice_factor must be a whole number >= 1, got 1.5"),
        (changed(EXAMPLE, "slice_factor", value=True), "slice_factor must be a number, got True"),
        ({key: EXAMPLE[key] for key in ("gpu_info", "total_request_rate")}, "'workload_distribution' is missing"),
        (json.dumps(EXAMPLE).replace("0.2, 0.1", "NaN, 0.1"), "must be a number, got NaN"),
        (json.dumps(EXAMPLE)[:40], "not valid JSON"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_bad_configurations_of_the_release(tmp_path: Path, content: object, words: str) -> None:
    """Each names the file, the field and what was found."""
    with pytest.raises(InputError, match=words) as caught:
        read_melange_config(written(tmp_path, content))
    assert "file.json" in str(caught.value)


def test_a_transposed_distribution_is_called_one(tmp_path: Path) -> None:
    """Two input and three output sizes in the tables, three and two in the shares."""
    content = {
        "gpu_info": {"L4": {"cost": 1, "tputs": [[1, 1, 1], [1, 1, 1]]}},
        "workload_distribution": [[0.5, 0.1], [0.1, 0.1], [0.1, 0.1]],
        "total_request_rate": 1,
        "slice_factor": 1,
    }
    with pytest.raises(InputError, match="looks transposed"):
        read_melange_config(written(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed(AIBRIX, "tputs", value=[[8, 4], [4, 2], [2, 0]]),
            "must be 2 x 3 .*got 3 x 2 .it looks transposed",
        ),
        (changed(AIBRIX, "tputs", value=[[8, 4, 2]]), "must be 2 x 3 as the indexes, got 1 x 3"),
        (changed(AIBRIX, "tputs", 1, value=[4, 2, -1]), r"tputs\[1\]\[2\] must be >= 0, got -1"),
        (changed(AIBRIX, "indexes", value=[[128, 512]]), "indexes must be"),
        (changed(AIBRIX, "indexes", value=[[512, 128], [256, 512, 1024]]), "edges must ascend"),
        (changed(AIBRIX, "gpu", value=""), "'gpu' is missing"),
        (changed(AIBRIX, "cost", value="1"), "cost must be a number, got '1'"),
        (changed(AIBRIX, "slos", value={"percentile": 100, "e2e": 1}), "slo.statistic must be"),
        (json.dumps(AIBRIX).replace("8.0", "Infinity"), "must be finite, got an infinite number"),
        ([AIBRIX, changed(AIBRIX, "indexes", 0, value=[1, 2])], "indexes must be the same in all profiles"),
        ([AIBRIX, AIBRIX], r"file\.json: .*names of replica types must be unique"),
        ([AIBRIX, EXAMPLE], "several profiles"),
        ({"gpus": 1}, "unknown profile format"),
        (f"{json.dumps(AIBRIX)}\nnot json\n", r"file.json:2: not valid JSON"),
    ],
)
def test_bad_profiles(tmp_path: Path, content: object, words: str) -> None:
    """Each names the file, the field and what was found."""
    with pytest.raises(InputError, match=words):
        read_profile(written(tmp_path, content))


def test_our_own_profile_is_read_as_well(llama: Model, tmp_path: Path) -> None:
    """``profile.json`` goes through the same door."""
    buckets = Buckets(input_edges=(500,), output_edges=(100,))
    profile = estimate(llama, [offer("L4")], Slo(tpot_s=0.1), buckets)
    assert read_profile(profile.save(tmp_path / "profile.json")).replica_types == profile.replica_types


BUCKETS = Buckets(input_edges=(500, 1000), output_edges=(100,))


def measured(name: str, rates: list[list[float]], buckets: Buckets = BUCKETS) -> Profile:
    """One measured type."""
    return measured_profile((named_type(name, 1.0, ""),), buckets, np.array([rates]), slo=Slo(tpot_s=0.1))


def test_measured_cells_win(llama: Model) -> None:
    """By accelerator where no name agrees: both offers of it are replaced, the price stays the offer's."""
    offers = [offer("L4", cost_per_h=0.7), offer("L4", region="there", cost_per_h=0.9), offer("A10G")]
    estimated = estimate(llama, offers, Slo(tpot_s=0.1), BUCKETS)
    both = combine(measured("L4", [[3.0], [0.0]]), estimated)
    assert both.max_request_rate[:2].tolist() == [[[3.0], [0.0]], [[3.0], [0.0]]]
    assert (both.max_request_rate[2] == estimated.max_request_rate[2]).all()
    assert both.provenance[:, 0, 0].tolist() == [0, 0, 2]
    assert both.why(0, 1, 0) == "the file gives it a rate of 0"
    assert [one.cost_per_h for one in both.replica_types] == [0.7, 0.9, 1.0]


def test_measured_types_without_a_counterpart_are_added(llama: Model) -> None:
    """A card that no offer has comes with its own price."""
    both = combine(measured("Abacus", [[3.0], [2.0]]), estimate(llama, [offer("L4")], Slo(tpot_s=0.1), BUCKETS))
    assert [one.name for one in both.replica_types] == ["cloud/here/l4x1", "Abacus"]
    assert both.max_request_rate[1].tolist() == [[3.0], [2.0]]


def test_profiles_for_different_objectives_say_so(llama: Model) -> None:
    """Measured at 100 ms, estimated at 50: the answer stands, with a caution."""
    both = combine(measured("L4", [[3.0], [2.0]]), estimate(llama, [offer("L4")], Slo(tpot_s=0.05), BUCKETS))
    assert "slo" in [caution.kind for caution in both.cautions]


def test_buckets_must_agree(llama: Model) -> None:
    """Other edges are an error that names the ones to use; numbered buckets cannot be combined at all."""
    estimated = estimate(llama, [offer("L4")], Slo(tpot_s=0.1), BUCKETS)
    with pytest.raises(InputError, match="same buckets") as caught:
        combine(measured("L4", [[1.0]], Buckets(input_edges=(7,), output_edges=(9,))), estimated)
    assert "input [7], output [9]" in caught.value.hint
    with pytest.raises(InputError, match="numbered buckets"):
        combine(measured("L4", [[1.0]], Buckets.ordinal(1, 1)), estimated)


@pytest.mark.parametrize(
    ("stage", "use"), [("plan", "--incumbent"), ("profile", "--profile"), ("workload", "--workload")]
)
def test_a_file_of_another_stage_says_what_it_is_for(tmp_path: Path, stage: str, use: str) -> None:
    """Given where a service is expected."""
    with pytest.raises(InputError, match=f"is a {stage} file; a service.yaml is needed") as found:
        read_melange_config(written(tmp_path, {"melange": f"{stage}/1"}))
    assert use in found.value.hint
