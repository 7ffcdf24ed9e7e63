"""Fit constants to public benchmarks of finite runs: for the eras of 2024, and for classes of hardware in all eras.

    python bench/public_eras.py MEASURED [--write]

MEASURED is a folder with ``public_benchmarks.csv``; the script does nothing if it is missing. ``bench/calibrate.py``
must run first, to fit the eras of the other files. There are several stages, with the same method as there, each with
the result of the previous one as its prior: vLLM before its V1 engine on datacenter GPUs; then the values that differ
on consumer GPUs, on GPUs before Ampere, and on AMD. If a class was not measured in the modern eras, hardware constants
are carried over from the older ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bursts import Bursts
from calibrate import LARGEST, START, fit
from era_files import era_text, residuals_from
from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators
from melange.replica.era import Constants, Era, OnClass, Residuals, find_era, kind_of
from melange.replica.hardware_class import CONSUMER, DATACENTER, PRE_AMPERE, ROCM, class_of
from melange.replica.releases import Releases
from public_points import Run, read_runs, why_left_out

Array = npt.NDArray[np.float64]

# Before the V1 engine, runs with held-out accelerators and models are predicted better with a wider limit of attention.
LIMITS = LARGEST | {"mfu_int4": 1.0, "mfu_attention": 0.9}
OLD_VLLM = ("vllm-0.5", "vllm-0.7")
OLD_TENSORRT = "trtllm-0.10"
MODERN = ("vllm-1", "sglang", "trtllm", "trtllm-1.0", "trtllm-offline")
# The V1 engine is the default since 0.8.0 (release notes); version 0.6.2 added custom paged attention for AMD (its pull
# request 8310).
RELEASES = {
    "vllm-0.5": Releases(engine="vllm", first="0.4", before="0.6.2", measured=("0.5",)),
    "vllm-0.7": Releases(engine="vllm", first="0.6.2", before="0.8", measured=("0.6", "0.7")),
    OLD_TENSORRT: Releases(engine="trtllm", first="", before="0.12", measured=("0.10",)),
}
# Before V1 a prompt had a separate step, with up to as many tokens as the context; Python code ran between the steps.
OLD_START = replace(
    START,
    t_step_s=2e-3,
    t_layer_s=30e-6,
    t_sequence_s=2e-5,
    t_request_s=1e-3,
    t_logit_s=1e-10,
    t_stream_s=0.0,
    t_quantize_layer_s=0.0,
    expert_padding=0.0,
    mfu_fp8=0.45,
    mfu_int4=0.5,
)
ROCM_START = replace(
    OLD_START, mbu=0.6, mba=0.2, mfu=0.35, t_layer_s=60e-6, t_sequence_s=4e-5, t_logit_s=3e-10, mfu_fp8=0.3
)
TENSORRT_START = replace(START, t_stream_s=0.0, t_quantize_layer_s=0.0, expert_padding=0.0, t_logit_s=3e-11)
# Prior standard deviations of the logarithms.
OLD_SPREAD = {
    "mbu": 0.2, "mba": 0.4, "mfu": 0.3, "mfu_fp8": 0.3, "mfu_attention": 0.5, "mfu_experts": 0.5, "mfu_int4": 0.7,
    "t_step_s": 0.7, "t_layer_s": 0.7, "t_moe_layer_s": 0.7, "t_sequence_s": 1.0, "t_request_s": 1.0, "t_logit_s": 1.0,
    "link_latency_s": 0.7, "link_efficiency": 0.5, "pcie_latency_s": 0.7, "pcie_efficiency": 0.5,
}  # fmt: skip
ROCM_SPREAD = {
    "mbu": 0.3, "mba": 1.2, "mfu": 0.5, "mfu_fp8": 0.5, "mfu_attention": 1.0, "mfu_experts": 0.5,
    "t_step_s": 0.7, "t_layer_s": 0.7, "t_moe_layer_s": 0.7, "t_sequence_s": 1.0, "t_request_s": 1.0, "t_logit_s": 1.0,
    "link_latency_s": 0.7, "link_efficiency": 0.7,
}  # fmt: skip
CLASS_SPREAD = {
    CONSUMER: {"pcie_efficiency": 0.5, "pcie_latency_s": 0.5, "mfu": 0.3, "mbu": 0.15},
    PRE_AMPERE: {"mfu": 0.5, "mba": 0.5, "mfu_attention": 0.7, "pcie_efficiency": 0.5},
}
# For a class in eras in which it was not measured: hardware constants that are used unchanged, or in proportion.
AS_IT_IS = {CONSUMER: ("pcie_efficiency", "pcie_latency_s"), PRE_AMPERE: ("pcie_efficiency",)}
IN_PROPORTION = {CONSUMER: (), PRE_AMPERE: ("mfu", "mba")}
# Mixture-of-experts models on Ampere under modern engines, whose kernels are not tuned for it.
AMPERE_SPREAD = {"mfu_experts": 0.5}
# Constants without measurements on AMD.
CUDA_ONLY = ("t_stream_s", "mba_latent", "t_latent_layer_s", "t_quantize_layer_s", "expert_padding", "mfu_fp4")
# AMD without measurements: step times are about 1.5 times those of NVIDIA with the same datasheet figures, 1 to 2.5
# times.
ROCM_SLOWDOWN, ROCM_INTERVAL = 1.5, (1.0, 2.5)


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """Eras fitted to public runs, and the runs of each fit."""

    eras: Mapping[str, Era]
    runs: Mapping[str, Sequence[Run]] = field(default_factory=dict)

    def era_for(self, run: Run) -> Era:
        """The era of a run's release."""
        chosen = find_era(run.engine)
        return replace(self.eras.get(chosen.name, chosen), release=chosen.release, is_covered=chosen.is_covered)


def class_of_run(run: Run) -> str:
    """The hardware class of a run."""
    return class_of(accelerators()[run.accelerator])


def most_likely(runs: Sequence[Run], era: Era, start: Constants, spread: Mapping[str, float]) -> Constants:
    """The constants in ``spread`` fitted to runs; the starting values if there are no runs."""
    table = Bursts(runs, era)
    if not len(table.runs) or not spread:
        return start
    return replace(start, **fit([table], [start], {name: getattr(start, name) for name in spread}, spread, LIMITS))


def usable(runs: Sequence[Run]) -> list[Run]:
    """Runs whose labels describe the deployment."""
    return [run for run in runs if not why_left_out(run)]


def fit_old_vllm(runs: Sequence[Run]) -> tuple[Constants, dict[str, OnClass]]:
    """Constants before the V1 engine for datacenter GPUs and for classes, from runs of these releases."""
    bare = find_era("vllm-0.5")
    general = most_likely([run for run in runs if class_of_run(run) == DATACENTER], bare, OLD_START, OLD_SPREAD)
    return general, {
        one: _on(most_likely([run for run in runs if class_of_run(run) == one], bare, general, spread), spread)
        for one, spread in CLASS_SPREAD.items()
    }


def fit_old_tensorrt(runs: Sequence[Run]) -> Constants:
    """Constants of TensorRT-LLM of 2024; those of the next releases if there are no runs."""
    offline = find_era("trtllm-offline")
    if not runs:
        return offline.constants
    spread = {name: value for name, value in OLD_SPREAD.items() if name != "mfu_int4" and not name.startswith("pcie")}
    return most_likely(runs, offline, TENSORRT_START, spread)


def by_era(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by the era of their release."""
    found: dict[str, list[Run]] = {name: [] for name in (*OLD_VLLM, OLD_TENSORRT, *MODERN)}
    for run in usable(runs):
        found[find_era(run.engine).name].append(run)
    return found


def fit_public(runs: Sequence[Run]) -> Fitted:
    """All eras, fitted to these runs."""
    chosen = by_era(runs)
    old = [run for name in OLD_VLLM for run in chosen[name]]
    general, classes = fit_old_vllm(old)
    found: dict[str, Era] = {}
    for name in OLD_VLLM:
        on_rocm = [run for run in chosen[name] if class_of_run(run) == ROCM]
        rocm = _on_rocm(on_rocm, find_era("vllm-0.5"))
        others = [run for run in old if class_of_run(run) != ROCM]
        era = replace(find_era(name), constants=general, on_class=classes | {ROCM: rocm})
        found[name] = replace(_with_fitted(era, others + on_rocm), measured_by=_sources(others))
    era = replace(find_era(OLD_TENSORRT), constants=fit_old_tensorrt(chosen[OLD_TENSORRT]))
    found[OLD_TENSORRT] = _with_fitted(era, chosen[OLD_TENSORRT])
    for name in MODERN:
        era = find_era(name)
        own = era.constants
        if name != "trtllm-offline":  # its own runs include PCIe
            between = _between(general, classes, "pcie_efficiency")
            own = replace(own, pcie_efficiency=between, pcie_latency_s=general.pcie_latency_s)
        on_class = {one: _carried(one, own, general, classes[one]) for one in CLASS_SPREAD}
        on_class[ROCM] = _unmeasured_rocm()
        ampere = [run for run in chosen[name] if accelerators()[run.accelerator].architecture == "Ampere"]
        if ampere:
            on_class["Ampere"] = _on(most_likely(ampere, era, own, AMPERE_SPREAD), AMPERE_SPREAD)
        # A few mixture-of-experts runs on an A100 are not enough to count it as a measured accelerator of the era.
        found[name] = replace(era, constants=own, on_class=on_class)
    return Fitted(eras=found, runs=chosen)


def _on(constants: Constants, names: Iterable[str]) -> OnClass:
    """A class with the constants fitted for it."""
    return OnClass(constants={name: getattr(constants, name) for name in names})


def _between(general: Constants, classes: Mapping[str, OnClass], name: str) -> float:
    """The geometric mean of a constant over measured classes, for GPUs that were not measured."""
    return float(np.sqrt(getattr(general, name) * classes[PRE_AMPERE].constants[name]))


def _carried(one: str, own: Constants, general: Constants, on_class: OnClass) -> OnClass:
    """A class in an era in which it was not measured."""
    values = {name: on_class.constants[name] for name in AS_IT_IS[one]}
    for name in IN_PROPORTION[one]:
        value = getattr(own, name) * on_class.constants[name] / getattr(general, name)
        values[name] = min(value, LARGEST.get(name, np.inf))
    return OnClass(constants=values)


def _unmeasured_rocm() -> OnClass:
    """AMD without measurements: slower steps, and an interval chosen by judgment."""
    low, high = (bound / ROCM_SLOWDOWN for bound in ROCM_INTERVAL)
    residuals = Residuals(low=low, high=high, median_error=0.25, points=0)
    return OnClass(slowdown=ROCM_SLOWDOWN, residuals=residuals)


def _on_rocm(runs: Sequence[Run], era: Era) -> OnClass:
    """The class for AMD: fitted if there are runs, otherwise slower steps with a wide interval."""
    if not runs:
        return _unmeasured_rocm()
    names = [name for name in asdict(ROCM_START) if name not in CUDA_ONLY]
    fitted = _on(most_likely(runs, era, ROCM_START, ROCM_SPREAD), names)
    return replace(fitted, residuals=_left_out(runs, era), measured_by=_sources(runs))


def _sources(runs: Sequence[Run]) -> tuple[str, ...]:
    return tuple(sorted({run.source for run in runs}))


def _left_out(runs: Sequence[Run], era: Era) -> Residuals:
    """Errors of AMD runs with their model, or their degree, held out of the fit."""
    keys: list[Callable[[Run], object]] = [lambda run: run.model, lambda run: run.tensor_parallel]
    ratios = [
        Bursts([run for run in runs if key(run) == held], era).log_ratio(
            most_likely([run for run in runs if key(run) != held], era, ROCM_START, ROCM_SPREAD)
        )
        for key in keys
        for held in dict.fromkeys(map(key, runs))
        if any(key(run) != held for run in runs)
    ]
    return residuals_from(np.concatenate(ratios), len(runs))


def _with_fitted(era: Era, runs: Sequence[Run]) -> Era:
    """The era with the names of accelerators and models in its fit."""
    return replace(
        era,
        accelerators=tuple(sorted({run.accelerator for run in runs})),
        architectures=tuple(sorted({accelerators()[run.accelerator].architecture for run in runs})),
        models=tuple(sorted({run.model.name for run in runs})),
        kinds=tuple(sorted({kind_of(run.model) for run in runs})),
        measured_by=_sources(runs),
        max_tokens=int(max(((run.inputs + run.outputs).max() for run in runs), default=0)),
    )


def held_out(runs: Sequence[Run]) -> dict[str, tuple[list[Run], Array]]:
    """Runs of the eras of 2024, and logarithms of measured over predicted time for held-out accelerators and models."""
    listed: dict[str, list[Run]] = {name: [] for name in (*OLD_VLLM, OLD_TENSORRT)}
    ratios: dict[str, list[Array]] = {name: [] for name in listed}
    chosen = {name: [run for run in some if class_of_run(run) != ROCM] for name, some in by_era(runs).items()}
    keys: list[Callable[[Run], object]] = [lambda run: run.accelerator, lambda run: run.model.name]
    for key in keys:
        for names in (OLD_VLLM, (OLD_TENSORRT,)):
            every = [run for name in names for run in chosen[name]]
            for held in dict.fromkeys(map(key, every)):
                rest = [run for run in every if key(run) != held]
                general, classes = fit_old_vllm(rest) if names == OLD_VLLM else (fit_old_tensorrt(rest), {})
                for name in names:
                    for place in (DATACENTER, CONSUMER, PRE_AMPERE):
                        mine = [run for run in chosen[name] if key(run) == held and class_of_run(run) == place]
                        table = Bursts(mine, find_era(name))
                        if len(table.runs):
                            on = classes.get(place, OnClass())
                            listed[name] += table.runs
                            ratios[name].append(table.log_ratio(replace(general, **on.constants)))
    return {name: (listed[name], np.concatenate(ratios[name])) for name in listed}


def main() -> None:
    """Fit and print the constants; with ``--write``, also hold out runs and write the files."""
    parser = parser_of(__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if is_missing(arguments.measured):
        return
    runs = read_runs(arguments.measured)
    fitted = fit_public(runs)
    for name, era in fitted.eras.items():
        print(name, {key: f"{value:.3g}" for key, value in asdict(era.constants).items()})
    if not arguments.write:
        return
    folder, held = Path(__file__).parents[1] / "src" / "melange" / "replica" / "constants", held_out(runs)
    for name, era in fitted.eras.items():
        if name in MODERN:
            written = era
        else:
            listed, ratio = held[name]
            kinds = np.array([kind_of(run.model) for run in listed])
            written = replace(
                era,
                residuals=residuals_from(ratio, len(listed) // 2),
                residuals_by_kind={
                    kind: residuals_from(ratio[kinds == kind], int((kinds == kind).sum()) // 2)
                    for kind in sorted(set(kinds))
                },
                date=date.today().isoformat(),
            )
        (folder / f"{name}.toml").write_text(era_text(written), encoding="utf-8")


if __name__ == "__main__":
    main()
