"""Hold out whole sources and architectures, and estimate the necessary width of intervals from their errors.

    python bench/sources.py MEASURED [--write]

MEASURED is a folder with the files that bench/measured.py and bench/public_points.py read; the script does nothing if
it is missing. Each source in turn is held out of everything that is fitted: constants, classes of hardware, and the
levels of the error model that gives its intervals. Its runs are predicted with eras fitted to the other sources, for
their release and hardware. ``--write`` writes ``src/melange/replica/spread.toml`` and the section of
docs/validation.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

import calibrate
from bursts import Bursts
from measured import read_points
from measured_folder import is_missing, parser_of
from melange.catalog.bundled import accelerators
from melange.replica.era import Era, Residuals, find_era, kind_of
from melange.replica.hardware_class import ROCM, class_of
from melange.replica.spread import DECILE, Spread, spread, widened
from pages import SECTION, percent, table, with_section
from public_eras import MODERN, Fitted, fit_public
from public_points import Run, read_runs, why_left_out
from table import Table

Array = npt.NDArray[np.float64]

ARCHITECTURES = {
    "Ampere": ("Ampere",),
    "Ada": ("Ada",),
    "Hopper": ("Hopper",),
    "Blackwell": ("Blackwell", "Blackwell Ultra"),
}
LEVELS = ("source", "architecture", "kind", "release", "alone")
# Priors: each level is 0.15 within a factor of 1.6, and sources have no common bias.
PRIOR, PRIOR_SPREAD, BIAS_SPREAD = 0.15, 0.5, 0.15
# A common bias of sources is corrected if it is significant at 5 % (half of the chi-squared quantile).
SURE = 1.92
FARTHEST = 1.0  # larger logarithmic errors (a factor of e) are clipped


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """Points of one source with a common error.

    Parameters
    ----------
    name
        Engine, hardware and kind of model, as text.
    source
        Source of the measurements.
    levels
        Properties of the points that were not in the fit.
    known
        Residuals of single points within a source; of 0 points if there are none, with the interval of ignorance.
    log_ratio
        Logarithms of measured over predicted step time (N,), before correction of the common bias of sources.
    """

    name: str
    source: str
    levels: tuple[str, ...]
    known: Residuals
    log_ratio: Array


def groups_without(runs: Sequence[Run], source: str) -> list[Group]:
    """The runs of a source, predicted from the other sources."""
    fitted = fit_public([run for run in runs if run.source != source])
    return _groups(fitted, [run for run in runs if run.source == source], source, is_same_source=False)


def groups_without_architecture(runs: Sequence[Run], name: str) -> list[Group]:
    """The runs on an architecture, predicted from the runs on other architectures."""
    held = ARCHITECTURES[name]
    is_held = [accelerators()[run.accelerator].architecture in held for run in runs]
    fitted = fit_public([run for run, one in zip(runs, is_held, strict=True) if not one])
    mine = [run for run, one in zip(runs, is_held, strict=True) if one]
    found = []
    for source in dict.fromkeys(run.source for run in mine):
        found += _groups(fitted, [run for run in mine if run.source == source], source, is_same_source=True)
    return found


def _groups(fitted: Fitted, runs: Sequence[Run], source: str, *, is_same_source: bool) -> list[Group]:
    """Runs by era, class of hardware and kind of model."""
    listed: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        if not why_left_out(run):
            era = fitted.era_for(run)
            key = (era.name, class_of(accelerators()[run.accelerator]), kind_of(run.model))
            listed.setdefault(key, []).append(run)
    found = []
    for (name, place, kind), some in listed.items():
        era, fact = fitted.era_for(some[0]), accelerators()[some[0].accelerator]
        is_fitted = name in MODERN or bool(era.accelerators)
        known = era.known_of(some[0].model, fact) if is_fitted else spread().ignorance
        if name not in MODERN and known.points:
            elsewhere = find_era("vllm-1").residuals_elsewhere
            known = elsewhere if elsewhere and place != ROCM else known
        unseen = era.unseen(some[0].model, fact)
        levels = [level for level in unseen if not (is_same_source and level in {"source", "alone"})]
        ratio = np.concatenate([_log_ratio(run, era) for run in some])
        words = f"{some[0].engine if name not in MODERN else name}, {place}, {kind}"
        found.append(Group(name=words, source=source, levels=tuple(levels), known=known, log_ratio=ratio))
    return found


def _log_ratio(run: Run, era: Era) -> Array:
    """Logarithm of measured over predicted time, before correction of the common bias of sources (1,)."""
    fact = accelerators()[run.accelerator]
    on_class = era.slowdown(run.model, fact) / (1.0 if era.is_known(run.model, fact) else spread().slowdown)
    return Bursts([run], era).log_ratio(era.constants_on(fact)) - math.log(on_class)


def sweeps_without_architecture(folder: Path, name: str) -> list[Group]:
    """The sweeps on an architecture, predicted with constants fitted without it."""
    known = {one: find_era(one) for one in MODERN}
    points = {one: read_points(folder, one).points for one in MODERN}
    held = ARCHITECTURES[name]
    rest = {
        one: [point for point in listed if accelerators()[point.accelerator].architecture not in held]
        for one, listed in points.items()
    }
    constants = calibrate.fit_all(known, rest)
    found = []
    for one, listed in points.items():
        for kind in sorted({kind_of(point.model) for point in listed}):
            mine = [
                point
                for point in listed
                if accelerators()[point.accelerator].architecture in held and kind_of(point.model) == kind
            ]
            seen = [point for point in rest[one] if kind_of(point.model) == kind]
            if mine:
                levels = ("architecture",) if seen else ("architecture", "kind")
                ratio = Table(mine, known[one]).log_ratio(constants[one])
                residuals = known[one].residuals_by_kind[kind]
                found.append(
                    Group(
                        name=f"{one}, {kind}", source=f"sweeps, {name}", levels=levels, known=residuals, log_ratio=ratio
                    )
                )
    return found


def estimated(groups: Iterable[Group]) -> Spread:
    """The most likely levels, given their priors."""
    counted = [group for group in groups if group.known.points]
    best = np.array([0.0, *[math.log(PRIOR)] * len(LEVELS)])
    value, step = _improbable(best, counted), 0.3
    while step > 0.01:  # a pattern search, since this is a smooth function of five numbers
        before = value
        for axis in np.eye(len(best)):
            for trial in (best + step * axis, best - step * axis):
                found = _improbable(trial, counted)
                if found < value:
                    best, value = trial, found
        if not value < before:
            step /= 2
    without = np.array([0.0, *best[1:]])
    if _improbable(without, counted) - value < SURE:
        best = without
    levels = dict(zip(LEVELS, np.exp(best[1:]).round(3).tolist(), strict=True))
    return Spread(**levels, slowdown=round(math.exp(best[0]), 3), ignorance=spread().ignorance)


def _improbable(values: Array, groups: Sequence[Group]) -> float:
    """Negative log posterior: points are normal around their group's mean, group means around the common bias."""
    bias, logs = values[0], values[1:]
    total = (bias / BIAS_SPREAD) ** 2 / 2 + float((((logs - math.log(PRIOR)) / PRIOR_SPREAD) ** 2).sum() / 2)
    variance_by_level = dict(zip(LEVELS, np.exp(2 * logs).tolist(), strict=True))
    for group in groups:
        shift = bias if set(group.levels) - {"source"} or group.levels else 0.0
        apart = np.clip(group.log_ratio - shift, -FARTHEST, FARTHEST)
        within = max(point_deviation(group.known) ** 2, float(apart.var()))
        between = sum(variance_by_level[level] for level in group.levels)
        count, mean = len(apart), float(apart.mean())
        # The mean of a group is a sufficient statistic for the common error of its points.
        variance = within / count + between
        total += 0.5 * (math.log(variance) + mean**2 / variance)
    return total


def point_deviation(known: Residuals) -> float:
    """Standard deviation of the logarithm of residuals."""
    return math.log(known.high / known.low) / (2 * DECILE)


def inside(group: Group, levels: Spread) -> npt.NDArray[np.bool_]:
    """Mask of the points within their interval (N,)."""
    known = group.known
    interval = widened(known, levels.deviation(group.levels)) if known.points else known
    ratio = group.log_ratio - math.log(levels.slowdown if group.known.points else 1.0)
    return np.asarray((math.log(interval.low) <= ratio) & (ratio <= math.log(interval.high)))


def coverage_without(
    level: str, left_out: Mapping[str, Sequence[Group]], everything: Sequence[Group]
) -> dict[str, float]:
    """Share of the points of each left-out source within their interval if the model of errors lacks a level."""

    def lacking(groups: Iterable[Group]) -> list[Group]:
        return [replace(group, levels=tuple(one for one in group.levels if one != level)) for group in groups]

    found = {}
    for source, groups in left_out.items():
        levels = estimated(lacking(group for group in everything if group.source != source))
        found[source] = float(np.concatenate([inside(group, levels) for group in lacking(groups)]).mean())
    return found


def error(log_ratio: Array) -> Array:
    """Relative error of predicted rates, which are the inverse of times."""
    return np.abs(np.exp(log_ratio) - 1)


def row_of(name: str, what: str, groups: Sequence[Group], levels: Sequence[Spread]) -> list[str]:
    """A row with points, median error, bias and coverage of some groups."""
    ratio = np.concatenate(
        [
            group.log_ratio - math.log(one.slowdown if group.known.points else 1.0)
            for group, one in zip(groups, levels, strict=True)
        ]
    )
    covered = np.concatenate([inside(group, one) for group, one in zip(groups, levels, strict=True)])
    bias = math.exp(np.median(ratio))
    return [name, what, f"{len(ratio)}", percent(np.median(error(ratio))), f"{bias:.2f}", percent(covered.mean())]


def section(
    left_out: Mapping[str, Sequence[Group]], architectures: Mapping[str, Sequence[Group]], final: Spread
) -> str:
    """The section of docs/validation.md."""
    everything = [group for groups in (*left_out.values(), *architectures.values()) for group in groups]
    rows: list[list[str]] = []
    all_groups: list[Group] = []
    all_levels: list[Spread] = []
    for source, groups in left_out.items():
        levels = estimated([group for group in everything if group.source != source])
        rows += [row_of(source, group.name, [group], [levels]) for group in groups]
        rows.append(row_of(f"**{source}**", "all", groups, [levels] * len(groups)))
        all_groups += groups
        all_levels += [levels] * len(groups)
    rows.append(row_of("**all sources**", "", all_groups, all_levels))
    known = [place for place, group in enumerate(all_groups) if group.known.points]
    rows.append(
        row_of("**all with a measured era**", "", [all_groups[k] for k in known], [all_levels[k] for k in known])
    )
    heads = ["held-out source", "era, hardware, kind", "points", "median error", "predicted / measured", "inside"]
    by_source = table(heads, rows, numbers=4)
    rows = []
    for name, groups in architectures.items():
        levels = estimated([group for group in everything if group not in groups])
        rows.append(row_of(name, "", groups, [levels] * len(groups)))
    heads[0], heads[1] = "held-out architecture", ""
    by_architecture = table(heads, rows, numbers=4)
    words = ", ".join(f"{level} {getattr(final, level):.2f}" for level in LEVELS)
    shares = coverage_without("alone", left_out, everything)
    return WORDS.format(
        heading=SECTION, sources=by_source, architectures=by_architecture, levels=words,
        bias=UNBIASED if final.slowdown == 1.0 else BIASED.format(final.slowdown),
        low=final.ignorance.low, high=final.ignorance.high,
        without=", ".join(f"{source} {percent(share)}" for source, share in shares.items()),
    )  # fmt: skip


UNBIASED = "Held-out sources have no significant common bias, so the middle is not corrected."
BIASED = (
    "Steps that are not wholly among what was measured take {:.2f} times as long, as left-out sources have in common."
)
WORDS = """{heading}

`python bench/sources.py MEASURED` writes this section. The other tables hold out an accelerator or a model and keep its
source. Here a whole source is held out: its runs are predicted with constants, classes of hardware and interval widths
from the other sources alone. Every run is finite (a batch, a burst, one request at a time) and is predicted as it was
run: the sizes determine which requests share a step. Errors are those of rates. *Inside*: share within the 80 %
interval; the goal is 75-85 %.

{sources}

Held-out architectures, with their source kept:

{architectures}

Intervals combine levels: standard deviations of the logarithm of the step time for each thing without measurements
({levels}). Each adds its variance to that of
single points. Every user is a new source.
*Alone*: an era that a single source measured, because its constants include the error of that source.
{bias}
Hardware and releases without an era get {low:g} to {high:g} times the step of the nearest era.

- Eras are divided where release notes report a change: vLLM at 0.8.0 (V1 became the default engine), its ROCm version
  at 0.6.2 (paged attention for AMD). The division into eras was made with all runs known; constants and widths were
  fitted without the held-out ones. vLLM 0.4 to 0.7 is one era on NVIDIA: constants from either of its two sources
  predict the other with 2 to 7 % bias. The two AMD sources differ in kernels: a held-out one falls back on 1.5 times
  the steps of NVIDIA.
- Kept, because held-out errors improved: sampling time by vocabulary (`t_logit`; vLLM of 2024, held-out models 9.0 % to
  7.7 %), classes of hardware (vLLM 0.7.3, held-out GPUs 13.8 % to 11.4 %, PCIe between consumer GPUs 23 % to 16 %).
- Dropped, because they did not improve: host time by tensor parallelism, unpacking of 8-bit weights (as fast as the
  product itself), other host times on consumer GPUs. A front end of 30 us per token under vLLM 1 changes no figure,
  because completions of these bursts are short.
- Kept, because held-out accelerators, models and sources are predicted better: padding of the tiles of routed experts,
  kernels that quantize inputs (vLLM 1), and a limit of 0.6 for attention over prompts in the newer engines. With the
  GPUStack lab held out, its mixtures under vLLM improved from 47.0 % (1.47) to 29.6 % (1.28).
  [The performance model](performance-model.md#mixtures-and-long-prompts) has all variants.
- Kept: the level *alone*, because left-out coverage is closer to 80 % for each source that it concerns. When the lab is
  left out, nothing but the level's prior is known. Without the level, these shares would be inside:
  {without}.
- Missed: the lab's mixtures in bf16 or fp8 on an A100 take 1.2 to 1.7 times as long as predicted (GLM-4.5-Air with
  128-token prompts 2.3), and a dense model in blockwise fp8 under TensorRT-LLM 1.0 1.8 times. No common cost per
  request explains this: relative to predictions, bursts of 128-token prompts are as slow as those of 2,000 tokens or
  faster, except for GLM-4.5-Air (1.5 times) and Qwen3-235B (1.15 times). TensorRT-LLM of 2024 with a mixture is faster
  than predicted, partly faster than its weights allow, because identical prompts choose the same experts.
- Not counted: runs faster than their weights can be read or multiplied (completions ended early, or identical prompts
  with a mixture), weights without kernels on AMD, one row given for two accelerators.
"""


def levels_text(found: Spread) -> str:
    """The text of spread.toml."""
    lines = ["# Levels of the model of errors, written by bench/sources.py.", "", "[levels]"]
    lines += [f"{name} = {getattr(found, name):g}" for name in (*LEVELS, "slowdown")]
    unknown = found.ignorance
    lines += [
        "",
        "# Measured over predicted where no era stands for the engine or the hardware: a judgment.",
        "[ignorance]",
    ]
    lines += [f"{name} = {getattr(unknown, name):g}" for name in ("low", "high", "median_error", "points")]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Hold out, estimate and print; with ``--write``, also write the files."""
    parser = parser_of(__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if is_missing(arguments.measured):
        return
    runs = read_runs(arguments.measured)
    left_out = {source: groups_without(runs, source) for source in dict.fromkeys(run.source for run in runs)}
    architectures = {}
    for name in ARCHITECTURES:
        on_runs = groups_without_architecture(runs, name)
        architectures[name] = on_runs + sweeps_without_architecture(arguments.measured, name)
    final = estimated([group for groups in (*left_out.values(), *architectures.values()) for group in groups])
    text = section(left_out, architectures, final)
    print(text)
    if arguments.write:
        write(text, final)


def write(text: str, final: Spread) -> None:
    """Write the section of docs/validation.md, and spread.toml."""
    root = Path(__file__).parents[1]
    (root / "src" / "melange" / "replica" / "spread.toml").write_text(levels_text(final), encoding="utf-8")
    page = root / "docs" / "validation.md"
    page.write_text(with_section(page.read_text(encoding="utf-8"), text + "\n"), encoding="utf-8")


if __name__ == "__main__":
    main()
