"""What the servers of a plan must be started with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from plan_cases import answering, offer

from melange.catalog.bundled import find_model
from melange.plan.plan import Plan
from melange.plan.server import Server, servers_of
from melange.plan.solve import solve
from melange.profile.estimate import estimate
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

BUCKETS = Buckets(input_edges=(500,), output_edges=(200,))
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


def plan_of(*accelerators: str, engine: str = "vllm", **settings: object) -> Plan:
    """A plan that uses every type that these accelerators allow."""
    offers = [offer(name, 1.0) for name in accelerators]
    profile = estimate(find_model(MODEL), offers, Slo(tpot_s=0.12), BUCKETS, engine=engine, **settings)
    plan = solve(Workload.at_upper_edges(BUCKETS, [[1.0]]), profile)
    count = len(profile.replica_types)
    return replace(plan, instances=np.full(count, 2), cost_per_h=2.0 * count)


def test_limits_are_the_engines_defaults_on_that_accelerator() -> None:
    """By hand, of vLLM 1: 256 requests and 2,048 tokens, but 1,024 and 8,192 from 70 GiB on, except on an A100."""
    servers = servers_of(plan_of("L4", "A100-80GB", "H100-80GB"))
    assert [(one.max_sequences, one.max_batched_tokens) for one in servers] == [(256, 2048), (256, 2048), (1024, 8192)]
    assert servers[0] == Server(
        replica_type="L4",
        replicas=2,
        model=MODEL,
        engine="vllm",
        era="vllm-1",
        max_sequences=256,
        max_batched_tokens=2048,
        block_tokens=16,
        max_context=131072,
        memory_utilization=0.9,
        is_chunked=True,
        source="estimated",
    )


def test_a_server_in_one_line_has_vllms_names() -> None:
    """The line can be turned into flags; a variant is named after the model."""
    one, small = servers_of(plan_of("L4", variants=["fp8"]))
    limits = "max_num_seqs 256, max_num_batched_tokens 2048, max_model_len 131072, block_size 16"
    limits += ", gpu_memory_utilization 0.9, enable_chunked_prefill true"
    assert str(one) == f"A replica of L4: {MODEL}, vllm, tensor parallel 1, {limits}"
    assert str(small) == f"A replica of L4 fp8: {MODEL} (fp8), vllm, tensor parallel 1, {limits}"


def test_other_engines_are_told_in_words() -> None:
    """Their flags have other names and partly other meanings."""
    (one,) = servers_of(plan_of("H100-80GB", engine="trtllm"))
    assert "at most 2048 running requests, at most 8192 tokens a step, context 131072" in str(one)
    assert (one.engine, one.era, one.memory_utilization) == ("trtllm", "trtllm", 0.9)


def test_only_types_in_use_have_servers() -> None:
    """As many as the plan's replicas; types that were only looked at have none."""
    plan = plan_of("L4", "A100-80GB")
    (one,) = servers_of(replace(plan, instances=np.array([0, 3])))
    assert (one.replica_type, one.replicas) == ("A100-80GB", 3)


def test_what_the_plan_does_not_know_is_none() -> None:
    """Rates of another tool come without an engine; those measured say nothing of how the server was set up."""
    plan = plan_of("L4")
    (one,) = servers_of(answering(plan, engines=(None,)))
    assert (one.max_sequences, one.memory_utilization, one.is_chunked, one.era) == (None, None, None, "")
    assert str(one).endswith("vllm, tensor parallel 1, limits not known")
    (engine,) = plan.engines
    assert engine is not None
    (one,) = servers_of(answering(plan, engines=(replace(engine, source="measured"),)))
    assert str(one).endswith("vllm, tensor parallel 1, set up as it was measured")


def test_a_plans_file_says_its_servers(tmp_path: Path) -> None:
    """For whoever starts them; and a file of before, without the engine's era and memory, is still read."""
    plan = plan_of("L4", "H100-80GB")
    content = json.loads(plan.save(tmp_path / "plan.json").read_text())
    assert content["servers"] == [one.to_json() for one in servers_of(plan)]
    assert servers_of(Plan.read(tmp_path / "plan.json")) == servers_of(plan)
    for engine in content["engines"]:
        del engine["era"], engine["memory_utilization"]
    del content["servers"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = servers_of(Plan.read(tmp_path / "old.json"))
    assert [(one.era, one.memory_utilization) for one in old] == [("", None)] * 2
    assert [one.max_sequences for one in old] == [256, 1024]
