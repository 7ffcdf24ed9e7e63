"""What the servers of a plan must be started with."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from plan_cases import answering, offer
from simulated import engine

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
        max_context=32578,
        memory_utilization=0.9,
        is_chunked=True,
        is_prefix_caching=False,
        source="estimated",
    )
    assert [one.max_context for one in servers[1:]] == [131072, 131072]


def test_the_context_is_no_longer_than_the_cache_holds() -> None:
    """By hand: nine tenths of the longest that fits, or the longest that is planned; never above the model's."""
    plan = plan_of("L4")

    def longest(**settings: object) -> int | None:
        return servers_of(answering(plan, engines=(engine(max_context=100_000, **settings),)))[0].max_context

    # 4 layers hold 4,000 tokens each, 16 of which are the unused end of a block: 0.9 x 3,984.
    assert longest() == 3585
    # Two of the four keep the last 1,000 tokens only: (16,000 - 4 x 16 - 2 x 1,000) / 2 = 6,968.
    assert longest(full_layers=2, sliding_layers=2, window=1000) == 6271
    assert longest(full_layers=0, sliding_layers=4, window=1000) == 100_000
    assert longest(full_layers=2, sliding_layers=2, window=5000) == 3585
    # The plan sends 500 + 200 tokens, whatever the estimate of the cache says.
    assert longest(kv_tokens=4 * 700.0) == 700
    assert longest(kv_tokens=1e9) == 100_000


def test_a_server_in_one_line_has_vllms_names() -> None:
    """The line can be turned into flags; a variant is named after the model."""
    one, small = servers_of(plan_of("L4", variants=["fp8"]))
    limits = "max_num_seqs 256, max_num_batched_tokens 2048, max_model_len {}, block_size 16"
    limits += ", gpu_memory_utilization 0.9, enable_chunked_prefill true, enable_prefix_caching false"
    assert str(one) == f"A replica of L4: {MODEL}, vllm, tensor parallel 1, {limits.format(32578)}"
    assert (
        str(small) == f"A replica of L4 fp8: {MODEL} (fp8), vllm, tensor parallel 1, {limits.format(small.max_context)}"
    )


def test_other_engines_are_told_in_words() -> None:
    """Their flags have other names and partly other meanings."""
    (one,) = servers_of(plan_of("H100-80GB", engine="trtllm"))
    assert "at most 2048 running requests, at most 8192 tokens per step, context 131072" in str(one)
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
    assert str(one).endswith("vllm, tensor parallel 1, limits unknown")
    (engine,) = plan.engines
    assert engine is not None
    (one,) = servers_of(answering(plan, engines=(replace(engine, source="measured"),)))
    assert str(one).endswith("vllm, tensor parallel 1, configured as measured")


def test_a_plans_file_says_its_servers(tmp_path: Path) -> None:
    """For those who start them; and a file of before, without the engine's era and memory, is still read."""
    plan = plan_of("L4", "H100-80GB")
    content = json.loads(plan.save(tmp_path / "plan.json").read_text())
    assert content["servers"] == [one.to_json() for one in servers_of(plan)]
    assert servers_of(Plan.read(tmp_path / "plan.json")) == servers_of(plan)
    for stored in content["engines"]:
        del stored["era"], stored["memory_utilization"]
    del content["servers"]
    (tmp_path / "old.json").write_text(json.dumps(content))
    old = servers_of(Plan.read(tmp_path / "old.json"))
    assert [(one.era, one.memory_utilization) for one in old] == [("", None)] * 2
    assert [one.max_sequences for one in old] == [256, 1024]
