"""The engine of a service.yaml: a name, or a name with settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.replica.speculation import Speculation
from melange.service.reading import read_service
from melange.service.schema import Service
from melange.service.session import Session

REST = "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {tpot_ms: 60}\nworkload: {dataset: arena, rate: 2}\n"


def service_of(folder: Path, text: str, settings: tuple[str, ...] = ()) -> Service:
    """A service whose file begins with this."""
    path = folder / "service.yaml"
    path.write_text(f"{text}\n{REST}")
    return read_service(path, settings)


def test_a_name_is_enough(tmp_path: Path) -> None:
    """As before: a name, or a release as a requirement; and no settings then."""
    for text, requirement in (
        ("", "vllm"),
        ("engine: sglang", "sglang"),
        ("engine: vllm==0.6.4", "vllm==0.6.4"),
        ('engine: {name: vllm, version: "0.10"}', "vllm==0.10"),
    ):
        engine = service_of(tmp_path, text).engine
        assert (engine.requirement, engine.settings) == (requirement, {})
    assert service_of(tmp_path, "", ("engine=trtllm",)).engine.name == "trtllm"


def test_hits_need_a_cache(tmp_path: Path) -> None:
    """Of all requests and of a class; no hits, or a cache left to the engine, contradict nothing."""
    off, hits = "engine: {enable_prefix_caching: false}", "workload.prefix_hit_rate=0.5"
    place = r"workload\.prefix_hit_rate: 0\.5 contradicts engine\.enable_prefix_caching: false"
    with pytest.raises(InputError, match=place):
        service_of(tmp_path, off, (hits,))
    batch = "classes={batch: {slo: {latency_ms: 60000}, workload: {dataset: arena, rate: 1, prefix_hit_rate: 0.5}}}"
    with pytest.raises(InputError, match=rf"classes\.batch\.{place}"):
        service_of(tmp_path, off, ("slo.attainment=0.9", batch.replace("60000}", "60000, attainment: 0.9}")))
    for text, settings in ((off, ("workload.prefix_hit_rate=0",)), ("", (hits,)), (off, ())):
        service_of(tmp_path, text, settings)


@pytest.mark.parametrize(
    ("engine", "settings", "words"),
    [
        ("vllm==0.6.4", ("workload.prefix_hit_rate=0.5",), "vllm 0.6.4 caches none by default"),
        ("vllm==0.6.4", ("workload.prefix_hit_rate=0.5", "engine.enable_prefix_caching=true"), "rates assume"),
        ("vllm", ("workload.prefix_hit_rate=0.5",), "rates assume"),
        ("vllm", ("workload.prefix_hit_rate=0.5", "profile.prefix_routing=affinity"), "rates assume"),
        ("vllm", ("profile.prefix_routing=affinity",), "affinity changes nothing"),
        ("vllm", ("profile.prefix_routing=affinity", "workload.prefix_hit_rate=0"), "affinity changes nothing"),
        ("vllm", (), ""),
    ],
)
def test_settings_of_prefixes_without_an_effect_get_a_caution(
    tmp_path: Path, engine: str, settings: tuple[str, ...], words: str
) -> None:
    """Hits that the engine does not use by default, and routing by prefixes where none are known."""
    name, _, release = engine.partition("==")
    text = f"engine: {{name: {name}{f', version: {release!r}' if release else ''}}}"
    text += "\noffers: {gpus: [L4], providers: [aws], regions: [us-east-1]}"
    service_of(tmp_path, text)
    profile = Session(tmp_path / "service.yaml", settings=settings).profile()
    found = [one.message for one in profile.cautions if one.kind == "prefix-cache"]
    assert len(found) == bool(words)
    assert all(words in one for one in found)


def test_settings_have_vllms_names(tmp_path: Path) -> None:
    """All of them, from the file and from the command line."""
    text = "engine:\n  max_num_seqs: 64\n  kv_cache_dtype: fp8_e4m3\n  enable_prefix_caching: false\n"
    text += "  speculative: {method: eagle3, model: org/head, num_speculative_tokens: 3, acceptance_rate: 0.7}"
    settings = service_of(tmp_path, text, ("engine.gpu_memory_utilization=0.8",)).engine.settings
    assert settings == {
        "max_sequences": 64,
        "memory_utilization": 0.8,
        "kv_dtype": "fp8",
        "kv_cache_dtype": "fp8_e4m3",
        "is_prefix_caching": False,
        "speculation": Speculation(draft_tokens=3, accepted_share=0.7, method="eagle3", model="org/head"),
    }


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("engine: {gpu_memory_utilization: 1.2}", 1, "engine.gpu_memory_utilization: .*less than or equal to 1"),
        ("engine:\n  max_num_seqs: 0", 2, "engine.max_num_seqs: .*greater than or equal to 1"),
        ("engine:\n  version: 0.10", 2, 'engine.version: must be text, so that 0.10 is not 0.1: write version: "0.1"'),
        ("engine: {kv_cache_dtype: fp16}", 1, "engine.kv_cache_dtype: .*'auto'"),
        ("engine: {max_seqs: 5}", 1, "engine: unknown key 'max_seqs'; did you mean 'max_num_seqs'"),
        (
            "engine: {max_num_seqs: 512, max_num_batched_tokens: 256}",
            1,
            "max_num_batched_tokens must be >= max_num_seqs",
        ),
        ("engine: {name: vllm==0.6.4, version: 0.7.1}", 1, "the release is given twice"),
        ("engine: {speculative: {num_speculative_tokens: 3}}", 1, "engine.speculative.acceptance_rate is required"),
        (
            "engine:\n  speculative: {method: eagle3, num_speculative_tokens: 3, acceptance_rate: 0.5}",
            2,
            "eagle3 needs model",
        ),
        (
            "engine:\n  speculative: {num_speculative_tokens: 3, acceptance_rate: 1.0}",
            2,
            "acceptance_rate: .*less than 1",
        ),
    ],
)
def test_faults_have_their_place(text: str, line: int, message: str, tmp_path: Path) -> None:
    """The line of the file, the key, and what it may be."""
    with pytest.raises(InputError) as caught:
        service_of(tmp_path, text)
    found = str(caught.value)
    assert re.search(rf"service\.yaml:{line}: ", found), found
    assert re.search(message, found), found
