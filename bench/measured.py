"""Read measured points, and leave out those that give no information about one replica, with reasons.

``concurrency_sweeps.csv`` contains TTFT and TPOT by concurrency, ``offline_saturation.csv`` tokens per second of an
endless queue, ``saturation_llama2_7b_vllm027.csv`` requests per second of an endless queue; docs/validation.md names
their sources. The sweeps record model, precision, accelerator and degree, but not expert parallelism, data-parallel
attention or speculative decoding, although they include all of these. If measurements with equal labels differ a lot,
the labels do not describe the deployment, and all points of that replica type are left out.
"""

from __future__ import annotations

import csv
import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.profile.measurement import Measurement
from melange.replica.era import EngineSettings, find_era
from melange.replica.memory import kv_room_bytes

ENGINE_BY_ERA = {"vllm-1": "vllm", "sglang": "sglang", "trtllm": "trtllm", "trtllm-1.0": "trtllm"}
# TensorRT-LLM's first release on PyTorch, and measurements of its engine without a server.
FIRST_ERA, OFFLINE_ERA = "trtllm-1.0", "trtllm-offline"
DISAGGREGATED = ("gb200",)
TENSORRT_VERSIONS = ("0.15.0", "1.0")
LARGEST_SERVER = 8
# Measurements with equal labels that differ by more than this factor are of different deployments.
AMBIGUOUS = 1.4
# A point that is slower by this factor than a point with more concurrent requests was disturbed.
FALLING = 1.25
# If prompts would need a larger share of peak arithmetic than any kernel reaches, they were not computed.
MOST_OF_PEAK = 0.7
# Requests of equal lengths that start together stay together. If the first token takes more than this share of the
# latency, requests wait for the prompts of others, which TPOT does not include; then the rate is used instead.
WAITING = 0.15
# InferenceX draws lengths evenly between 0.8 and 1 of the label (its issue 356).
INFERENCEX_SIZES = {(1024, 1024), (1024, 8192), (8192, 1024)}
INFERENCEX_MEAN = 0.9

ACCELERATOR_BY_NAME = {
    "h100_sxm": "H100-80GB",
    "h200_sxm": "H200",
    "b200_sxm": "B200",
    "b300_sxm": "B300",
    "gb200": "GB200",
    "H100-SXM-80GB": "H100-80GB",
    "H200-SXM-141GB": "H200",
    "GH200-96GB": "GH200-96GB",
    "A100-SXM-80GB": "A100-80GB",
    "A100-PCIE-80GB": "A100-PCIe-80GB",
    "L40S": "L40S",
    "A10G": "A10G",
    "A100-80GB": "A100-80GB",
}
MODEL_BY_NAME = {
    "LLaMA v3.1 8B": "meta-llama/Llama-3.1-8B",
    "Llama 3.1 8B": "meta-llama/Llama-3.1-8B",
    "LLaMA v3.1 70B": "meta-llama/Llama-3.1-70B",
    "Mistral 7B": "mistralai/Mistral-7B-v0.1",
    "nvidia/Llama-3.1-8B-Instruct-FP8": "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-8B-Instruct": "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.1-70B": "meta-llama/Llama-3.1-70B",
    "meta-llama/Llama-2-7b-hf": "meta-llama/Llama-2-7b-hf",
    "Qwen/Qwen3-32B": "Qwen/Qwen3-32B",
    "nvidia/Qwen3-32B-NVFP4": "Qwen/Qwen3-32B",
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen/Qwen3-235B-A22B",
    "openai/gpt-oss-120b": "openai/gpt-oss-120b",
    # V3 and R1 have the same shape, and these files contain some runs under both names.
    "deepseek-ai/DeepSeek-R1": "deepseek-ai/DeepSeek-V3",
    "deepseek-ai/DeepSeek-V3": "deepseek-ai/DeepSeek-V3",
    "nvidia/DeepSeek-R1-NVFP4": "deepseek-ai/DeepSeek-V3",
    "nvidia/DeepSeek-V3.1-NVFP4": "deepseek-ai/DeepSeek-V3",
}
# Shapes that are missing in the catalog, from the models' config.json.
MINIMAX = Model(
    name="MiniMaxAI/MiniMax-M2.5",
    layers=62,
    hidden_size=3072,
    heads=48,
    kv_heads=8,
    head_size=128,
    intermediate_size=1536,
    vocabulary_size=200_064,
    max_context=196_608,
    experts=256,
    experts_per_token=8,
    expert_intermediate_size=1536,
)
KIMI = Model(
    name="moonshotai/Kimi-K2.5",
    layers=61,
    hidden_size=7168,
    heads=64,
    kv_heads=64,
    head_size=192,
    intermediate_size=18_432,
    vocabulary_size=163_840,
    max_context=262_144,
    experts=384,
    experts_per_token=8,
    expert_intermediate_size=2048,
    shared_expert_intermediate_size=2048,
    dense_layers=1,
    kv_lora_rank=512,
    qk_rope_head_size=64,
    q_lora_rank=1536,
    qk_nope_head_size=128,
    v_head_size=128,
)
SHAPES = {model.name: model for model in (MINIMAX, KIMI)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured point: a step time, at a concurrency or at saturation.

    Parameters
    ----------
    concurrency
        Constant number of requests in flight; infinite at saturation.
    step_s, first_s
        Measured time per output token of one request, and time to its first token; nan at saturation [s].
    rate
        Measured request rate at saturation; otherwise nan [1/s].
    release
        Release of the engine, if the file has it.
    """

    model: Model
    accelerator: str
    tensor_parallel: int
    inputs: float
    outputs: float
    concurrency: float
    step_s: float
    first_s: float
    rate: float
    release: str = ""

    @property
    def latency_s(self) -> float:
        """Measured time from sending a request to its last token [s]."""
        return self.first_s + (self.outputs - 1) * self.step_s

    @property
    def cycle_rate(self) -> float:
        """Request rate of the closed loop, by Little's law [1/s]."""
        return self.concurrency / self.latency_s

    @property
    def is_waiting(self) -> bool:
        """Whether requests spend much of their latency before the first token, which TPOT does not include."""
        return not self.is_saturated and self.first_s > WAITING * self.latency_s

    @property
    def quantity(self) -> str:
        """The quantity used of a point: ``TPOT``, the ``rate`` of a closed loop, or the rate at ``saturation``."""
        return "saturation" if self.is_saturated else "rate" if self.is_waiting else "TPOT"

    @property
    def is_saturated(self) -> bool:
        """Whether an endless queue was measured."""
        return math.isinf(self.concurrency)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The points of one era, those of types with cached prompts, and the number of rows left out by reason."""

    era: str
    points: list[Point]
    left_out: Counter[str]
    cached: tuple[Point, ...] = ()


def read_points(folder: Path, era: str) -> Measured:
    """All measured points of an era that give information about one replica."""
    if era == "vllm-0.2":
        points = list(_saturation_of_vllm(folder / "saturation_llama2_7b_vllm027.csv"))
        return Measured(era=era, points=points, left_out=Counter())
    left_out: Counter[str] = Counter()
    if era == OFFLINE_ERA:
        points = list(_saturation_of_tensorrt(folder / "offline_saturation.csv", left_out))
    else:
        points = _sweeps(folder / "concurrency_sweeps.csv", era, left_out)
    settings = find_era(era).settings
    points, cached = _uncached(points, left_out)
    misfits = {_run(point) for point in points if not point.is_saturated and not _fits(point, settings)}
    fitting = [point for point in points if _run(point) not in misfits and _fits(point, settings)]
    if missing := len(points) - len(fitting):
        left_out["the degree of some label does not hold the weights: it counts something else"] += missing
    return Measured(era=era, points=fitting, left_out=left_out, cached=tuple(cached))


def _uncached(points: list[Point], left_out: Counter[str]) -> tuple[list[Point], list[Point]]:
    """Separate replica types with a point that would need more arithmetic than possible: their prompts were cached."""
    cached = {
        (point.model, point.accelerator)
        for point in points
        if not point.is_saturated and _share_of_peak(point) > MOST_OF_PEAK
    }
    kept = [point for point in points if (point.model, point.accelerator) not in cached]
    if missing := len(points) - len(kept):
        left_out["more arithmetic than the accelerator has: prompts came from a prefix cache"] += missing
    return kept, [point for point in points if (point.model, point.accelerator) in cached]


def _share_of_peak(point: Point) -> float:
    operations = (
        2.0 * point.model.active_parameters(output_head=False) * (point.inputs + point.outputs) * point.cycle_rate
    )
    return operations / (accelerators()[point.accelerator].flops(point.model.activation_dtype) * point.tensor_parallel)


def _run(point: Point) -> tuple[object, ...]:
    return point.model, point.accelerator, point.is_saturated


def _fits(point: Point, settings: EngineSettings) -> bool:
    card = accelerators()[point.accelerator]
    return (
        point.model.is_splittable(point.tensor_parallel)
        and kv_room_bytes(point.model, card, point.tensor_parallel, settings) > 0
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _saturation_of_vllm(path: Path) -> Iterable[Point]:
    for row in _rows(path):
        yield Point(
            model=find_model(row["model"]),
            accelerator=row["accelerator"],
            tensor_parallel=1,
            inputs=float(row["input_tokens"]),
            outputs=float(row["output_tokens"]),
            concurrency=math.inf,
            step_s=math.nan,
            first_s=math.nan,
            rate=float(row["max_request_rate"]),
        )


def _saturation_of_tensorrt(path: Path, left_out: Counter[str]) -> Iterable[Point]:
    for row in _rows(path):
        if row["engine_version"] not in TENSORRT_VERSIONS or row["model"] not in MODEL_BY_NAME:
            left_out["TensorRT-LLM 0.10, another era"] += 1
            continue
        yield Point(
            model=quantized(
                _whole_context(find_model(MODEL_BY_NAME[row["model"]])), row["precision"], is_fp8_cache=True
            ),
            accelerator=ACCELERATOR_BY_NAME[row["gpu"]],
            tensor_parallel=int(row["tp"]),
            inputs=float(row["input_len"]),
            outputs=float(row["output_len"]),
            concurrency=math.inf,
            step_s=math.nan,
            first_s=math.nan,
            rate=float(row["output_tok_s"]) / float(row["output_len"]),
            release=row["engine_version"],
        )


def _sweeps(path: Path, era: str, left_out: Counter[str]) -> list[Point]:
    """Points with unambiguous labels; several measurements with the same label give one point, their median."""
    by_label: dict[tuple[object, ...], list[Point]] = defaultdict(list)
    for row in _rows(path):
        if row["backend"] != ENGINE_BY_ERA[era] or not _is_of_era(row, era):
            continue
        if reason := _unusable(row):
            left_out[reason] += 1
            continue
        point = _point(row, era)
        by_label[_replica_type(point), point.inputs, point.outputs, point.concurrency].append(point)
    apart: Counter[object] = Counter()
    for label, points in by_label.items():
        times = [point.step_s for point in points]
        apart[label[0]] += max(times) / min(times) > AMBIGUOUS
    kept = []
    for label, points in by_label.items():
        times = [point.step_s for point in points]
        if apart[label[0]] > 1:
            left_out["a replica type whose equal labels were measured more than 1.4 times apart"] += len(points)
        elif max(times) / min(times) > AMBIGUOUS:
            left_out["one label measured more than 1.4 times apart"] += len(points)
        else:
            first_s = float(np.median([point.first_s for point in points]))
            kept.append(replace(points[0], step_s=float(np.median(times)), first_s=first_s))
            if len(points) > 1:
                left_out["repeated: one point for each label"] += len(points) - 1
    return _rising(kept, left_out)


def _is_of_era(row: dict[str, str], era: str) -> bool:
    """Whether a row's release belongs to the era; rows without one were measured after 1.0, from October 2025 on."""
    return row["backend"] != "trtllm" or row["backend_version"].startswith("1.0") == (era == FIRST_ERA)


def _rising(points: list[Point], left_out: Counter[str]) -> list[Point]:
    """The points without those far slower than one with more concurrent requests: TPOT grows with the concurrency."""
    by_curve: dict[tuple[object, ...], list[Point]] = defaultdict(list)
    for point in points:
        by_curve[_replica_type(point), point.inputs, point.outputs].append(point)
    kept = []
    for curve in by_curve.values():
        for point in curve:
            if any(one.concurrency > point.concurrency and one.step_s * FALLING < point.step_s for one in curve):
                left_out["slower than the same replica under more requests"] += 1
            else:
                kept.append(point)
    return kept


def _replica_type(point: Point) -> tuple[object, ...]:
    return point.model, point.accelerator, point.tensor_parallel


def _unusable(row: dict[str, str]) -> str:
    """The reason why a row gives no information about one replica of a known shape; empty if it does."""
    if row["system"] in DISAGGREGATED:
        return "GB200 racks: disaggregated prefill"
    if int(float(row["tp_size"] or 1)) > LARGEST_SERVER:
        return "more than 8 accelerators: expert parallelism over several servers"
    if row["model_path"] not in MODEL_BY_NAME and row["model_path"] not in SHAPES:
        return "attention that the model does not know (gated delta rule, sparse)"
    if float(row["silicon_tpot_ms"]) <= 0:
        return "no TPOT"
    if float(row["silicon_ttft_ms"]) > float(row["silicon_tpot_ms"]) * float(row["osl"]):
        return "waiting longer than decoding: queued behind a limit that the labels do not say"
    if "nightly" in row["backend_version"] or "dev" in row["backend_version"]:
        return "not a release"
    return ""


def _point(row: dict[str, str], era: str) -> Point:
    name = row["model_path"]
    model = SHAPES[name] if name in SHAPES else find_model(MODEL_BY_NAME[name])
    precision = row["gemm_quant_mode"] or row["precision"] or "bf16"
    size = float(row["isl"]), float(row["osl"])
    share = INFERENCEX_MEAN if size in INFERENCEX_SIZES else 1.0
    return Point(
        model=quantized(model, precision, is_fp8_cache=ENGINE_BY_ERA[era] != "sglang"),
        accelerator=ACCELERATOR_BY_NAME[row["system"]],
        tensor_parallel=int(float(row["tp_size"] or 1)),
        inputs=size[0] * share,
        outputs=size[1] * share,
        concurrency=float(row["concurrency"]),
        step_s=float(row["silicon_tpot_ms"]) / 1e3,
        first_s=float(row["silicon_ttft_ms"]) / 1e3,
        rate=math.nan,
        release=row["backend_version"],
    )


def _whole_context(model: Model) -> Model:
    """The model without a sliding window, which these runs did not use."""
    return replace(model, sliding_window=0, sliding_layers=0)


def quantized(model: Model, precision: str, *, is_fp8_cache: bool) -> Model:
    """The model in the precision of a row; gpt-oss keeps its published one."""
    if model.weight_dtype == "fp4" or precision in {"bf16", "fp16"}:
        return model
    dtype = "fp4" if "fp4" in precision else "int4" if "int4" in precision else "fp8"
    activations = "bf16" if dtype == "int4" else dtype
    return replace(model, weight_dtype=dtype, activation_dtype=activations, kv_dtype="fp8" if is_fp8_cache else "bf16")


def measurement_of(point: Point) -> Measurement:
    """A point at a concurrency as a user's measurement."""
    return Measurement(
        input_tokens=point.inputs,
        output_tokens=point.outputs,
        accelerator=point.accelerator,
        tensor_parallel=point.tensor_parallel,
        concurrency=point.concurrency,
        tpot_s={"mean": point.step_s},
        ttft_s={"mean": point.first_s},
        source=f"{point.model.name} {point.accelerator} x {point.tensor_parallel} at {point.concurrency:g}",
    )
