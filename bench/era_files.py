"""Write the file of an era."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from melange.replica.era import Era, Residuals

Array = npt.NDArray[np.float64]

# Sources of the eras that bench/calibrate.py fits; bench/public_eras.py takes those of others from its runs.
MEASURED_BY = {
    "vllm-1": ("inferencex",),
    "sglang": ("inferencex",),
    "trtllm": ("inferencex",),
    "trtllm-1.0": ("inferencex",),
    "trtllm-offline": ("tensorrt-llm",),
    "vllm-0.2": ("melange-draft",),
}


def residuals_from(log_ratio: Array, points: int) -> Residuals:
    """10 % and 90 % quantile and median error, from logarithms of measured over predicted step times."""
    low, high = np.exp(np.quantile(log_ratio, (0.1, 0.9)))
    error = float(np.median(np.abs(np.exp(-log_ratio) - 1)))
    return Residuals(
        low=round(min(low, 0.99), 3), high=round(max(high, 1.01), 3), median_error=round(error, 3), points=points
    )


def era_text(era: Era, writer: str = "bench/calibrate.py and bench/public_eras.py") -> str:
    """The text of an era's file."""
    lines = [f"# Constants of engine era {era.name}, written by {writer}.", "", "[constants]"]
    lines += [f"{name} = {value:.4g}" for name, value in asdict(era.constants).items()]
    releases = asdict(era.releases)
    lines += ["", "[releases]", *(f"{name} = {_toml(value)}" for name, value in releases.items())]
    lines += ["", "[settings]"]
    lines += [f"{name} = {_toml(value)}" for name, value in asdict(era.settings).items() if value is not None]
    lines += [
        "",
        "# Measured over predicted step time, accelerator or model held out: 10 % and 90 % quantile, median error.",
        *_residuals("residuals", era.residuals),
    ]
    for kind, residuals in era.residuals_by_kind.items():
        lines += ["", *_residuals(f"residuals_by_kind.{kind}", residuals)]
    if era.residuals_elsewhere:
        lines += ["", "# The same on accelerators that were not fitted on, from those held out in all eras."]
        lines += _residuals("residuals_elsewhere", era.residuals_elsewhere)
    for name, on in sorted(era.on_class.items()):
        lines += ["", f"# What is otherwise on {name}.", f"[on_class.{name}]", f"slowdown = {on.slowdown:g}"]
        lines += [f"measured_by = {_toml(on.measured_by)}"] if on.measured_by else []
        lines += ["", f"[on_class.{name}.constants]", *(f"{key} = {value:.4g}" for key, value in on.constants.items())]
        if on.residuals:
            lines += ["", *_residuals(f"on_class.{name}.residuals", on.residuals)]
    fitted = {
        name: list(getattr(era, name)) for name in ("accelerators", "architectures", "models", "kinds", "measured_by")
    }
    lines += ["", "[fitted]", *(f"{name} = {_toml(value)}" for name, value in fitted.items())]
    lines += [f"max_tokens = {era.max_tokens}", f"source = {_toml(era.source)}", f"date = {_toml(era.date)}"]
    lines += [f"notes = {_toml(era.notes)}"] if era.notes else []
    return "\n".join(lines) + "\n"


def _residuals(title: str, residuals: Residuals) -> list[str]:
    return [
        f"[{title}]",
        f"low = {residuals.low:.3f}",
        f"high = {residuals.high:.3f}",
        f"median_error = {residuals.median_error:.3f}",
        f"points = {residuals.points}",
    ]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"
