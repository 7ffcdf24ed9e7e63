"""Read public benchmarks of finite runs: a batch, a burst or one request at a time, with the sizes of the requests.

``public_benchmarks.csv`` contains one row for each run: its source, its requests, and output tokens per second from the
first request to the last token.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.catalog.bundled import accelerators, find_model
from melange.catalog.model import Model

FILE = "public_benchmarks.csv"
# Releases for sources that do not name them: those of 2024 used vLLM 0.5 and TensorRT-LLM before 1.0, the lab of 2025
# the newest releases.
ENGINE_OF_2024 = {"vLLM": "vllm==0.5", "TensorRT-LLM": "trtllm==0.10"}
ENGINE_OF_2025 = {"vllm": "vllm==0.11.0", "sglang": "sglang==0.5.3", "trtllm": "trtllm==1.0"}
MODELS = {"Llama-3.1-405B fp8": "meta-llama/Llama-3.1-405B"}
# AccelMark limits the completions of ShareGPT-like prompts, and does not publish the lengths. The longest completion
# determines the end of a burst, so lengths are drawn from an exponential distribution with this cap and the published
# mean.
CAPS = {"accelmark": 512}
_PRECISION = {
    "fp8": ("fp8", "fp8"),
    "w8a8": ("int8", "int8"),
    "w8a16": ("int8", "bf16"),
    "w4a16": ("int4", "bf16"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One benchmark of finite length.

    Parameters
    ----------
    source, note
        Source of the measurement, and its remark.
    engine
        Engine and release, as in a service file: ``vllm==0.7.3``.
    model, accelerator, tensor_parallel, is_pcie
        The deployment.
    inputs, outputs
        Prompt and output tokens of each request, all sent at once (N,).
    is_alone
        Whether requests were sent one at a time, so that ``measured`` is one over the time per output token.
    is_served
        Whether a server was measured rather than the engine alone.
    measured
        Output tokens per second.
    """

    source: str
    engine: str
    model: Model
    accelerator: str
    tensor_parallel: int
    is_pcie: bool
    inputs: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.int64]
    is_alone: bool
    is_served: bool
    measured: float
    note: str = ""

    @property
    def label(self) -> tuple[object, ...]:
        """The key of all runs of one replica type."""
        return self.source, self.engine, self.model, self.accelerator, self.tensor_parallel, self.is_pcie, self.note


def read_runs(folder: Path) -> list[Run]:
    """All rows of the file."""
    with (folder / FILE).open(encoding="utf-8") as stream:
        return [_run(row) for row in csv.DictReader(stream)]


def why_left_out(run: Run) -> str:
    """The reason why the labels of a run cannot describe it; empty if they can."""
    card = accelerators()[run.accelerator]
    tokens = run.inputs.sum() + run.outputs.sum()
    arithmetic_s = (
        2.0 * run.model.active_parameters(output_head=False) * tokens / card.flops(run.model.activation_dtype)
    )
    reading_s = run.model.weight_bytes_read(len(run.inputs)) / card.bandwidth_bytes_per_s * run.outputs.max()
    measured_s = run.outputs.sum() / run.measured
    if not run.is_alone and max(arithmetic_s, reading_s) > measured_s * run.tensor_parallel:
        return "faster than the weights can be read or multiplied: completions ended early, or prompts were alike"
    if "slow path" in run.note:
        return "a release of the weights for which the engine had no kernels"
    if run.source == "gpustack" and run.accelerator == "H100-80GB" and run.model.name.endswith("GLM-4.5-Air"):
        return "the same figures, to the last digit, as on an A100"
    return ""


def _run(row: Mapping[str, str]) -> Run:
    kind = row["kind"]
    is_alone = kind.startswith("one request")
    burst = re.match(r"burst of (\d+)", kind)
    count = 1 if is_alone else int(burst[1]) if burst else int(float(row["concurrency"]))
    is_capped = row["source"] in CAPS and not is_alone
    inputs, outputs = lengths(float(row["input_tokens"]), float(row["output_tokens"]), count, is_capped=is_capped)
    return Run(
        source=row["source"],
        engine=_engine(row),
        model=_model(row),
        accelerator=row["accelerator"],
        tensor_parallel=int(row["tensor_parallel"]),
        is_pcie="pcie" in row["note"],
        inputs=inputs,
        outputs=outputs,
        is_alone=is_alone,
        is_served=row["source"] == "gpustack",
        measured=float(row["measured"]),
        note=row["note"] if row["source"] == "dstack-405B" else "",
    )


def _engine(row: Mapping[str, str]) -> str:
    name = row["engine"]
    if row["source"] == "gpustack":
        return ENGINE_OF_2025[name]
    if name in ENGINE_OF_2024:
        return ENGINE_OF_2024[name]
    engine, release = name.split()
    return f"{engine.casefold()}=={release}"


def _model(row: Mapping[str, str]) -> Model:
    model = find_model(MODELS.get(row["model"], row["model"]))
    if row["variant"] not in _PRECISION:
        return model
    stored, multiplied = _PRECISION[row["variant"]]
    return replace(model, weight_dtype=stored, activation_dtype=multiplied)


def lengths(
    inputs: float, outputs: float, count: int, *, is_capped: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Prompt and output tokens of each request (N,): the means, or shuffled quantiles of capped lengths."""
    fixed = np.full(count, max(round(inputs), 1)), np.full(count, max(round(outputs), 1))
    cap = CAPS["accelmark"] if outputs > CAPS["accelmark"] / 2 else CAPS["accelmark"] // 2
    if not is_capped or count < 2 or inputs > 1000:
        return fixed
    shuffle = np.random.default_rng(0).permutation
    part = (np.arange(count) + 0.5) / count
    return (
        np.maximum(shuffle(np.round(-inputs * np.log(part))).astype(np.int64), 4),
        np.maximum(shuffle(np.round(_capped(part, outputs, cap))).astype(np.int64), 1),
    )


def _capped(part: npt.NDArray[np.float64], mean: float, cap: int) -> npt.NDArray[np.float64]:
    """Quantiles of a capped exponential distribution with this mean."""
    low, high = 1.0, 1e6
    for _ in range(60):
        scale = (low * high) ** 0.5
        if np.minimum(-scale * np.log(part), cap).mean() < mean:
            low = scale
        else:
            high = scale
    return np.minimum(-high * np.log(part), cap)
