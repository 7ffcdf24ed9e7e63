"""Quantized variants as replica types: names, rates, reasons, cautions, files, anchors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from profile_cases import IDEAL, offer

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import find_model
from melange.catalog.model import Model
from melange.catalog.variants import variant_of
from melange.errors import InputError
from melange.profile.anchor import anchor
from melange.profile.estimate import estimate
from melange.profile.formats.measurement_files import read_measurements
from melange.profile.formats.profiles import combine
from melange.profile.profile import ANCHORED, Profile, ReplicaType
from melange.replica.step import step_cost
from melange.slo import Slo
from melange.workload.workload import Buckets

CHAT = Buckets(input_edges=(100, 1000), output_edges=(100, 500))
LOOSE = Slo(tpot_s=0.1)


def variants_of(profile: Profile) -> list[str]:
    """The variants of a profile's types, in order."""
    return [one.variant for one in profile.replica_types]


def test_each_variant_is_a_replica_type_of_its_own(llama: Model) -> None:
    """The published model first and under its old name; nothing but it where no variant is asked for."""
    profile = estimate(llama, [offer("L4", 2)], LOOSE, CHAT, variants=["fp8", "int4+fp8-kv"], tensor_parallel=2)
    assert [one.name for one in profile.replica_types] == [
        "cloud/here/l4x2 tp2", "cloud/here/l4x2 tp2 fp8", "cloud/here/l4x2 tp2 int4+fp8-kv",
    ]  # fmt: skip
    assert variants_of(profile) == ["", "fp8", "int4+fp8-kv"]
    assert profile.model == llama.name
    assert variants_of(estimate(llama, [offer("L4")], LOOSE, CHAT)) == [""]


def test_a_variant_is_what_a_model_published_so_would_be(llama: Model) -> None:
    """Rates of the variant are those of the quantized model estimated by itself; the published one's do not change."""
    offers = [offer("L4"), offer("A100-80GB")]
    both = estimate(llama, offers, LOOSE, CHAT, variants=["int4"])
    published = estimate(llama, offers, LOOSE, CHAT)
    assert both.max_request_rate[0::2] == pytest.approx(published.max_request_rate, rel=1e-9)
    alone = estimate(llama.quantized(weights="int4"), offers, LOOSE, CHAT)
    assert both.max_request_rate[1::2] == pytest.approx(alone.max_request_rate, rel=1e-9)


def test_fp8_is_multiplied_only_where_a_card_can(cards: dict[str, Accelerator]) -> None:
    """An H100 reads half and multiplies at twice the rate, an A100 reads half; int4 multiplies in 16 bits on both."""
    llama = find_model("meta-llama/Llama-3.1-8B")
    fp8, int4 = llama.quantized(weights="fp8"), llama.quantized(weights="int4")
    ratio = {
        name: step_cost(fp8, cards[name], constants=IDEAL).token_s
        / step_cost(llama, cards[name], constants=IDEAL).token_s
        for name in ("A100-80GB", "H100-80GB")
    }
    assert ratio == {"A100-80GB": 1.0, "H100-80GB": pytest.approx(0.5, rel=1e-3)}
    for card in (cards["A100-80GB"], cards["H100-80GB"]):
        whole, quarter = (step_cost(model, card, constants=IDEAL) for model in (llama, int4))
        assert quarter.token_s == whole.token_s
        body, head = llama.body_parameters(), llama.output_parameters()
        by_hand = (body * (4 + 20 / 128) / 8 + 2 * head) / (2 * body + 2 * head)
        assert quarter.weights_s / whole.weights_s == pytest.approx(by_hand)


def test_a_cache_in_fp8_holds_twice_the_requests(plain: Accelerator) -> None:
    """Where memory binds, rate follows: the same step reads the same bytes for twice the requests."""
    llama = find_model("meta-llama/Llama-2-7b-hf")
    small = Accelerator(**{name: getattr(plain, name) for name in plain.__slots__} | {"memory_bytes": 24e9})
    profile = estimate(
        llama, [offer("plain")], Slo(tpot_s=10), CHAT, variants=["fp8-kv"], accelerators={"plain": small}
    )
    whole, narrow = profile.max_request_rate[:, 1, 1]
    assert 1.6 < narrow / whole <= 2.01


def test_quantisation_opens_what_the_published_model_cannot(llama: Model) -> None:
    """Llama-2-7b on an L4 at 40 ms: never in fp16, in fp8 and int4 it can."""
    profile = estimate(llama, [offer("L4")], Slo(tpot_s=0.04), CHAT, variants=["fp8", "int4"])
    assert (profile.max_request_rate[0] == 0).all()
    assert (profile.max_request_rate[1:] > 0).all()


def test_reasons_name_the_data_type() -> None:
    """70 billion weights fit 40 GB in no type, and the reason says which; a V100 has no kernels for fp8."""
    llama = find_model("meta-llama/Llama-3.1-70B")
    profile = estimate(
        llama, [offer("A100-40GB"), offer("V100-16GB")], LOOSE, CHAT, variants=["fp8", "fp8+fp8-kv", "int4"]
    )
    words = [profile.why(r, 0, 0) for r in range(8)]
    assert words[0].startswith("the model in bf16 does not fit")
    assert words[1].startswith("the model in fp8 does not fit")
    assert words[2].startswith("the model in fp8 with KV cache in fp8 does not fit")
    assert words[3].startswith("the model in int4 does not fit")
    assert words[5] == "engines have no kernels for weights in fp8 on V100-16GB (Volta)"


def test_the_answer_says_that_quantisation_may_change_answers(llama: Model) -> None:
    """One caution, with the variants; another word where vLLM lists no kernels; none without variants."""
    profile = estimate(llama, [offer("L4"), offer("MI300X")], LOOSE, CHAT, variants=["fp8", "int4"])
    said = {caution.kind: caution.message for caution in profile.cautions}["quantized"]
    assert said.startswith("a plan may choose fp8, int4 besides meta-llama/Llama-2-7b-hf as published (fp16)")
    assert "may change the output" in said
    assert "up to a third longer" in said
    assert "no integer kernels for MI300X" in said
    assert "quantized" not in {caution.kind for caution in estimate(llama, [offer("L4")], LOOSE, CHAT).cautions}


def test_an_old_engine_serves_nothing_in_fp8(llama: Model) -> None:
    """Version 0.2 of vLLM had AWQ and GPTQ, and fp8 came with 0.3: an error with a way out."""
    with pytest.raises(InputError, match=r"vllm-0\.2 does not support fp8"):
        estimate(llama, [offer("L4")], LOOSE, CHAT, engine="vllm-0.2", variants=["fp8"])
    profile = estimate(llama, [offer("L4")], LOOSE, CHAT, engine="vllm-0.2", variants=["int4"])
    assert variants_of(profile) == ["", "int4"]


def test_variants_survive_their_file_and_old_files_have_none(llama: Model, tmp_path: Path) -> None:
    """Round trip through JSON; a file from before says nothing and means the model as published."""
    profile = estimate(llama, [offer("L4")], LOOSE, CHAT, variants=["int4"])
    again = Profile.read(profile.save(tmp_path / "profile.json"))
    assert again.replica_types == profile.replica_types
    old = profile.replica_types[0].to_json()
    del old["variant"]
    assert ReplicaType.from_json(old).variant == ""


def test_measured_cells_replace_those_of_their_variant_only(llama: Model) -> None:
    """A profile measured with the published model says nothing of the others."""
    estimated = estimate(llama, [offer("L4")], LOOSE, CHAT, variants=["int4"])
    measured = estimate(llama, [offer("L4", instance_type="own")], LOOSE, CHAT)
    arrays = {name: 2 * getattr(measured, name) for name in ("max_request_rate", "low", "high")}
    measured = Profile.from_json(measured.to_json() | {name: a.tolist() for name, a in arrays.items()})
    measured = Profile.from_json(measured.to_json() | {"provenance": np.zeros((1, 2, 2), int).tolist()})
    both = combine(measured, estimated)
    assert (both.max_request_rate[0] == 2 * estimated.max_request_rate[0]).all()
    assert (both.max_request_rate[1] == estimated.max_request_rate[1]).all()


@pytest.mark.parametrize(
    ("model", "anchored"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", [0]),
        ("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8", [1]),
        ("my-own-name", [0]),
        ("hugging-quants/Meta-Llama-3.1-8B-Instruct-AWQ-INT4", []),
    ],
)
def test_a_measured_release_anchors_its_own_variant(model: str, anchored: list[int], tmp_path: Path) -> None:
    """The model that a load test names decides; a release that is not compared is left out with a word."""
    point = {
        "model": model, "accelerator": "L4", "input_tokens": 500, "output_tokens": 200, "concurrency": 8,
        "tpot_s": {"mean": 0.07},
    }  # fmt: skip
    path = tmp_path / "point.json"
    path.write_text(json.dumps(point))
    llama = find_model("meta-llama/Llama-3.1-8B-Instruct")
    profile = anchor(llama, [offer("L4")], LOOSE, CHAT, read_measurements(path), variants=["fp8"])
    assert [r for r in range(2) if (profile.provenance[r] == ANCHORED).all()] == anchored
    assert any("skipped" in caution.message for caution in profile.cautions) == (not anchored)


def test_a_stack_of_variants_is_each_of_them(llama: Model) -> None:
    """Every variant on one card, side by side, gives what each gives by itself, on every size."""
    names = ["fp8", "int8", "int4", "fp8-kv", "fp8+fp8-kv"]
    profile = estimate(llama, [offer("H100-80GB")], LOOSE, CHAT, variants=names)
    for r, name in enumerate(["", *names]):
        alone = estimate(variant_of(llama, name), [offer("H100-80GB")], LOOSE, CHAT)
        for rates, expected in ((profile.max_request_rate, alone.max_request_rate), (profile.low, alone.low)):
            assert rates[r] == pytest.approx(expected[0], rel=1e-9)
