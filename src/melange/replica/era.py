"""Engine eras: the small constants of step times, engine limits, and the errors on the data of the fit.

Constants differ between eras of an engine, so each era has its own file in ``constants/``.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from typing import Any

from melange.catalog.accelerator import Accelerator
from melange.catalog.model import Model
from melange.errors import unknown
from melange.replica.engine_defaults import shipped_settings
from melange.replica.engine_settings import EngineSettings
from melange.replica.hardware_class import DATACENTER, class_of
from melange.replica.releases import NO_RELEASES, Releases, era_of_release, pinned
from melange.replica.spread import Residuals, spread, widened

__all__ = ["Constants", "EngineSettings", "Era", "OnClass", "Residuals", "eras", "find_era", "kind_of"]

DEFAULT_ENGINE = "vllm"
ERA_BY_ALIAS = {"vllm": "vllm-1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """The share of the hardware's performance that an engine reaches, and the time that its host adds.

    Parameters
    ----------
    mbu, mba
        Share of peak memory bandwidth reached when reading weights, and when reading the KV cache, 0-1.
    mfu, mfu_fp8, mfu_fp4, mfu_attention
        Share of peak dense arithmetic reached by linear layers in 16 bits, in 8 and in 4, and by attention over a
        prompt, 0-1.
    mfu_experts
        Share of these that routed experts reach, whose products are smaller, 0-1.
    mba_latent
        Share of peak memory bandwidth reached when reading a latent KV cache, 0-1.
    t_step_s, t_layer_s, t_sequence_s, t_request_s
        Host time per step, per layer of a step, per running request of a step, and once per request [s].
    t_stream_s
        Time of the server's front end to send one token, in parallel to the engine; 0 if it was never the limit [s].
    t_moe_layer_s, t_latent_layer_s
        Additional time of a layer that routes tokens to experts, or that projects a latent KV cache: more and smaller
        kernels [s].
    expert_padding
        Empty part of the tiles of tokens that a routed expert with tokens computes [tokens].
    t_quantize_layer_s
        Additional time of a layer if activations are quantized for experts in fp8: separate kernels [s].
    t_logit_s
        Sampling time per entry of the vocabulary and running request; not divided among accelerators [s].
    mfu_int4
        Share of ``mfu`` reached by products whose weights are unpacked from 4-bit integers, 0-1.
    link_latency_s, pcie_latency_s
        Latency of one all-reduce over the accelerators' own link, and over PCIe [s].
    link_efficiency, pcie_efficiency
        Share of the link's bandwidth that an all-reduce reaches, 0-1.
    """

    mbu: float
    mba: float
    mba_latent: float
    mfu: float
    mfu_fp8: float
    mfu_fp4: float
    mfu_experts: float
    mfu_attention: float
    t_step_s: float
    t_layer_s: float
    t_moe_layer_s: float
    t_latent_layer_s: float
    t_sequence_s: float
    t_request_s: float
    t_stream_s: float
    link_latency_s: float
    pcie_latency_s: float
    link_efficiency: float
    pcie_efficiency: float
    t_logit_s: float = 0.0
    t_quantize_layer_s: float = 0.0
    expert_padding: float = 0.0
    mfu_int4: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnClass:
    """Values for a class of hardware that replace the general ones.

    Parameters
    ----------
    constants
        Constants with other values on this class, by name.
    slowdown
        Factor on step times.
    residuals
        Errors of step times on this class; of 0 points if nothing was measured; None: the general ones.
    measured_by
        Sources of these measurements; empty: those of the era.
    """

    constants: Mapping[str, float] = field(default_factory=dict)
    slowdown: float = 1.0
    residuals: Residuals | None = None
    measured_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """One engine in one period of its development.

    Parameters
    ----------
    name
        ``vllm-0.2``, ``vllm-0.5``, ``vllm-0.7``, ``vllm-1`` (0.8 and later), ``sglang``, ``trtllm`` (1.1 and later),
        ``trtllm-1.0``, ``trtllm-offline``, ``trtllm-0.10``.
    constants, settings, residuals
        The engine's use of the hardware, its memory rule and limits, and the errors of predicted step times.
    residuals_by_kind
        These errors for each kind of model in the fit.
    residuals_elsewhere
        Errors to expect on an accelerator that was not in the fit: those of accelerators held out in all eras, each
        with equal weight.
    releases
        The releases of the engine that belong to the era.
    release
        The requested release; empty: none in particular.
    is_covered
        Whether the era includes this release, or is merely the nearest one.
    on_class
        Other values on a class of hardware (:mod:`~melange.replica.hardware_class`).
    accelerators, architectures, models
        Names of those in the fit of the constants; anything else is extrapolation.
    kinds
        Kinds of models in the fit: ``dense``, ``moe``, ``latent`` (multi-head latent attention).
    max_tokens
        Longest prompt plus completion in the fit [tokens].
    measured_by
        Short names of the sources in the fit.
    source, date
        Source of the measurements in words, and date of the fit.
    notes
        Remarks.
    """

    name: str
    constants: Constants
    settings: EngineSettings
    residuals: Residuals
    residuals_by_kind: Mapping[str, Residuals] = field(default_factory=dict)
    residuals_elsewhere: Residuals | None = None
    releases: Releases = NO_RELEASES
    release: str = ""
    is_covered: bool = True
    on_class: Mapping[str, OnClass] = field(default_factory=dict)
    accelerators: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    max_tokens: int = 0
    measured_by: tuple[str, ...] = ()
    source: str = ""
    date: str = ""
    notes: str = ""

    def constants_on(self, accelerator: Accelerator) -> Constants:
        """The constants on an accelerator: the general ones, unless its class or architecture has other values."""
        on = self._on(accelerator)
        return replace(self.constants, **on.constants) if on and on.constants else self.constants

    def residuals_of(self, model: Model, accelerator: Accelerator | str) -> Residuals:
        """Likely ratio of actual to predicted step times of a deployment that was not measured: an 80 % interval.

        The errors for such models and accelerators (:meth:`known_of`), widened for everything unknown about this
        deployment (:meth:`unseen`). If nothing similar was measured, it is the interval of ignorance.
        """
        fact = _fact_of(accelerator)
        known = self.known_of(model, fact)
        return widened(known, spread().deviation(self.unseen(model, fact))) if known.points else known

    def known_of(self, model: Model, accelerator: Accelerator) -> Residuals:
        """The errors within the measured sources; of 0 points if nothing was measured.

        They are those of this kind of model, or of all kinds if this kind was not in the fit; for an accelerator that
        was not in the fit, the interval is at least as wide as for held-out accelerators.
        """
        on = self._on(accelerator)
        if on and on.residuals:
            return on.residuals
        if not self.is_covered or class_of(accelerator) not in (DATACENTER, *self.on_class):
            return spread().ignorance
        known, other = self.residuals_by_kind.get(kind_of(model), self.residuals), self.residuals_elsewhere
        if other is None or accelerator.name in self.accelerators:
            return known
        return Residuals(
            low=min(known.low, other.low),
            high=max(known.high, other.high),
            median_error=max(known.median_error, other.median_error),
            points=known.points,
        )

    def unseen(self, model: Model, accelerator: Accelerator) -> tuple[str, ...]:
        """Properties of a deployment that were not measured: levels of :class:`~melange.replica.spread.Spread`.

        ``source`` is always included: every user is a new source.
        """
        levels = ["source"]
        if accelerator.architecture not in self.architectures:
            levels.append("architecture")
        if kind_of(model) not in self.kinds:
            levels.append("kind")
        if self.release and not self.releases.is_measured(self.release):
            levels.append("release")
        on = self._on(accelerator)
        if len(on.measured_by if on and on.measured_by else self.measured_by) < 2:
            levels.append("alone")
        return tuple(levels)

    def slowdown(self, model: Model, accelerator: Accelerator) -> float:
        """Factor on the step times that the constants give.

        It covers classes of hardware that were not measured. If any property of the deployment was not measured, it
        also covers the common error of sources that were left out of fits.
        """
        on = self._on(accelerator)
        return (on.slowdown if on else 1.0) * (1.0 if self.is_known(model, accelerator) else spread().slowdown)

    def is_known(self, model: Model, accelerator: Accelerator) -> bool:
        """Whether all properties of a deployment, except its owner, were measured."""
        return accelerator.name in self.accelerators and set(self.unseen(model, accelerator)) <= {"source", "alone"}

    def _on(self, accelerator: Accelerator) -> OnClass | None:
        return self.on_class.get(class_of(accelerator)) or self.on_class.get(accelerator.architecture)

    @property
    def ships_prefix_caching(self) -> bool:
        """Whether the release caches prefixes by default; for an era that has ended, whether its first release does."""
        release = self.release or (self.releases.first or "0" if self.releases.before else "")
        return bool(shipped_settings(self.releases.engine, release).get("is_prefix_caching"))

    def with_settings(self, **settings: Any) -> Era:
        """The same era with other engine settings.

        >>> find_era("vllm").with_settings(max_sequences=64).settings.max_sequences
        64
        """
        for name in ("max_sequences", "max_batched_tokens"):
            if name in settings:
                settings.setdefault(f"large_{name}", 0)
        return replace(self, settings=replace(self.settings, **settings))


def kind_of(model: Model) -> str:
    """``dense``, ``moe``, ``latent`` or ``hybrid``: the kinds of models for which eras are fitted separately.

    So far, no era was fitted on hybrids, whose layers keep a state.
    """
    if model.state_bytes():
        return "hybrid"
    if model.kv_lora_rank:
        return "latent"
    return "moe" if model.experts else "dense"


def eras() -> tuple[str, ...]:
    """Names of all bundled eras.

    >>> eras()
    ('sglang', 'trtllm', 'trtllm-0.10', 'trtllm-1.0', 'trtllm-offline', 'vllm-0.2', 'vllm-0.5', 'vllm-0.7', 'vllm-1')
    """
    folder = resources.files("melange.replica") / "constants"
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


@cache
def find_era(engine: str) -> Era:
    """The era with this name, the era of a release, or the newest era of an engine.

    Raises
    ------
    InputError
        The name is unknown (the error gives the nearest names), or the text is not a release.

    Examples
    --------
    >>> [find_era(engine).name for engine in ("vllm", "vllm==0.6.4", "vllm==0.11", "trtllm==0.15")]
    ['vllm-1', 'vllm-0.7', 'vllm-1', 'trtllm-offline']
    """
    name, release = pinned(engine)
    if not release:
        name = ERA_BY_ALIAS.get(name, name)
        if name not in eras():
            raise unknown("engine", engine, (*eras(), *ERA_BY_ALIAS), place="engine")
        return _era_named(name)
    every = [(era, _era_named(era).releases) for era in eras()]
    listed = [(era, releases) for era, releases in every if releases.engine == name]
    if not listed:
        raise unknown("engine", name, sorted({releases.engine for _, releases in every}), place="engine")
    chosen, is_covered = era_of_release(release, listed)
    shipped = shipped_settings(name, release)
    shipped.pop("is_prefix_caching", None)  # its use depends on the traffic as well
    era = replace(_era_named(chosen), release=release, is_covered=is_covered)
    return era.with_settings(**shipped) if shipped else era


@cache
def _era_named(name: str) -> Era:
    """The era in a file."""
    text = (resources.files("melange.replica") / "constants" / f"{name}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    fitted, found = content["fitted"], content["releases"]
    return Era(
        name=name,
        constants=Constants(**{name: float(value) for name, value in content["constants"].items()}),
        settings=EngineSettings(**content["settings"]),
        residuals=Residuals(**content["residuals"]),
        residuals_by_kind={kind: Residuals(**of_kind) for kind, of_kind in content["residuals_by_kind"].items()},
        residuals_elsewhere=Residuals(**content["residuals_elsewhere"]) if "residuals_elsewhere" in content else None,
        releases=Releases(**(found | {"measured": tuple(found.get("measured", ()))})),
        on_class={
            one: OnClass(
                constants={key: float(value) for key, value in on.get("constants", {}).items()},
                slowdown=float(on.get("slowdown", 1.0)),
                residuals=Residuals(**on["residuals"]) if "residuals" in on else None,
                measured_by=tuple(on.get("measured_by", ())),
            )
            for one, on in content.get("on_class", {}).items()
        },
        accelerators=tuple(fitted["accelerators"]),
        architectures=tuple(fitted["architectures"]),
        models=tuple(fitted["models"]),
        kinds=tuple(fitted["kinds"]),
        max_tokens=fitted["max_tokens"],
        measured_by=tuple(fitted.get("measured_by", ())),
        source=fitted["source"],
        date=fitted["date"],
        notes=fitted.get("notes", ""),
    )


def _fact_of(accelerator: Accelerator | str) -> Accelerator:
    """An accelerator, or the bundled one with this name."""
    if isinstance(accelerator, Accelerator):
        return accelerator
    from melange.catalog.bundled import accelerators

    return accelerators()[accelerator]
