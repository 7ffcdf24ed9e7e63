"""Errors of the shipped estimates on public benchmarks, each simulated as it was run.

    python bench/public_runs.py MEASURED [--by source|accelerator|model|all]

MEASURED is a folder with ``public_benchmarks.csv``; the script does nothing if it is missing. All requests of a run are
sent at once (or one at a time) to a simulated replica with the era of the run's release and its hardware. The constants
were fitted to these same runs; ``bench/sources.py`` holds out sources.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_type_hints

import numpy as np

from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators
from melange.replica.engine import Engine, engines_of
from melange.replica.era import Residuals, find_era, kind_of
from melange.replica.hardware import Hardware, replicas_of
from melange.replica.hardware_class import class_of
from melange.replica.policy_state import Ints, PolicyState
from melange.replica.simulated.cluster import play
from pages import percent, table
from public_points import Run, read_runs, why_left_out


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Judged:
    """A run with its predicted output tokens per second, and the interval of measured over predicted steps."""

    run: Run
    predicted: float
    residuals: Residuals

    @property
    def ratio(self) -> float:
        """Predicted over measured rate, which equals measured over predicted time."""
        return self.predicted / self.run.measured

    @property
    def is_inside(self) -> bool:
        """Whether the run is within the 80 % interval."""
        return self.residuals.low <= self.ratio <= self.residuals.high


def engine_of(run: Run) -> tuple[Engine | None, Residuals]:
    """The engine for predicting a run; None if the weights do not fit."""
    era, facts = find_era(run.engine).with_settings(max_context=10**6), accelerators()
    hardware = Hardware(accelerator=run.accelerator, tensor_parallel=run.tensor_parallel, is_pcie=run.is_pcie)
    residuals = era.residuals_of(run.model, facts[run.accelerator])
    replicas = replicas_of(run.model, [hardware], facts, era)
    (engine,) = engines_of(replicas, [run.model.kv_shape(run.tensor_parallel)], [residuals], era, "estimated")
    return engine, residuals


def judged(run: Run) -> Judged:
    """Simulate a run."""
    engine, residuals = engine_of(run)
    if engine is None:
        return Judged(run=run, predicted=0.0, residuals=residuals)
    one = {name: np.ones(1, int if kind == Ints else float) for name, kind in get_type_hints(PolicyState).items()}
    empty = {name: np.zeros(1, int) for name in ("type_of", "outstanding")} | {"fill": np.zeros(1)}
    state = PolicyState(**(one | empty | {"turn": np.zeros(2, int)}))
    outcome = play([engine], state, 0, np.zeros(len(run.inputs)), run.inputs, run.outputs)
    if run.is_alone:
        predicted = (run.outputs[0] - 1) / (outcome.finish_s[0] - outcome.first_token_s[0])
    else:
        predicted = run.outputs.sum() / np.nanmax(outcome.finish_s)
    return Judged(run=run, predicted=float(predicted), residuals=residuals)


KEYS: dict[str, Callable[[Run], tuple[str, ...]]] = {
    "all": lambda run: ("all",),
    "source": lambda run: (run.source, run.engine, class_of(accelerators()[run.accelerator]), kind_of(run.model)),
    "accelerator": lambda run: (run.source, run.engine, run.accelerator, "PCIe" if run.is_pcie else "own link"),
    "model": lambda run: (
        run.source,
        run.engine,
        run.accelerator,
        f"{run.tensor_parallel}",
        run.model.name,
        run.model.weight_dtype,
    ),
}


def report(found: Sequence[Judged], key: Callable[[Run], tuple[str, ...]]) -> str:
    """A table of points, median error, bias and coverage by group."""
    groups: dict[tuple[str, ...], list[Judged]] = {}
    for one in found:
        groups.setdefault(key(one.run), []).append(one)
    rows = []
    for name, some in sorted(groups.items()):
        ratio = np.array([max(one.ratio, 1e-9) for one in some])
        covered = np.mean([one.is_inside for one in some])
        median = f"{np.exp(np.median(np.log(ratio))):.2f}"
        rows.append(
            [
                " ".join(name),
                f"{len(some)}",
                percent(float(np.median(np.abs(ratio - 1)))),
                median,
                percent(float(covered)),
            ]
        )
    return table(["", "points", "median error", "predicted / measured", "inside"], rows, numbers=4)


def main() -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--by", choices=sorted(KEYS), default="source")
    arguments = parser.parse_args()
    if is_missing(arguments.measured):
        return
    runs = read_runs(arguments.measured)
    found = [judged(run) for run in runs if not why_left_out(run)]
    print(report(found, KEYS[arguments.by]))
    print()
    print(report(found, KEYS["all"]))
    print(f"{len(runs) - len(found)} runs are left out, because their labels cannot describe them")


if __name__ == "__main__":
    main()
