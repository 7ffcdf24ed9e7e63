"""Errors of TPOT with our step times and with those of aiconfigurator-core, on the measured points that both cover.

    python bench/aiconfigurator.py MEASURED

MEASURED is a folder with ``concurrency_sweeps.csv``, which bench/measured.py reads. The same closed form is used with
both. Our step times were fitted to these points, but aiconfigurator's operators were not, so ours have an advantage.
The script does nothing if the folder or the package is missing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from measured import Point, read_points
from melange.catalog.bundled import accelerators
from melange.profile.aiconfigurator import BACKEND_BY_ERA, is_installed, step_times
from melange.profile.comparison import compare
from melange.profile.measurement import Measurement
from melange.replica.era import Era, find_era, kind_of
from melange.replica.hardware import Hardware, replicas_of

Array = npt.NDArray[np.float64]


def ratios(points: Sequence[Point], era: Era) -> tuple[Array, list[Point], dict[str, int], dict[str, float]]:
    """Measured over predicted TPOT of the points that both cover.

    Returns
    -------
    tuple
        The ratios (2, N), ours first; their points; the number of points that only we cover, by reason; and the
        difference between the fitted coefficients and aiconfigurator's steps, by model and hardware (root mean square
        of the logarithm).
    """
    pairs: list[list[float]] = []
    covered: list[Point] = []
    reasons: dict[str, int] = {}
    misfits: dict[str, float] = {}
    facts = accelerators()
    for model in dict.fromkeys(point.model for point in points):
        ofmodel = [point for point in points if point.model == model]
        hardware = list(dict.fromkeys(_hardware(point) for point in ofmodel))
        tables = step_times(model, hardware, facts, era)
        for one in hardware:
            there = [point for point in ofmodel if _hardware(point) == one]
            if one in tables.reason_by_hardware:
                why = f"{model.name} {model.weight_dtype} {one.accelerator}: {tables.reason_by_hardware[one]}"
                reasons[why] = reasons.get(why, 0) + len(there)
                continue
            name = f"{model.name} {model.weight_dtype} {one.accelerator} x {one.tensor_parallel}"
            misfits[name] = tables.misfit_by_hardware[one]
            ours = replicas_of(model, [one], facts, era)
            theirs = replicas_of(model, [one], facts, era, tables.cost_by_hardware)
            for point in there:
                measurement = Measurement(
                    source="sweep",
                    input_tokens=point.inputs,
                    output_tokens=point.outputs,
                    concurrency=point.concurrency,
                    tpot_s={"mean": point.step_s},
                )
                compared = [compare(replicas, model, measurement) for replicas in (ours, theirs)]
                both = [one for one in compared if one is not None]
                if len(both) == len(compared):
                    pairs.append([measured_s / predicted_s for _, measured_s, predicted_s in both])
                    covered.append(point)
    return np.array(pairs).reshape(-1, 2).T, covered, reasons, misfits


def _hardware(point: Point) -> Hardware:
    is_pcie = point.tensor_parallel > 1 and accelerators()[point.accelerator].link.startswith("PCIe")
    return Hardware(accelerator=point.accelerator, tensor_parallel=point.tensor_parallel, is_pcie=is_pcie)


def report(era: Era, ratio: Array, points: Sequence[Point], reasons: dict[str, int], misfits: dict[str, float]) -> None:
    """Print the errors of both by kind of model, accelerator and model, and the points that are not covered."""
    print(f"\n{era.name}: {len(points)} points covered by both, {sum(reasons.values())} by Melange only")
    worst = max(misfits, key=lambda name: misfits[name])
    print(f"  error of the coefficients fitted to its steps: median {np.median(list(misfits.values())):.1%}", end=", ")
    print(f"largest {misfits[worst]:.1%} ({worst})")
    keys: dict[str, Callable[[Point], str]] = {
        "all": lambda point: "",
        "kind": lambda point: kind_of(point.model),
        "accelerator": lambda point: point.accelerator,
        "model": lambda point: f"{point.model.name} {point.model.weight_dtype}",
    }
    for title, key in keys.items():
        groups = [key(point) for point in points]
        for group in sorted(set(groups)):
            chosen = ratio[:, [one == group for one in groups]]
            print(
                f"  {title:12} {group:36} n {chosen.shape[1]:4}  Melange {_errors(chosen[0])}   "
                f"aiconfigurator {_errors(chosen[1])}"
            )
    for why, count in sorted(reasons.items()):
        print(f"  not covered  {count:4} {why}")


def _errors(ratio: Array) -> str:
    error = np.abs(1 / ratio - 1)
    low, high = np.quantile(ratio, (0.1, 0.9))
    return f"{np.median(error):6.1%} (90 %: {np.quantile(error, 0.9):6.1%}, {low:.2f}-{high:.2f})"


def main() -> None:
    """Compare the points of every engine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path)
    arguments = parser.parse_args()
    if not (arguments.measured / "concurrency_sweeps.csv").exists():
        print(f"skipped: no concurrency_sweeps.csv in {arguments.measured}")
        return
    if not is_installed():
        print("skipped: aiconfigurator-core is not installed; in the clone of Melange: pip install '.[aiconfigurator]'")
        return
    for name in BACKEND_BY_ERA:
        points = [point for point in read_points(arguments.measured, name).points if not point.is_saturated]
        era = find_era(name).with_settings(max_context=10**9)
        report(era, *ratios(points, era))


if __name__ == "__main__":
    main()
