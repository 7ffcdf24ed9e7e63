"""Which era a release of an engine belongs to."""

from __future__ import annotations

from itertools import pairwise

import pytest

from melange.catalog.bundled import accelerators, find_model
from melange.errors import InputError
from melange.replica.era import Era, eras, find_era
from melange.replica.releases import Releases, era_of_release, number_of, pinned
from melange.replica.spread import spread, widened

DENSE, MIXTURE = find_model("Qwen/Qwen3-32B"), find_model("Qwen/Qwen3-30B-A3B")


@pytest.mark.parametrize(
    ("engine", "era"),
    [
        ("vllm==0.2.7", "vllm-0.2"),
        ("vllm==0.4.0", "vllm-0.5"),
        ("vllm==0.5.4", "vllm-0.5"),
        ("vllm==0.6.1.post2", "vllm-0.5"),
        ("vllm==0.6.4", "vllm-0.7"),
        ("vllm==v0.7.3", "vllm-0.7"),
        ("vllm==0.8.5", "vllm-1"),
        ("vLLM == 0.10.0", "vllm-1"),
        ("vllm==0.32.0", "vllm-1"),
        ("trtllm==0.9", "trtllm-0.10"),
        ("tensorrt-llm==0.15.0", "trtllm-offline"),
        ("trtllm==1.0.0rc3", "trtllm-1.0"),
        ("trtllm==1.2", "trtllm"),
        ("sglang==0.5.9", "sglang"),
    ],
)
def test_a_release_has_its_era(engine: str, era: str) -> None:
    """Releases compare by their numbers, 0.10 after 0.9; what follows the numbers does not count."""
    assert find_era(engine).name == era
    assert find_era(engine).is_covered


@pytest.mark.parametrize("engine", ["vllm>=0.6", "vllm==latest", "vllm==", "==0.6", "vllm~=0.6", "vllm!=0.6"])
def test_bounds_are_no_release(engine: str) -> None:
    """Only one release has an era."""
    with pytest.raises(InputError, match="names no release"):
        find_era(engine)


def test_a_release_of_an_unknown_engine_names_those_that_are_known() -> None:
    """The engine is what is wrong, not its release."""
    with pytest.raises(InputError, match="unknown engine 'vlm'; did you mean 'vllm'"):
        find_era("vlm==0.6.4")


def test_releases_of_an_engine_leave_no_doubt() -> None:
    """No release belongs to two eras, and the eras of an engine reach from its beginning to this day."""
    by_engine: dict[str, list[Era]] = {}
    for name in eras():
        by_engine.setdefault(find_era(name).releases.engine, []).append(find_era(name))
    assert sorted(by_engine) == ["sglang", "trtllm", "vllm"]
    for listed in by_engine.values():
        ordered = sorted(listed, key=lambda era: number_of(era.releases.first))
        assert ordered[0].releases.first == ordered[-1].releases.before == ""
        for older, newer in pairwise(ordered):
            assert older.releases.before == newer.releases.first


def test_where_no_era_stands_the_next_newer_one_is_nearest() -> None:
    """And the newest for what is newer than all."""
    listed = [
        ("old", Releases(engine="x", first="0.1", before="0.3")),
        ("new", Releases(engine="x", first="0.6", before="0.9")),
    ]
    assert era_of_release("0.2", listed) == ("old", True)
    assert era_of_release("0.4", listed) == ("new", False)
    assert era_of_release("0.9", listed) == ("new", False)
    assert era_of_release("0.0.5", listed) == ("old", False)


def test_an_engine_without_a_release_is_as_it_was() -> None:
    """Names of engines and of eras pin nothing."""
    assert pinned("vllm") == ("vllm", "")
    assert find_era("vllm").release == find_era("vllm-0.7").release == ""


def test_each_level_that_was_not_measured_widens_the_interval() -> None:
    """A release, an architecture, a kind of model, and what no era stands for, each by its own."""
    facts, era = accelerators(), find_era("vllm==0.19")
    seen = era.residuals_of(DENSE, facts["H200"])
    assert era.unseen(DENSE, facts["H200"]) == ("source", "alone")
    assert era.unseen(DENSE, facts["L4"]) == ("source", "architecture", "alone")
    released = find_era("vllm==0.9").residuals_of(DENSE, facts["H200"])
    old = find_era("vllm-0.2")
    assert old.unseen(MIXTURE, facts["A10G"]) == ("source", "kind", "alone")
    for wider, narrower in (
        (released, seen),
        (era.residuals_of(DENSE, facts["L4"]), seen),
        (
            old.residuals_of(MIXTURE, facts["A10G"]),
            old.residuals_of(find_model("meta-llama/Llama-2-7b-hf"), facts["A10G"]),
        ),
    ):
        assert wider.low < narrower.low < 1 < narrower.high < wider.high


def test_an_era_of_a_single_source_is_less_certain() -> None:
    """Three sources measured vLLM of 2024 on NVIDIA, each of its two eras one source on AMD; sweeps the newest one."""
    facts, old = accelerators(), find_era("vllm==0.6.4")
    assert set(old.measured_by) == {"accelmark", "argonne", "dstack-405B"}
    assert "alone" not in old.unseen(DENSE, facts["A100-80GB"])
    assert "alone" in old.unseen(DENSE, facts["MI300X"])
    assert find_era("vllm").measured_by == ("inferencex",)
    known = find_era("vllm").known_of(DENSE, facts["H200"])
    both = spread().deviation(("source", "alone"))
    assert both > spread().source
    assert find_era("vllm").residuals_of(DENSE, facts["H200"]) == widened(known, both)
    assert find_era("vllm").is_known(DENSE, facts["H200"])


def test_levels_add_their_variances() -> None:
    """Independent errors: the interval of both is the root of the sum of squares."""
    found = spread()
    both = found.deviation(("source", "kind"))
    assert both == pytest.approx((found.source**2 + found.kind**2) ** 0.5)
    known = find_era("vllm").residuals
    once = widened(widened(known, found.source), found.kind)
    assert once.low == pytest.approx(widened(known, both).low)
    assert once.high == pytest.approx(widened(known, both).high)


def test_amd_is_slower_and_not_known_where_it_was_not_measured() -> None:
    """Steps about one and a half times those of the same figures on NVIDIA, 1 to 2.5 times."""
    fact, era = accelerators()["MI300X"], find_era("vllm")
    known = era.residuals_of(DENSE, fact)
    assert era.slowdown(DENSE, fact) == pytest.approx(1.5 * spread().slowdown)
    assert known.points == 0
    assert (1.5 * known.low, 1.5 * known.high) == (pytest.approx(1.0, abs=0.01), pytest.approx(2.5, abs=0.01))
    measured = find_era("vllm==0.6.4")
    assert measured.residuals_of(DENSE, fact).points > 0
    assert measured.constants_on(fact) != measured.constants


def test_what_no_era_stands_for_gets_the_interval_of_ignorance() -> None:
    """Accelerators that no engine era was measured on or near."""
    assert find_era("vllm").residuals_of(DENSE, accelerators()["Gaudi3"]) == spread().ignorance


def test_consumer_cards_talk_slower_and_old_ones_compute_slower() -> None:
    """Without direct access to each other's memory, and without the kernels that engines are made for."""
    facts = accelerators()
    for name in ("vllm", "vllm==0.7.3"):
        era = find_era(name)
        general = era.constants_on(facts["L40S"])
        assert era.constants_on(facts["RTX4090"]).pcie_efficiency < 0.6 * general.pcie_efficiency
        assert era.constants_on(facts["V100-32GB"]).mfu < general.mfu
        assert era.constants_on(facts["V100-32GB"]).mba < general.mba
