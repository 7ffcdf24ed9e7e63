"""Engine command lines: the assumptions of a plan as flags of vLLM and SGLang."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from melange.errors import InputError
from melange.plan.server import Server
from melange.replica.speculation import DRAFT_MODEL, EAGLE, MTP, NGRAM, Speculation


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Values for a command line besides a server's limits.

    Parameters
    ----------
    model, served_name
        Path or name of the model for the engine, and the name that clients use.
    port
        Port to listen on.
    drain_s
        How long the engine may finish running requests when it stops [s].
    copies
        Number of replicas that one process runs in parallel.
    quantization, kv_dtype
        Data types for weights and KV cache; empty: as in the checkpoint.
    is_half
        Whether the accelerator lacks bf16, so that 16-bit values are fp16.
    """

    model: str
    served_name: str
    port: int
    drain_s: int
    copies: int = 1
    quantization: str = ""
    kv_dtype: str = ""
    is_half: bool = False


class CommandLine(Protocol):
    """The command line of a server, starting with the program."""

    def __call__(self, server: Server, serving: Serving) -> tuple[str, ...]:
        """The unquoted words of the command line."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """How to start an engine.

    Parameters
    ----------
    command
        Returns its command line for a server.
    image
        Its own container image by the accelerator's architecture or vendor; ``{}`` is replaced by the version.
    version
        Version that the flags are for.
    busy
        Names of its metrics that are above 0 while it has requests.
    """

    command: CommandLine
    image: Mapping[str, str]
    version: str
    busy: tuple[str, ...]


# Moves KV caches from prefill to decode replicas; both use the same setting, and a router assigns their roles.
_NIXL = {"kv_connector": "NixlConnector", "kv_role": "kv_both"}


def _vllm(server: Server, serving: Serving) -> tuple[str, ...]:
    """The flags of vLLM since its version 1 engine.

    Prefix caching is on only if the plan assumes it; ``extra_args`` can turn it on otherwise. The size of KV blocks is
    left to the attention kernels, some of which support only one size.
    """
    return (
        *("vllm", "serve", serving.model, "--served-model-name", serving.served_name),
        *("--host", "0.0.0.0", "--port", str(serving.port)),
        *_flags(
            ("--tensor-parallel-size", server.tensor_parallel),
            ("--pipeline-parallel-size", server.pipeline_parallel),
            ("--data-parallel-size", _data_parallel(server, serving)),
            ("--max-num-seqs", server.max_sequences),
            ("--max-num-batched-tokens", server.max_batched_tokens),
            ("--max-model-len", server.max_context),
            ("--gpu-memory-utilization", server.memory_utilization),
            ("--dtype", "half" if serving.is_half else None),
            ("--quantization", serving.quantization or None),
            ("--kv-cache-dtype", serving.kv_dtype or "auto"),
            ("--shutdown-timeout", serving.drain_s),
            ("--scheduling-policy", "priority" if server.is_by_priority else None),
        ),
        *(("--enable-expert-parallel",) if server.expert_parallel > 1 else ()),
        *(() if server.is_chunked is None else (f"--{'' if server.is_chunked else 'no-'}enable-chunked-prefill",)),
        f"--{'' if server.is_prefix_caching else 'no-'}enable-prefix-caching",
        *(("--speculative-config", _speculative_config(server.speculation)) if server.speculation else ()),
        *(("--kv-transfer-config", json.dumps(_NIXL)) if server.pool else ()),
    )


def _data_parallel(server: Server, serving: Serving) -> int | None:
    """Number of attention ranks, or of replicas in one process; None: one."""
    ranks = server.layout.data_parallel
    if ranks > 1 and serving.copies > 1:
        raise InputError(
            f"{server.replica_type}: one process runs {serving.copies} replicas here, which would share their experts",
            hint="plan with expert_parallel: as many accelerators as an instance holds, or deploy to kubernetes",
        )
    return max(ranks, serving.copies) if max(ranks, serving.copies) > 1 else None


def _speculative_config(speculation: Speculation) -> str:
    """The JSON for vLLM's flag."""
    config: dict[str, object] = {"method": speculation.method, "num_speculative_tokens": speculation.draft_tokens}
    if speculation.model:
        config["model"] = speculation.model
    if speculation.method == NGRAM:
        config["prompt_lookup_max"] = speculation.draft_tokens
    return json.dumps(config)


def _vllm_0(server: Server, serving: Serving) -> tuple[str, ...]:
    """The flags of vLLM 0.2, which reads a prompt in one step and does not start if a step is shorter than a prompt."""
    if not server.layout.is_plain:
        raise InputError(
            f"{server.replica_type}: vLLM 0.2 splits layers only", hint="plan without expert and pipeline parallelism"
        )
    if server.is_prefix_caching or server.speculation:
        raise InputError(
            f"{server.replica_type}: vLLM 0.2 has no prefix caching and no speculative decoding",
            hint="plan without engine.enable_prefix_caching and engine.speculative, or for a newer engine",
        )
    step_tokens = server.max_batched_tokens
    if step_tokens is not None and server.max_context is not None:
        step_tokens = max(step_tokens, server.max_context)
    return (
        *("python3", "-m", "vllm.entrypoints.openai.api_server"),
        *("--model", serving.model, "--served-model-name", serving.served_name),
        *("--host", "0.0.0.0", "--port", str(serving.port)),
        *_flags(
            ("--tensor-parallel-size", server.tensor_parallel),
            ("--max-num-seqs", server.max_sequences),
            ("--max-num-batched-tokens", step_tokens),
            ("--max-model-len", server.max_context),
            ("--gpu-memory-utilization", server.memory_utilization),
            ("--dtype", "half" if serving.is_half else None),
        ),
    )


def _sglang(server: Server, serving: Serving) -> tuple[str, ...]:
    """The flags of SGLang, which counts all ranks in its tensor-parallel degree and in its limits."""
    ranks, experts = server.layout.data_parallel, server.expert_parallel > 1

    def of_all(limit: int | None) -> int | None:
        return None if limit is None else limit * ranks

    return (
        *("python3", "-m", "sglang.launch_server"),
        *("--model-path", serving.model, "--served-model-name", serving.served_name),
        *("--host", "0.0.0.0", "--port", str(serving.port)),
        *_flags(
            ("--tp-size", server.tensor_parallel * ranks),
            ("--pp-size", server.pipeline_parallel),
            ("--dp-size", _data_parallel(server, serving)),
            ("--ep-size", server.expert_parallel if experts else None),
            ("--max-running-requests", of_all(server.max_sequences)),
            ("--chunked-prefill-size", of_all(server.max_batched_tokens)),
            ("--max-prefill-tokens", server.max_batched_tokens),
            ("--context-length", server.max_context),
            ("--mem-fraction-static", server.memory_utilization),
            ("--dtype", "half" if serving.is_half else None),
            ("--quantization", serving.quantization or None),
            ("--kv-cache-dtype", {"": "auto", "fp8": "fp8_e4m3"}.get(serving.kv_dtype, serving.kv_dtype)),
        ),
        *(("--enable-dp-attention",) if ranks > 1 else ()),
        *(("--enable-mixed-chunk",) if server.is_chunked else ()),
        *(() if server.is_prefix_caching else ("--disable-radix-cache",)),
        *(("--disaggregation-mode", server.pool) if server.pool else ()),
        *(_sglang_drafts(server.speculation) if server.speculation else ()),
        "--enable-metrics",
    )


def _sglang_drafts(speculation: Speculation) -> tuple[str, ...]:
    """SGLang's flags for speculative decoding: a chain of drafts, one step each."""
    algorithm = {NGRAM: "NGRAM", DRAFT_MODEL: "STANDALONE", EAGLE: "EAGLE3", MTP: "EAGLE"}[speculation.method]
    chain = speculation.method != NGRAM
    return tuple(
        _flags(
            ("--speculative-algorithm", algorithm),
            ("--speculative-draft-model-path", speculation.model or None),
            ("--speculative-num-steps", speculation.draft_tokens if chain else None),
            ("--speculative-eagle-topk", 1 if chain else None),
            ("--speculative-num-draft-tokens", speculation.draft_tokens + chain),
        )
    )


def _flags(*pairs: tuple[str, object]) -> Sequence[str]:
    """Flags with their values, without those whose value is None."""
    return [text for flag, value in pairs if value is not None for text in (flag, str(value))]


_VLLM_IMAGES = {"nvidia": "vllm/vllm-openai:v{}", "amd": "vllm/vllm-openai-rocm:v{}"}
_VLLM_BUSY = ("vllm:num_requests_running", "vllm:num_requests_waiting")
PROGRAM_BY_ERA: Mapping[str, Program] = {
    # The version that tests/engine runs; its argument parser checks these flags.
    "vllm-1": Program(command=_vllm, image=_VLLM_IMAGES, version="0.32.0", busy=_VLLM_BUSY),
    # The version that the engine's constants were fitted on.
    "vllm-0.2": Program(command=_vllm_0, image={"nvidia": "vllm/vllm-openai:v{}"}, version="0.2.7", busy=_VLLM_BUSY),
    "sglang": Program(
        command=_sglang,
        image={
            "nvidia": "lmsysorg/sglang:v{}",
            "CDNA3": "lmsysorg/sglang:v{}-rocm720-mi30x",
            "CDNA4": "lmsysorg/sglang:v{}-rocm720-mi35x",
        },
        version="0.5.17",
        busy=("sglang:num_running_reqs", "sglang:num_queue_reqs"),
    ),
}


def program_of(server: Server) -> Program:
    """How to start the engine of a server.

    Raises
    ------
    InputError
        The engine is unknown here, or the plan names none.
    """
    from melange.replica.era import ERA_BY_ALIAS, find_era
    from melange.replica.releases import pinned

    is_pinned = bool(pinned(server.engine)[1])
    named = find_era(server.engine).name if is_pinned else ERA_BY_ALIAS.get(server.engine, server.engine)
    era = server.era or named
    if era not in PROGRAM_BY_ERA:
        known = ", ".join(PROGRAM_BY_ERA)
        found = f"is planned for {server.engine}" if server.engine else "is planned without an engine"
        raise InputError(
            f"{server.replica_type} {found}; melange deploy starts {known}",
            hint="start its servers yourself with the settings under servers in plan.json; melange deploy --to "
            "haproxy or melange balance can route requests to them"
            if server.engine
            else "--option engine=vllm",
        )
    return PROGRAM_BY_ERA[era]
