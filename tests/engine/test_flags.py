"""The command lines of melange deploy, read by vLLM's own parser."""

from __future__ import annotations

import pytest

from melange.catalog.bundled import accelerators
from melange.deploy.launch import Start, launch_of
from melange.deploy.server_options import ServerOptions
from melange.plan.server import Server
from melange.slo import Slo

SERVER = Server(
    replica_type="a",
    replicas=1,
    model="meta-llama/Llama-3.1-8B-Instruct",
    engine="vllm",
    era="vllm-1",
    tensor_parallel=2,
    max_sequences=256,
    max_batched_tokens=2048,
    max_context=32578,
    memory_utilization=0.85,
    is_chunked=True,
    variant="fp8+fp8-kv",
)


def test_vllm_reads_what_the_plan_assumes() -> None:
    """Every flag is one of its own, and means what the plan says."""
    cli_args = pytest.importorskip("vllm.entrypoints.launchers.cli_args")
    argparse_utils = pytest.importorskip("vllm.utils.argparse_utils")
    parser = cli_args.make_arg_parser(argparse_utils.FlexibleArgumentParser())
    launch = launch_of(
        SERVER, accelerators()["T4"], Slo(ttft_s=1.0, tpot_s=0.08), 1000, ServerOptions(port=9000), Start(copies=4)
    )
    read = vars(parser.parse_args(list(launch.command[2:])))
    expected = {
        "model_tag": SERVER.model,
        "served_model_name": [SERVER.model],
        "host": "0.0.0.0",
        "port": 9000,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 4,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "max_model_len": 32578,
        "gpu_memory_utilization": 0.85,
        "dtype": "half",
        "quantization": "fp8",
        "kv_cache_dtype": "fp8",
        "shutdown_timeout": 162,
        "enable_chunked_prefill": True,
        "enable_prefix_caching": False,
    }
    assert {name: read[name] for name in expected} == expected
