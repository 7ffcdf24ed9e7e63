"""Step times from aiconfigurator-core's tables of measured operators, an optional source.

If the tables hold measured operators for the model, accelerator, degree and engine, step times on a small grid of
batch size, context and prompt chunk are taken from them, and our coefficients are fitted to these
(:mod:`melange.profile.refit`). If not, or if the tables are known to be wrong, our own step times are used, with a
reason.

Package: ``aiconfigurator-core`` 0.12 (Apache-2.0, NVIDIA), the extra ``aiconfigurator``.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.catalog.variants import variant_of
from melange.errors import InputError
from melange.installed import how_to_add
from melange.profile.refit import Steps, misfit, refit
from melange.replica.era import Era, Residuals
from melange.replica.hardware import Hardware, kv_tokens_of
from melange.replica.step import StepCost, step_cost
from melange.units import MS_PER_S

_PACKAGE = "aiconfigurator-core"
_SYSTEM_BY_ACCELERATOR = {
    "A100-80GB": "a100_sxm",
    "H100-80GB": "h100_sxm",
    "H200": "h200_sxm",
    "B200": "b200_sxm",
    "B300": "b300_sxm",
    "GB200": "gb200",
    "GB300": "gb300",
    "L40S": "l40s",
    "RTXPRO6000": "rtx_pro_6000_server",
}
_SPECIFICATION_ONLY = ("A30", "A100-PCIe-80GB", "H100-PCIe-80GB", "L4")
BACKEND_BY_ERA = {"vllm-1": "vllm", "sglang": "sglang", "trtllm": "trtllm", "trtllm-1.0": "trtllm"}
_GEMM_BY_DTYPE = {
    "bf16": "bfloat16",
    "fp16": "bfloat16",
    "fp8": "fp8",
    "fp4": "nvfp4",
    "int8": "int8_wo",
    "int4": "int4_wo",
}
_CACHE_BY_DTYPE = {"bf16": "bfloat16", "fp16": "bfloat16", "fp8": "fp8"}
# Measured over predicted TPOT in the concurrency sweeps, 2025-2026: 10 % and 90 % quantile, and median error
# (bench/aiconfigurator.py). Its operators were measured one by one, and not fitted to these sweeps.
_RESIDUALS_BY_BACKEND = {
    "vllm": Residuals(low=0.82, high=1.25, median_error=0.097, points=640),
    "sglang": Residuals(low=0.63, high=1.14, median_error=0.185, points=124),
    "trtllm": Residuals(low=0.76, high=1.10, median_error=0.113, points=693),
}
# The grid: running requests, context tokens of each, prompt tokens of the step.
_BATCHES = (1, 4, 16, 64, 256)
_CONTEXTS = (256, 1024, 4096, 16384)
_CHUNKS = (0, 256, 1024, 4096)
# A step counts as measured if at least this share of its time was measured.
_LEAST_MEASURED = 0.8
# If step times differ by more than this factor, one of them is wrong, and tables extrapolate worse than a roofline.
_WILD = 3.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepTimes:
    """Step times from aiconfigurator for some hardware.

    Parameters
    ----------
    cost_by_hardware
        Coefficients fitted to its step times.
    reason_by_hardware
        For all other hardware, the reason why there are none.
    misfit_by_hardware
        Root mean square of ``log(fitted / its own)`` step time.
    residuals
        Ratio of measured to predicted step times.
    source
        Package, backend and versions, in words.
    """

    cost_by_hardware: Mapping[Hardware, StepCost]
    reason_by_hardware: Mapping[Hardware, str]
    misfit_by_hardware: Mapping[Hardware, float]
    residuals: Residuals
    source: str

    def residuals_on(self, hardware: Hardware, otherwise: Residuals) -> Residuals:
        """Ratio of measured to predicted step times on this hardware; ``otherwise`` is the ratio for our own."""
        return self.residuals if hardware in self.cost_by_hardware else otherwise


class _NoTables(Exception):  # noqa: N818  (a reason, which never leaves this module)
    """There are no measured operators; the message gives the reason."""


def is_installed() -> bool:
    """Whether the package is installed, checked without loading it."""
    return find_spec("aiconfigurator_core") is not None


def step_times(
    model: Model, hardware: Sequence[Hardware], facts_by_name: Mapping[str, Accelerator], era: Era
) -> StepTimes:
    """Coefficients from measured operators if there are any, and reasons if there are none.

    Parameters
    ----------
    model
        Shape and data types.
    hardware
        The hardware to look up.
    facts_by_name
        Facts by accelerator name.
    era
        Names the engine, and gives the coefficients from which the fit starts.

    Raises
    ------
    InputError
        The package is not installed.
    """
    if not is_installed():
        raise InputError(
            f"profile.step_times: aiconfigurator needs the package {_PACKAGE}, which is not installed",
            hint=f"{how_to_add('aiconfigurator')}, or profile: {{step_times: own}}",
        )
    costs: dict[Hardware, StepCost] = {}
    reasons: dict[Hardware, str] = {}
    misfits: dict[Hardware, float] = {}
    versions: dict[str, str] = {}
    for one in hardware:
        served, facts = variant_of(model, one.variant), facts_by_name[one.accelerator]
        try:
            if not one.layout.is_plain:
                raise _NoTables("layouts other than tensor parallelism")
            system, version = _tables(one, era)
            steps = _steps(served, one, facts, era, (system, version))
            ours = step_cost(served, facts, tensor_parallel=one.tensor_parallel, constants=era.constants)
            _check(ours, steps)
        except _NoTables as reason:
            reasons[one] = str(reason)
            continue
        costs[one] = refit(ours, steps)
        misfits[one], versions[system] = misfit(costs[one], steps), version
    return StepTimes(
        cost_by_hardware=costs,
        reason_by_hardware=reasons,
        misfit_by_hardware=misfits,
        residuals=_RESIDUALS_BY_BACKEND.get(BACKEND_BY_ERA.get(era.name, ""), era.residuals),
        source=_source(era, versions),
    )


def _source(era: Era, version_by_system: Mapping[str, str]) -> str:
    if not version_by_system:
        return ""
    listed = ", ".join(
        f"{system}/{BACKEND_BY_ERA[era.name]} {version}" for system, version in sorted(version_by_system.items())
    )
    return f"step times of {_PACKAGE} {metadata.version(_PACKAGE)}, measured operators of {listed}"


def _tables(hardware: Hardware, era: Era) -> tuple[str, str]:
    """System and version of the tables."""
    name = hardware.accelerator
    if era.name not in BACKEND_BY_ERA:
        raise _NoTables(f"no tables of {era.name}")
    if name in _SPECIFICATION_ONLY:
        raise _NoTables("only a specification, no measured operators")
    if name not in _SYSTEM_BY_ACCELERATOR:
        raise _NoTables("no tables of this accelerator")
    if hardware.is_pcie:
        raise _NoTables("tensor parallelism over PCIe, where its tables are unreliable")
    from aiconfigurator_core.sdk.perf_database import get_version_slots

    system, backend = _SYSTEM_BY_ACCELERATOR[name], BACKEND_BY_ERA[era.name]
    slots = get_version_slots(system, backend)
    if not slots:
        raise _NoTables(f"no measured operators of {backend}")
    return system, str(slots["current"])


def _steps(model: Model, hardware: Hardware, facts: Accelerator, era: Era, tables: tuple[str, str]) -> Steps:
    """Its step times on the part of the grid that fits in memory."""
    held = kv_tokens_of(model, facts, hardware.tensor_parallel, era.settings) / model.layers
    grid = [
        (batch, context, chunk)
        for batch, context, chunk in product(_BATCHES, _CONTEXTS, _CHUNKS)
        if batch * context <= held and context <= model.max_context
    ]
    if not grid:
        raise _NoTables("the model does not fit")
    times_ms = _times_ms(model, hardware.tensor_parallel, BACKEND_BY_ERA[era.name], tables, tuple(grid))
    batch, context, chunk = np.array(grid, float).T
    return Steps(
        batch=batch,
        context_tokens=batch * context,
        prefill_tokens=chunk,
        position=context / 2,
        time_s=np.array(times_ms) / MS_PER_S,
    )


@lru_cache(maxsize=256)
def _times_ms(
    model: Model, tensor_parallel: int, backend: str, tables: tuple[str, str], grid: tuple[tuple[int, int, int], ...]
) -> tuple[float, ...]:
    """Its step time for each batch, tokens of a request and prompt tokens of the step [ms]."""
    with _quiet():
        try:
            engine = _engine(model, tensor_parallel, backend, tables)
            _check_measured(engine)
            return tuple(
                engine.mixed_step_latency(chunk, batch, context, 2)
                if chunk
                else engine.decode_step_latency(batch, context, 2)
                for batch, context, chunk in grid
            )
        except _NoTables:
            raise
        except Exception as error:  # the package raises many types of exceptions for missing tables
            raise _NoTables(_said(error)) from error


def _engine(model: Model, tensor_parallel: int, backend: str, tables: tuple[str, str]) -> Any:
    """Its engine for a model of this shape; this needs no network access."""
    from aiconfigurator_core.sdk.engine import EngineHandle

    system, version = tables
    config, modes = _config(model), _modes(model)
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return EngineHandle.compile(
            folder,
            system,
            backend,
            backend_version=version,
            tp_size=tensor_parallel,
            moe_tp_size=tensor_parallel,
            moe_ep_size=1,
            **modes,
        )


def _check_measured(engine: Any) -> None:
    """Check that most of a step's time comes from tables measured with this engine."""
    operators = engine.decode_step_per_op(64, 1024, 2)
    total = sum(time_ms for _, time_ms, *_ in operators)
    measured = sum(time_ms for _, time_ms, _, source in operators if source == "silicon")
    if not measured >= _LEAST_MEASURED * total:
        raise _NoTables(f"only {measured / total:.0%} of a step was measured")


def _check(ours: StepCost, steps: Steps) -> None:
    """Check that our step times and those of the tables agree."""
    apart = misfit(ours, steps)
    if apart > np.log(_WILD):
        raise _NoTables(f"its steps differ from ours by a factor of {np.exp(apart):.1f}")


def _config(model: Model) -> dict[str, Any]:
    """The model's shape as a ``config.json`` of an architecture that aiconfigurator supports."""
    if model.layer_kinds:
        raise _NoTables("layers that differ")
    if model.kv_lora_rank:
        raise _NoTables("latent attention, which its tables cover only in part")
    if model.learned_positions or not model.gated:
        raise _NoTables("no architecture of this kind")
    is_banded = bool(model.sliding_layers)
    if is_banded and not (model.experts and model.sliding_window == 128 and 2 * model.sliding_layers == model.layers):
        raise _NoTables("sliding windows other than those of gpt-oss")
    if model.experts and (model.dense_layers or model.shared_expert_intermediate_size):
        raise _NoTables("shared experts or dense layers among experts")
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.intermediate_size,
        "vocab_size": model.vocabulary_size,
        "max_position_embeddings": model.max_context,
    }
    if model.experts:
        config |= {
            "architectures": ["GptOssForCausalLM" if is_banded else "Qwen3MoeForCausalLM"],
            "num_experts": model.experts,
            "num_experts_per_tok": model.experts_per_token,
            "moe_intermediate_size": model.expert_intermediate_size,
        }
    return config


def _modes(model: Model) -> dict[str, str]:
    """Data types under its names."""
    if model.kv_dtype not in _CACHE_BY_DTYPE:
        raise _NoTables(f"no tables of a KV cache in {model.kv_dtype}")
    if model.weight_dtype == "fp8" and model.activation_dtype != "fp8":
        raise _NoTables("no tables of fp8 weights multiplied in 16 bits")
    dtype = _GEMM_BY_DTYPE[model.weight_dtype]
    modes = {"gemm_quant_mode": dtype, "kvcache_quant_mode": _CACHE_BY_DTYPE[model.kv_dtype]}
    if not model.experts:
        return modes
    if model.attention_weight_dtype in {"bf16", "fp16"} and model.weight_dtype == "fp4":
        return modes | {"gemm_quant_mode": "bfloat16", "moe_quant_mode": "w4a16_mxfp4"}
    return modes | {"moe_quant_mode": dtype}


def _said(error: Exception) -> str:
    """The first sentence of its error message, without keys and paths of its files."""
    text = " ".join(str(error).split()).removeprefix("perf database error: ")
    return re.sub(r" for \w+ {.*", "", text).partition(" at /")[0].partition(". ")[0][:120]


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress its messages about unused tables."""
    logger = logging.getLogger("aiconfigurator_core")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
