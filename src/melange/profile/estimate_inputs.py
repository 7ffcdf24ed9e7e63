"""The inputs of an estimate as one value, shared by estimates, anchors and measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.catalog.accelerator import Accelerator
from melange.catalog.layers import KvShape
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.catalog.variants import variant_of
from melange.errors import Caution, InfeasibleError, InputError, unknown
from melange.profile.engine_features import SPREAD, check_kv_dtype, check_layouts, drafting_of, kept_on, with_cached
from melange.profile.profile import ReplicaType
from melange.profile.replica_types import Degrees, compared_variants, replica_types_of
from melange.replica.capacity import Replicas, Sizes
from melange.replica.era import DEFAULT_ENGINE, EngineSettings, Era, Residuals, find_era
from melange.replica.hardware import Hardware, hardware_of, kv_tokens_of, replicas_of, settings_on
from melange.replica.layout_cost import widened
from melange.replica.memory import kv_room_bytes, token_layers
from melange.replica.reasons import obstacle
from melange.slo import Slo
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Array, Buckets, Mask, Workload

if TYPE_CHECKING:
    from melange.profile.aiconfigurator import StepTimes

# Sources of step times.
OWN, AICONFIGURATOR = "own", "aiconfigurator"
# Most machines of one replica by default: more would be a replica of 64 accelerators or more.
MOST_MACHINES = 8
# By default, only instances with this many accelerators are joined: smaller ones have slow networks. Chosen by
# judgment.
_LEAST_ACCELERATORS = 4


# Values derived from the inputs that do not depend on the SLO: ``under`` keeps them. Hits of prefix caches do depend.
_WITHOUT_SLO = (
    "era",
    "facts_by_name",
    "planned_sizes",
    "replica_types",
    "hardware",
    "distinct_hardware",
    "tables",
    "replicas_by_hardware",
    "residuals",
    "obstacles",
    "kv_layers",
    "cautions",
)


# No slots: derived values are computed at first use and cached on the instance.
@dataclass(frozen=True, kw_only=True, eq=False)
class EstimateInputs:
    """The inputs of an estimate, and the values derived from them.

    Parameters
    ----------
    model, offers, slo, sizes, engine, tensor_parallel, variants, step_times, accelerators
        As for :func:`~melange.profile.estimate.estimate`.
    settings
        Replacements for the engine's own settings (:class:`~melange.replica.engine_settings.EngineSettings`), by name.
    prefix_routing
        Routing of requests that share a prefix: ``spread`` at random over the replicas of a type, or ``affinity``: all
        to the same one.
    expert_parallel
        Numbers of accelerators that divide the routed experts of a mixture, each a layout to try; None: experts are
        split like other layers.
    pipeline_parallel
        Numbers of stages to try; None: one stage, or, if the model fits on no offered instance, the fewest that fit.
    max_context, min_kv_tokens
        Replacements for two settings of the engine: the longest prompt plus completion, and the least capacity of a
        replica's KV cache [tokens]; None and 0: the engine's own.

    Raises
    ------
    InputError
        A percentile SLO, unknown engines or sources of step times, ordinal buckets. Conflicts of offers, degrees,
        accelerators and variants raise this error when replica types or their hardware are first used.
    """

    model: Model
    offers: Sequence[Offer]
    slo: Slo
    sizes: Workload | Buckets
    engine: str | Era = DEFAULT_ENGINE
    tensor_parallel: Sequence[int] | int | None = None
    variants: Sequence[str] = ()
    step_times: str = OWN
    accelerators: Mapping[str, Accelerator] | None = None
    max_context: int | None = None
    min_kv_tokens: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    prefix_routing: str = SPREAD
    expert_parallel: Sequence[int] | None = None
    pipeline_parallel: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.engine, str):
            find_era(self.engine)
        if not self.slo.has_closed_form:
            raise InputError(
                f"slo.statistic: estimates support limits on the mean only, got {self.slo.statistic}",
                hint="percentiles need simulation: use melange plan, or melange.with_simulated_rates",
            )
        if self.buckets.is_ordinal:
            raise InputError(
                "estimate: the buckets are only numbered, without token counts", hint="set workload.buckets"
            )
        if self.step_times not in (OWN, AICONFIGURATOR):
            known = (OWN, AICONFIGURATOR)
            raise unknown("source of step times", self.step_times, known, place="profile.step_times")

    @cached_property
    def era(self) -> Era:
        """The era of the engine, with the settings that replace its own."""
        era = self.engine if isinstance(self.engine, Era) else find_era(self.engine)
        settings = {"max_context": self.max_context, "min_kv_tokens": self.min_kv_tokens}
        given = dict(self.settings) | {name: value for name, value in settings.items() if value}
        return era.with_settings(**given) if given else era

    def check_context(self) -> None:
        """Check that no request of the workload is longer than the model's context, whatever the accelerator.

        Raises
        ------
        InfeasibleError
            Some requests are longer; the error gives their number and the setting that raises the limit.
        """
        if isinstance(self.sizes, Buckets):
            return
        limit = self.era.settings.max_context or self.model.max_context
        longest = self.planned_sizes.longest[0]
        beyond = (self.sizes.request_rate > 0) & (longest > limit)
        if not beyond.any():
            return
        part = self.sizes.request_rate[beyond].sum() / self.sizes.total_rate
        raise InfeasibleError(
            f"requests of up to {longest[beyond].max():,.0f} tokens ({part:.2%} of all) are longer than the context of "
            f"{self.model.name}, {limit:,} tokens",
            hint="plan for the rest with --drop-unservable; or, if the engine runs with a longer context (RoPE "
            "scaling in config.json: rope_scaling), set profile: {max_context: 131072}",
        )

    @property
    def engine_name(self) -> str:
        """The name of the engine, as given."""
        return self.engine.name if isinstance(self.engine, Era) else self.engine

    @cached_property
    def facts_by_name(self) -> Mapping[str, Accelerator]:
        """Facts by accelerator name."""
        return bundled_accelerators() if self.accelerators is None else self.accelerators

    @property
    def buckets(self) -> Buckets:
        """The grid of sizes."""
        return self.sizes if isinstance(self.sizes, Buckets) else self.sizes.buckets

    @property
    def limits(self) -> Mapping[str, float | Array]:
        """The limits by metric [s]: one for all sizes, or one for the class of each row (I, 1)."""
        return self.slo.limits_of(self.buckets.class_of_rows)

    @cached_property
    def planned_sizes(self) -> Sizes:
        """The sizes that buckets are planned for (1, I, O)."""
        return planned_sizes(self.sizes)

    @property
    def weight(self) -> Array:
        """Relative frequency of each bucket's requests (I, O); all equal if the traffic is unknown."""
        return np.ones(self.buckets.shape) if isinstance(self.sizes, Buckets) else self.sizes.request_rate

    @cached_property
    def replica_types(self) -> tuple[ReplicaType, ...]:
        """The candidate replica types (R)."""
        variants = compared_variants(self.model, self.variants, self.era)
        given = self.tensor_parallel
        tensor = (given,) if isinstance(given, int) else None if given is None else tuple(given)
        experts, stages = tuple(self.expert_parallel or (1,)), tuple(self.pipeline_parallel or (1,))
        check_layouts(self.era, experts, stages)
        degrees = Degrees(tensor=tensor, expert=experts, pipeline=stages)
        found = tuple(replica_types_of(self.model, self.offers, self.engine_name, degrees, variants))
        if self.pipeline_parallel is not None or any(self._fits(one) for one in found):
            return found
        return self._across_instances(degrees, variants) or found

    def _fits(self, one: ReplicaType) -> bool:
        """Whether the model's weights fit in a replica; True if the accelerator is unknown."""
        facts = self.facts_by_name.get(one.offer.accelerator)
        return (
            facts is None
            or kv_room_bytes(variant_of(self.model, one.variant), facts, one.layout, self.era.settings) > 0
        )

    def _holds(self, one: ReplicaType) -> bool:
        """Whether a replica can also hold a request of each size of the traffic."""
        model, facts = variant_of(self.model, one.variant), self.facts_by_name[one.offer.accelerator]
        room = kv_tokens_of(model, facts, one.layout, self.era.settings)
        longest = float(self.planned_sizes.longest[0][wanted_buckets(self.sizes)].max())
        return bool(0 < token_layers(model, np.array(longest), 0.0, one.tensor_parallel) <= room)

    def _across_instances(self, degrees: Degrees, variants: Sequence[str]) -> tuple[ReplicaType, ...]:
        """Replica types that span several instances: for every offer, the fewest on which the model fits."""
        offers = [one for one in self.offers if one.accelerators >= _LEAST_ACCELERATORS]
        found: dict[str, ReplicaType] = {}
        for stages in range(2, 2 * MOST_MACHINES + 1):
            wanted = replace(degrees, expert=(1,), pipeline=(stages,))
            try:
                types = replica_types_of(self.model, offers, self.engine_name, wanted, variants)
            except InputError:
                continue
            for one in types:
                key = f"{one.offer.name} {one.variant}"
                if one.machines <= MOST_MACHINES and key not in found and self._holds(one):
                    found[key] = one
        return tuple(found.values())

    @cached_property
    def hardware(self) -> tuple[Hardware, ...]:
        """The hardware of each replica type (R), with drafts if they increase its capacity."""
        plain = tuple(hardware_of(one.offer, one.layout, self.facts_by_name, one.variant) for one in self.replica_types)
        check_kv_dtype(self.model, plain, self.facts_by_name, self.era)
        if self.era.settings.speculation is None:
            return plain
        drafting = drafting_of(self, tuple(dict.fromkeys(plain)))
        return tuple(replace(one, is_drafting=one in drafting) for one in plain)

    @cached_property
    def distinct_hardware(self) -> tuple[Hardware, ...]:
        """Each hardware once, in the order of replica types."""
        return tuple(dict.fromkeys(self.hardware))

    def under(self, slo: Slo) -> EstimateInputs:
        """The same inputs under another SLO; values that do not depend on it are not computed again."""
        other = replace(self, slo=slo)
        if self.era.settings.speculation is None:  # the benefit of drafts depends on the limits
            other.__dict__.update({name: getattr(self, name) for name in _WITHOUT_SLO})
        return other

    @cached_property
    def replicas_by_hardware(self) -> dict[tuple[Hardware, ...], Replicas]:
        """Cache of :meth:`replicas_on`."""
        return {}

    @cached_property
    def residuals(self) -> tuple[Residuals, ...]:
        """Ratio of measured to predicted step times on each distinct hardware."""
        return tuple(self.residuals_on(one) for one in self.distinct_hardware)

    @cached_property
    def obstacles(self) -> tuple[str, ...]:
        """The reason why a replica on each distinct hardware cannot serve any request; empty if it can."""
        return tuple(self.obstacle_on(one) for one in self.distinct_hardware)

    @cached_property
    def kv_layers(self) -> tuple[KvShape, ...]:
        """KV cache size of a request on each distinct hardware."""
        return tuple(
            variant_of(self.model, one.variant).kv_shape(one.tensor_parallel) for one in self.distinct_hardware
        )

    @cached_property
    def cautions(self) -> tuple[Caution, ...]:
        """All cautions about an estimate with these inputs."""
        from melange.profile.estimate_cautions import estimate_cautions

        return estimate_cautions(self)

    @cached_property
    def tables(self) -> StepTimes | None:
        """Step times from measured operators; None if all are our own."""
        if self.step_times == OWN:
            return None
        from melange.profile.aiconfigurator import step_times

        return step_times(self.model, self.distinct_hardware, self.facts_by_name, self.era)

    @property
    def prefix_reuse(self) -> PrefixReuse | None:
        """Shared prefixes of the prompts, if replicas cache prefixes; None if they do not, or if nothing is known."""
        return self.sizes.prefix_reuse if isinstance(self.sizes, Workload) and self.is_prefix_caching else None

    @property
    def is_prefix_caching(self) -> bool:
        """Whether replicas cache prefixes: as set; else the engine's default, if the traffic's reuse is known."""
        given = self.era.settings.is_prefix_caching
        if given is not None:
            return given
        is_known = isinstance(self.sizes, Workload) and self.sizes.prefix_reuse is not None
        return is_known and self.era.ships_prefix_caching

    @cached_property
    def prefix_kept(self) -> Mapping[Hardware, float]:
        """Share of the reusable prompt tokens that a replica's prefix cache still holds, by hardware, 0-1."""
        distinct = self.distinct_hardware
        if self.prefix_reuse is None:
            return dict.fromkeys(distinct, 1.0 if self.is_prefix_caching else 0.0)
        return kept_on(self, self.prefix_reuse, distinct)

    def sizes_on(self, hardware: Sequence[Hardware]) -> Sizes:
        """The planned sizes with the tokens in the prefix cache of each hardware (R, I, O)."""
        reuse = self.prefix_reuse
        if reuse is None:
            return self.planned_sizes
        return with_cached(self.planned_sizes, reuse, [self.prefix_kept[one] for one in hardware])

    def settings_on(self, hardware: Hardware) -> EngineSettings:
        """The engine's settings on this hardware: without drafts if they do not help there."""
        return settings_on(self.era.settings, hardware)

    def replicas_on(self, hardware: Sequence[Hardware]) -> Replicas:
        """One replica on each hardware, side by side (R, 1, 1)."""
        asked = tuple(hardware)
        if asked not in self.replicas_by_hardware:
            known = self.tables.cost_by_hardware if self.tables else None
            found = replicas_of(self.model, asked, self.facts_by_name, self.era, known)
            self.replicas_by_hardware[asked] = found
        return self.replicas_by_hardware[asked]

    def residuals_on(self, hardware: Hardware) -> Residuals:
        """Ratio of measured to predicted step times on this hardware."""
        own = self.era.residuals_of(self.model, self.facts_by_name[hardware.accelerator])
        return widened(self.tables.residuals_on(hardware, own) if self.tables else own, hardware.layout)

    def obstacle_on(self, hardware: Hardware) -> str:
        """The reason why a replica on this hardware cannot serve any request; empty if it can."""
        served, facts = variant_of(self.model, hardware.variant), self.facts_by_name[hardware.accelerator]
        return obstacle(served, facts, hardware.layout, self.settings_on(hardware))


def bundled_accelerators() -> Mapping[str, Accelerator]:
    """Facts of the bundled accelerators, read at first use."""
    from melange.catalog.bundled import accelerators

    return accelerators()


def planned_sizes(sizes: Workload | Buckets) -> Sizes:
    """The sizes that buckets are planned for: a workload's own, or upper edges (1, I, O)."""
    if isinstance(sizes, Buckets):
        inputs, outputs = sizes.upper_sizes()
    else:
        inputs, outputs = sizes.input_tokens, sizes.output_tokens
    return Sizes(inputs=inputs[None], outputs=outputs[None])


def wanted_buckets(sizes: Workload | Buckets) -> Mask:
    """Buckets with requests, or all if the traffic is unknown (I, O)."""
    return np.ones(sizes.shape, bool) if isinstance(sizes, Buckets) else sizes.request_rate > 0
