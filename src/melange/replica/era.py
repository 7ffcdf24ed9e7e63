"""Engine eras: the small constants of step times, engine limits, and how wrong they were where they were fitted.

Constants do not carry over between eras of an engine, so each has a file of its own in ``constants/``.
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
    """What an engine gets out of the hardware, and what its host adds.

    Parameters
    ----------
    mbu, mba
        Share of peak memory bandwidth that reading weights reaches, and reading the KV cache, 0-1.
    mfu, mfu_fp8, mfu_fp4, mfu_attention
        Share of peak dense arithmetic that linear layers reach in 16 bits, in 8 and in 4, and attention over a prompt,
        0-1.
    mfu_experts
        Share of those that routed experts reach, whose products are smaller, 0-1.
    mba_latent
        Share of peak memory bandwidth that reading a latent KV cache reaches, 0-1.
    t_step_s, t_layer_s, t_sequence_s, t_request_s
        Host work of a step, of each layer in it, of each running request in it, of each request once [s].
    t_stream_s
        What the server's front end takes to hand one token on, beside the engine; 0 where none was seen to limit [s].
    t_moe_layer_s, t_latent_layer_s
        What a layer takes longer if it routes tokens to experts, or projects a latent KV cache: more and smaller
        kernels [s].
    t_logit_s
        What sampling takes for each entry of the vocabulary and each running request; not divided among accelerators
        [s].
    mfu_int4
        Share of ``mfu`` that products reach whose weights are unpacked from 4-bit integers on the way, 0-1.
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
    mfu_int4: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnClass:
    """What holds on a class of hardware instead of what holds in general.

    Parameters
    ----------
    constants
        Values of constants that are others there, by name.
    slowdown
        Times that steps take what constants say.
    residuals
        How wrong step times were there; of 0 points where nothing was measured; None: as in general.
    """

    constants: Mapping[str, float] = field(default_factory=dict)
    slowdown: float = 1.0
    residuals: Residuals | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Era:
    """One engine in one period of its life.

    Parameters
    ----------
    name
        ``vllm-0.2``, ``vllm-0.5``, ``vllm-0.7``, ``vllm-1`` (0.8 and later), ``sglang``, ``trtllm`` (1.1 and later),
        ``trtllm-1.0``, ``trtllm-offline``, ``trtllm-0.10``.
    constants, settings, residuals
        What the engine gets out of the hardware, its memory rule and limits, and how wrong predicted step times were.
    residuals_by_kind
        The same for each kind of model that was fitted on.
    residuals_elsewhere
        What an accelerator can expect that the era was not fitted on: the same of accelerators held out in all eras,
        each counting as much as another.
    releases
        Which releases of the engine it stands for.
    release
        The one that was asked for; empty: none in particular.
    is_covered
        Whether the era stands for that release, rather than being the nearest one.
    on_class
        What is otherwise on a class of hardware (:mod:`~melange.replica.hardware_class`).
    accelerators, architectures, models
        Names that the constants were fitted on; anything else is extrapolation.
    kinds
        Kinds of models that they were fitted on: ``dense``, ``moe``, ``latent`` (multi-head latent attention).
    max_tokens
        Longest prompt plus completion that they were fitted on [tokens].
    source, date
        Where the measurements come from, and when the constants were fitted.
    notes
        What deserves a word.
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
    source: str = ""
    date: str = ""
    notes: str = ""

    def constants_on(self, accelerator: Accelerator) -> Constants:
        """The constants on an accelerator: the general ones, but for what its class or architecture has otherwise."""
        on = self._on(accelerator)
        return replace(self.constants, **on.constants) if on and on.constants else self.constants

    def residuals_of(self, model: Model, accelerator: Accelerator | str) -> Residuals:
        """How far steps of a deployment that nobody has measured may be from predicted ones: an 80 % interval.

        What was found of such models and accelerators (:meth:`known_of`), and wider for all that is not known of this
        deployment (:meth:`unseen`). Where nothing was measured that is alike, the interval of ignorance.
        """
        fact = _fact_of(accelerator)
        known = self.known_of(model, fact)
        return widened(known, spread().deviation(self.unseen(model, fact))) if known.points else known

    def known_of(self, model: Model, accelerator: Accelerator) -> Residuals:
        """What was found within the sources that were measured; of 0 points where nothing was.

        Of that kind of model, or of all where none was fitted on; on an accelerator that was not fitted on, no less
        wide than on accelerators held out.
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
        """What of a deployment is not among what was measured: levels of :class:`~melange.replica.spread.Spread`.

        ``source`` always counts: every user is a new source.
        """
        levels = ["source"]
        if accelerator.architecture not in self.architectures:
            levels.append("architecture")
        if kind_of(model) not in self.kinds:
            levels.append("kind")
        if self.release and not self.releases.is_measured(self.release):
            levels.append("release")
        return tuple(levels)

    def slowdown(self, model: Model, accelerator: Accelerator) -> float:
        """Times that steps take what the constants say.

        On a class of hardware that was not measured; and, where not all of a deployment is among what was measured,
        what sources that were left out of fits have in common.
        """
        on = self._on(accelerator)
        return (on.slowdown if on else 1.0) * (1.0 if self.is_known(model, accelerator) else spread().slowdown)

    def is_known(self, model: Model, accelerator: Accelerator) -> bool:
        """Whether all of a deployment but its owner is among what was measured."""
        return accelerator.name in self.accelerators and self.unseen(model, accelerator) == ("source",)

    def _on(self, accelerator: Accelerator) -> OnClass | None:
        return self.on_class.get(class_of(accelerator)) or self.on_class.get(accelerator.architecture)

    @property
    def ships_prefix_caching(self) -> bool:
        """Whether the release caches prefixes unless it is told not to; of an era that has ended, its first one."""
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
    """``dense``, ``moe``, ``latent`` or ``hybrid``: what the constants of an era are fitted for apart.

    No era was fitted on hybrids, whose layers keep a state, so far.
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
    """The era of that name, the one of a release, or the newest of an engine.

    Raises
    ------
    InputError
        For a name that is not known, with the nearest ones; for a release that is none.

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
    shipped.pop("is_prefix_caching", None)  # whether it is used depends on the traffic as well
    era = replace(_era_named(chosen), release=release, is_covered=is_covered)
    return era.with_settings(**shipped) if shipped else era


@cache
def _era_named(name: str) -> Era:
    """The era of a file."""
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
            )
            for one, on in content.get("on_class", {}).items()
        },
        accelerators=tuple(fitted["accelerators"]),
        architectures=tuple(fitted["architectures"]),
        models=tuple(fitted["models"]),
        kinds=tuple(fitted["kinds"]),
        max_tokens=fitted["max_tokens"],
        source=fitted["source"],
        date=fitted["date"],
        notes=fitted.get("notes", ""),
    )


def _fact_of(accelerator: Accelerator | str) -> Accelerator:
    """An accelerator, or the bundled one of that name."""
    if isinstance(accelerator, Accelerator):
        return accelerator
    from melange.catalog.bundled import accelerators

    return accelerators()[accelerator]
