"""Cautions about an estimate: one per kind, with counts and a few names."""

from __future__ import annotations

from melange.catalog.variants import is_unlisted, stored_as, variant_of
from melange.errors import Caution, some_of
from melange.profile.engine_features import SPREAD
from melange.profile.estimate_inputs import EstimateInputs, wanted_buckets
from melange.replica.era import kind_of
from melange.replica.layout_cost import weight_bytes_on
from melange.replica.memory import kv_room_bytes
from melange.units import GIB
from melange.workload.workload import Workload

# KV cache as a share of the weights' memory. Below it, the usual error of a memory estimate (a few percent:
# activations, graphs, fragmentation) would take half of the cache or more.
_THIN = 0.05


def estimate_cautions(inputs: EstimateInputs) -> tuple[Caution, ...]:
    """All cautions about the estimate for these inputs."""
    found = (
        _unmeasured(inputs),
        _extrapolated(inputs),
        _over_pcie(inputs),
        _unmeasured_layout(inputs),
        _unverified(inputs),
        _without_tables(inputs),
        _quantized(inputs),
        _thin_cache(inputs),
        _prefix_cache(inputs),
    )
    return tuple(caution for caution in found if caution is not None)


def _extrapolated(inputs: EstimateInputs) -> Caution | None:
    """A caution about inputs outside of the era's calibration data."""
    era, model, tables = inputs.era, inputs.model, inputs.tables
    sizes = inputs.planned_sizes
    longest = float(sizes.longest[0][wanted_buckets(inputs.sizes)].max())
    beyond = []
    ours = {one.accelerator for one in inputs.distinct_hardware if not (tables and one in tables.cost_by_hardware)}
    if unfitted := sorted(ours - set(era.accelerators)):
        beyond.append(f"accelerators ({some_of(unfitted)})")
    if kind_of(model) not in era.kinds:
        beyond.append(f"{kind_of(model)} models ({model.name})")
    if longest > era.max_tokens:
        beyond.append(f"requests of more than {era.max_tokens:,} tokens (up to {longest:,.0f})")
    if not beyond:
        return None
    what = f"the step-time model of {era.name} was not calibrated for {', '.join(beyond)}"
    return Caution("extrapolated", f"{what}; measure a few points before you rely on these estimates")


def _unmeasured(inputs: EstimateInputs) -> Caution | None:
    """A caution about hardware and releases without measurements, for which rates are little more than a guess."""
    era, facts = inputs.era, inputs.facts_by_name
    measured = {one.accelerator for one in inputs.tables.cost_by_hardware} if inputs.tables else set()
    names = sorted({one.accelerator for one in inputs.distinct_hardware} - measured)
    guessed = [name for name in names if not era.known_of(inputs.model, facts[name]).points]
    parts = []
    if not era.is_covered:
        parts.append(f"{era.releases.engine} {era.release} has no engine era; the nearest one, {era.name}, is used")
    elif guessed:
        known = era.known_of(inputs.model, facts[guessed[0]])
        bounds = f"{known.low:.2g} to {known.high:.2g} times"
        what = f"no measurements under {era.name} cover {some_of(guessed)}"
        parts.append(f"{what}: steps may take {bounds} as long as estimated")
    elif era.release and not era.releases.is_measured(era.release):
        what = f"{era.releases.engine} {era.release} was not measured"
        parts.append(f"{what}; the constants of {era.name} are used, with a wider interval")
    if not parts:
        return None
    return Caution("measure-first", f"{parts[0]}; measure this first: melange measure, then profile.anchors")


def _thin_cache(inputs: EstimateInputs) -> Caution | None:
    """A caution about replicas whose weights leave so little memory that a small error would use it up."""
    found: dict[str, float] = {}
    for one, obstacle in zip(inputs.distinct_hardware, inputs.obstacles, strict=True):
        served, facts = variant_of(inputs.model, one.variant), inputs.facts_by_name[one.accelerator]
        if obstacle:
            continue
        room = kv_room_bytes(served, facts, one.layout, inputs.settings_on(one))
        if room < _THIN * weight_bytes_on(served, one.layout):
            name = f"{one.layout.accelerators} x {one.accelerator} {one.variant}".rstrip()
            found[name] = room * one.layout.accelerators / GIB
    if not found:
        return None
    told = some_of([f"{name} ({room:.1f} GiB)" for name, room in sorted(found.items(), key=lambda pair: pair[1])])
    what = f"little memory is left for KV cache on {told}: less than {_THIN:.0%} of the weights' size"
    return Caution(
        "thin-cache", f"{what}; require more with profile.min_kv_tokens, or check the size that the engine reports"
    )


def _prefix_cache(inputs: EstimateInputs) -> Caution | None:
    """A caution about the assumptions on prefix caches, if rates depend on them, or about unused settings."""
    reuse = inputs.prefix_reuse
    if reuse is None or not reuse.reusable_share.any():
        return _without_prefixes(inputs)
    if not reuse.depends_on_cache:
        what = f"rates assume prefix caches with the given hit rate ({reuse.source}), at any cache size"
        return Caution(
            "prefix-cache", f"{what}; block hashes in the log (hash_ids) would give the hit rate of each size"
        )
    if inputs.prefix_routing == SPREAD:
        what = "rates assume prefix caches, with requests of the same prefix spread at random over a type's replicas"
        return Caution(
            "prefix-cache", f"{what}; profile.prefix_routing: affinity plans for balancers that keep them together"
        )
    what = "rates assume a balancer that sends requests with a common prefix to the same replica"
    return Caution("prefix-cache", f"{what}: melange balance --policy prefix-affinity, or a gateway that does")


def _without_prefixes(inputs: EstimateInputs) -> Caution | None:
    """A caution about a hit rate that the engine does not use, and about routing by prefixes that are not there."""
    known = inputs.sizes.prefix_reuse if isinstance(inputs.sizes, Workload) else None
    if known is not None and known.reusable_share.any() and inputs.era.settings.is_prefix_caching is None:
        name = f"{inputs.era.releases.engine} {inputs.era.release}" if inputs.era.release else inputs.era.name
        what = f"prompts share prefixes ({known.source}), but {name} caches none by default"
        return Caution("prefix-cache", f"{what}: engine.enable_prefix_caching: true plans with a cache")
    if inputs.prefix_routing == SPREAD:
        return None
    what = "profile.prefix_routing: affinity changes nothing: no prefixes in a cache are known of this traffic"
    return Caution("prefix-cache", f"{what}; give workload.prefix_hit_rate, or a log with block hashes (hash_ids)")


def _over_pcie(inputs: EstimateInputs) -> Caution | None:
    pcie = sorted({one.accelerator for one in inputs.distinct_hardware if one.is_pcie})
    what = f"tensor parallelism over PCIe ({some_of(pcie)}) differs from server to server"
    return Caution("pcie", f"{what}; measure a few points before you rely on it") if pcie else None


def _unmeasured_layout(inputs: EstimateInputs) -> Caution | None:
    """A caution about expert or pipeline parallelism, whose times are calculated and not measured."""
    layouts = {one.layout.suffix for one in inputs.distinct_hardware if not one.layout.is_plain}
    if not layouts:
        return None
    what = f"expert and pipeline parallelism ({some_of(sorted(layouts))}) are extrapolated from tensor parallelism"
    if any(one.is_networked for one in inputs.distinct_hardware):
        what += "; machines of one replica need a network of 10 Gbit/s for each accelerator, and are rented together"
    return Caution("measure-first", f"{what}; they were not measured: measure this first, then profile.anchors")


def _unverified(inputs: EstimateInputs) -> Caution | None:
    used = sorted({one.accelerator for one in inputs.distinct_hardware})
    unchecked = [name for name in used if inputs.facts_by_name[name].checked is None]
    what = f"the figures of {some_of(unchecked)} were not checked against a datasheet"
    return Caution("unverified", f"{what}; check them before you rely on them") if unchecked else None


def _without_tables(inputs: EstimateInputs) -> Caution | None:
    """A caution about replicas that use our own step times although others were requested, with the reason."""
    tables = inputs.tables
    if not (tables and tables.reason_by_hardware):
        return None
    known = {one.accelerator for one in tables.cost_by_hardware}
    names_by_reason: dict[str, dict[str, None]] = {}
    for one, reason in tables.reason_by_hardware.items():
        which = f" x {one.tensor_parallel} {one.variant}".rstrip() if one.accelerator in known else ""
        names_by_reason.setdefault(reason, {})[one.accelerator + which] = None
    told = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in names_by_reason.items())
    return Caution("step-times", f"aiconfigurator has no reliable step times for {told}; ours are used there")


def _quantized(inputs: EstimateInputs) -> Caution | None:
    """A caution about the choice among variants."""
    model, distinct = inputs.model, inputs.distinct_hardware
    variants = dict.fromkeys(one.variant for one in distinct if one.variant)
    if not variants:
        return None
    what = f"a plan may choose {some_of(variants)} besides {model.name} as published ({stored_as(model)})"
    what += "; quantization may change the output: check its quality on your own prompts"
    if any(name.startswith("int") for name in variants):
        what += "; measured int4 steps took up to a third longer than estimated"
    facts = inputs.facts_by_name
    unlisted = {one.accelerator for one in distinct if is_unlisted(one.variant, facts[one.accelerator])}
    if unlisted:
        what += f"; vLLM lists no integer kernels for {some_of(sorted(unlisted))}: check that your engine has them"
    return Caution("quantized", what)
