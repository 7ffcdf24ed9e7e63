"""Fits the constants of each engine era to measurements, and writes ``src/melange/profile/constants/*.toml``.

    python bench/calibrate.py MEASURED [ERA ...] [--write]

MEASURED is a folder with ``concurrency_sweeps.csv`` (TPOT by concurrency), ``offline_saturation.csv`` (tokens per
second of an endless queue) and ``saturation_llama2_7b_vllm027.csv`` (requests per second of an endless queue);
docs/performance-model.md says where they come from. Without ``--write`` the errors of the constants in force are
printed, no more. With it, each accelerator is also held out of a fit of its own: how wrong that is on it gives the
intervals.

Fitted is the mean absolute logarithm of measured over predicted step time, a (model, accelerator) pair of n points
weighing sqrt(n), by coordinate search on the logarithms of the constants, with a weak pull towards the untuned ones.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model
from melange.profile.capacity import Sizes, largest_batch, mean_step_s, prompt_times_s
from melange.profile.era import Constants, Era, eras, find_era
from melange.profile.estimate import kind_of
from melange.profile.hardware import Hardware, replicas_of

UNTUNED = Constants(
    mbu=0.8,
    mba=0.6,
    mfu=0.6,
    mfu_attention=0.4,
    t_step_s=1e-3,
    t_layer_s=4e-6,
    t_sequence_s=2e-6,
    t_request_s=1e-4,
    link_latency_s=8e-6,
    pcie_latency_s=30e-6,
    link_efficiency=0.7,
    pcie_efficiency=0.4,
)
HOST_BOUND = replace(UNTUNED, t_sequence_s=0.24e-3, t_request_s=15.6e-3)  # vLLM 0.2: Python between the steps
LARGEST = {"mbu": 0.88, "mba": 0.9, "mfu": 0.8, "mfu_attention": 0.9, "link_efficiency": 0.95, "t_step_s": 20e-3}
HELD = ("pcie_latency_s", "pcie_efficiency")  # no measurement tells
PULL = 0.005
PULL_BY_ERA = {"vllm-0.2": 0.02}  # one model on two accelerators: with less pull, either predicts the other worse

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
    "Qwen/Qwen3-235B-A22B-FP8": "Qwen/Qwen3-235B-A22B",
    "openai/gpt-oss-120b": "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-R1": "deepseek-ai/DeepSeek-R1",
    "deepseek-ai/DeepSeek-V3": "deepseek-ai/DeepSeek-V3",
}
ENGINE_BY_ERA = {"vllm-1": "vllm", "sglang": "sglang", "trtllm": "trtllm"}
DISAGGREGATED = ("gb200",)
TENSORRT_VERSIONS = ("0.15.0", "1.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One measured point: a step time, at a concurrency or at saturation.

    Parameters
    ----------
    concurrency
        Requests kept going; infinite at saturation.
    step_s
        Measured time per output token of one request; at saturation unknown, and nan [s].
    rate
        Measured request rate; nan at a concurrency [1/s].
    """

    model: Model
    accelerator: str
    tensor_parallel: int
    inputs: float
    outputs: float
    concurrency: float
    step_s: float
    rate: float


def read_points(folder: Path, era: str) -> list[Point]:
    """All measured points of an era whose model and accelerator are known."""
    if era == "vllm-0.2":
        return list(_saturation_of_vllm(folder / "saturation_llama2_7b_vllm027.csv"))
    points = list(_sweeps(folder / "concurrency_sweeps.csv", ENGINE_BY_ERA[era]))
    return points + (list(_saturation_of_tensorrt(folder / "offline_saturation.csv")) if era == "trtllm" else [])


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
            rate=float(row["max_request_rate"]),
        )


def _saturation_of_tensorrt(path: Path) -> Iterable[Point]:
    for row in _rows(path):
        if row["engine_version"] in TENSORRT_VERSIONS and row["model"] in MODEL_BY_NAME:
            yield Point(
                model=quantized(find_model(MODEL_BY_NAME[row["model"]]), row["precision"], is_fp8_cache=True),
                accelerator=ACCELERATOR_BY_NAME[row["gpu"]],
                tensor_parallel=int(row["tp"]),
                inputs=float(row["input_len"]),
                outputs=float(row["output_len"]),
                concurrency=math.inf,
                step_s=math.nan,
                rate=float(row["output_tok_s"]) / float(row["output_len"]),
            )


def _sweeps(path: Path, engine: str) -> Iterable[Point]:
    """Points within one server: beyond 8 accelerators these dumps mix in expert parallelism and disaggregation."""
    for row in _rows(path):
        tensor_parallel = int(float(row["tp_size"] or 1))
        if row["backend"] != engine or row["model_path"] not in MODEL_BY_NAME or tensor_parallel > 8:
            continue
        if row["system"] in DISAGGREGATED or float(row["silicon_tpot_ms"]) <= 0:
            continue
        precision = row["gemm_quant_mode"] or row["precision"] or "fp8"
        yield Point(
            model=quantized(find_model(MODEL_BY_NAME[row["model_path"]]), precision, is_fp8_cache=engine != "sglang"),
            accelerator=ACCELERATOR_BY_NAME[row["system"]],
            tensor_parallel=tensor_parallel,
            inputs=float(row["isl"]),
            outputs=float(row["osl"]),
            concurrency=float(row["concurrency"]),
            step_s=float(row["silicon_tpot_ms"]) / 1e3,
            rate=math.nan,
        )


def quantized(model: Model, precision: str, *, is_fp8_cache: bool) -> Model:
    """The model in the precision that a row names; gpt-oss is published in its own."""
    if model.weight_dtype == "fp4" or precision in {"bf16", "fp16"}:
        return model
    dtype = "fp4" if "fp4" in precision else "int4" if "int4" in precision else "fp8"
    activations = "bf16" if dtype == "int4" else dtype
    return replace(model, weight_dtype=dtype, activation_dtype=activations, kv_dtype="fp8" if is_fp8_cache else "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Points of one model (R, 1, 1), for the vectorised closed form."""

    model: Model
    points: list[Point]

    def ratio(self, era: Era) -> np.ndarray:
        """Measured over predicted step time of every point."""
        hardware = [
            Hardware(
                accelerator=point.accelerator,
                tensor_parallel=point.tensor_parallel,
                is_pcie=accelerators()[point.accelerator].link.startswith("PCIe"),
            )
            for point in self.points
        ]
        replicas = replicas_of(self.model, hardware, accelerators(), era.with_settings(max_context=10**9))
        sizes = Sizes(
            inputs=column([point.inputs for point in self.points]),
            outputs=column([point.outputs for point in self.points]),
        )
        most = largest_batch(replicas, self.model, sizes)
        concurrency = column([point.concurrency for point in self.points])
        batch = np.where(most > 0, np.minimum(concurrency, most), np.nan)
        # Of the requests kept going some are at their prompts: C = B (1 + own / (o step)), solved by iteration.
        for _ in range(3):
            step_s = mean_step_s(replicas, sizes, batch)
            own_s, _ = prompt_times_s(replicas, sizes, batch)
            share = 1 + own_s / (sizes.outputs * step_s)
            batch = np.where(most > 0, np.minimum(concurrency / share, most), np.nan)
        step_s = mean_step_s(replicas, sizes, batch)
        measured_s = np.where(
            np.isfinite(concurrency),
            column([point.step_s for point in self.points]),
            batch / (sizes.outputs * column([point.rate for point in self.points])),
        )
        return np.asarray(measured_s / step_s)[:, 0, 0]


def column(values: Sequence[float]) -> np.ndarray:
    """Values along the replica axis (R, 1, 1)."""
    return np.array(values, float)[:, None, None]


def batches_of(points: Sequence[Point]) -> list[Batch]:
    """Points by model."""
    by_model: dict[Model, list[Point]] = {}
    for point in points:
        by_model.setdefault(point.model, []).append(point)
    return [Batch(model=model, points=listed) for model, listed in by_model.items()]


def ratios(batches: Sequence[Batch], era: Era) -> tuple[np.ndarray, list[Point]]:
    """Measured over predicted step time, and the points, of all whose model fits in memory."""
    ratio = np.concatenate([batch.ratio(era) for batch in batches])
    points = [point for batch in batches for point in batch.points]
    kept = np.isfinite(ratio)
    return ratio[kept], [point for point, is_kept in zip(points, kept, strict=True) if is_kept]


def loss(batches: Sequence[Batch], era: Era, start: Constants) -> float:
    """Weighted mean of abs(log ratio), and the pull towards the start."""
    ratio, points = ratios(batches, era)
    groups = [(point.model.name, point.accelerator) for point in points]
    counts = Counter(groups)
    weight = np.array([1 / math.sqrt(counts[group]) for group in groups])
    fit = float((weight * np.abs(np.log(ratio))).sum() / weight.sum())
    now, then = asdict(era.constants), asdict(start)
    return fit + PULL_BY_ERA.get(era.name, PULL) * sum(math.log(now[name] / then[name]) ** 2 for name in now)


def fit(batches: Sequence[Batch], era: Era, start: Constants) -> Era:
    """Coordinate search on the logarithms of the constants."""
    era = replace(era, constants=start)
    best, stride = loss(batches, era, start), 0.4
    while stride > 0.04:
        before = best
        for name in (name for name in asdict(start) if name not in HELD):
            for direction in (1, -1):
                value = min(getattr(era.constants, name) * math.exp(direction * stride), LARGEST.get(name, math.inf))
                trial = replace(era, constants=replace(era.constants, **{name: value}))
                found = loss(batches, trial, start)
                if found < best:
                    era, best = trial, found
        if not best < before - 1e-3:
            stride /= 2
    return era


def report(era: Era, ratio: np.ndarray, points: Sequence[Point]) -> None:
    """Print errors by kind of measurement, kind of model, accelerator and model."""
    print(f"\n{era.name}: {len(points)} points")
    keys = {
        "all": lambda point: "",
        "measured": lambda point: "saturation" if math.isinf(point.concurrency) else "TPOT",
        "kind": lambda point: kind_of(point.model),
        "accelerator": lambda point: point.accelerator,
        "model": lambda point: f"{point.model.name} {point.model.weight_dtype}",
    }
    for title, key in keys.items():
        groups = [key(point) for point in points]
        for group in sorted(set(groups)):
            print(f"  {title:12} {group:42} {_errors(ratio[[one == group for one in groups]])}")


def hold_out(era: Era, points: Sequence[Point], start: Constants) -> np.ndarray:
    """Measured over predicted step time of every point, with constants fitted on the other accelerators."""
    pooled = []
    for held in sorted({point.accelerator for point in points}):
        rest = batches_of([point for point in points if point.accelerator != held])
        unseen = batches_of([point for point in points if point.accelerator == held])
        pooled.append(ratios(unseen, fit(rest, era, start))[0])
        print(f"{era.name} without {held:16} {_errors(pooled[-1])}", flush=True)
    unseen_ratio = np.concatenate(pooled)
    print(f"{era.name} held out, all points{'':5} {_errors(unseen_ratio)}", flush=True)
    return unseen_ratio


def _errors(ratio: np.ndarray) -> str:
    error = np.abs(1 / ratio - 1)
    low, high = np.quantile(ratio, (0.1, 0.9))
    return (
        f"n {len(ratio):4}  median error {np.median(error):6.1%}  90 % {np.quantile(error, 0.9):6.1%}  "
        f"measured/predicted {low:.2f} to {high:.2f}"
    )


def toml(era: Era, ratio: np.ndarray, points: Sequence[Point], today: date) -> str:
    """The text of an era's file; ``ratio`` is of points on accelerators that the fit did not see."""
    error = float(np.median(np.abs(1 / ratio - 1)))
    low, high = np.quantile(ratio, (0.1, 0.9))
    names = sorted({point.accelerator for point in points})
    models = sorted({point.model.name for point in points})
    kinds = sorted({kind_of(point.model) for point in points})
    longest = int(max(point.inputs + point.outputs for point in points))
    lines = [f"# Constants of engine era {era.name}, written by bench/calibrate.py.", "", "[constants]"]
    lines += [f"{name} = {value:.4g}" for name, value in asdict(era.constants).items()]
    lines += ["", "[settings]"]
    lines += [f"{name} = {_toml(value)}" for name, value in asdict(era.settings).items() if value is not None]
    lines += [
        "",
        "# Measured over predicted step time on accelerators held out: 10 % and 90 % quantile, median error.",
        "[residuals]",
    ]
    lines += [f"low = {low:.3f}", f"high = {high:.3f}", f"median_error = {error:.3f}", f"points = {len(points)}"]
    lines += ["", "[fitted]"]
    lines += [
        f"{name} = {_toml(value)}" for name, value in (("accelerators", names), ("models", models), ("kinds", kinds))
    ]
    lines += [f"max_tokens = {longest}", f"source = {_toml(era.source)}", f"date = {_toml(today.isoformat())}"]
    lines += [f"notes = {_toml(era.notes)}"] if era.notes else []
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def main() -> None:
    """Report, or fit, write and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    parser.add_argument("eras", nargs="*", default=eras())
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_intermixed_args()
    for name in arguments.eras:
        era = find_era(name)
        batches = batches_of(read_points(arguments.measured, name))
        start = HOST_BOUND if name == "vllm-0.2" else UNTUNED
        if arguments.write:
            unseen = hold_out(era, [point for batch in batches for point in batch.points], start)
            era = fit(batches, era, start)
            _, points = ratios(batches, era)
            folder = Path(__file__).parents[1] / "src" / "melange" / "profile" / "constants"
            (folder / f"{name}.toml").write_text(toml(era, unseen, points, date.today()), encoding="utf-8")
        report(era, *ratios(batches, era))


if __name__ == "__main__":
    main()
