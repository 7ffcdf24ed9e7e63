"""From a service's description to its workload, profile and plan: the stages, one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from melange.errors import Caution, InputError, some_of
from melange.plan.energy import with_carbon_cost
from melange.profile.profile import Profile
from melange.service.classes_refused import refuse_classes
from melange.service.demand_of import check_keys, demand_of, has_demand, workload_over_time
from melange.service.given import agreed
from melange.service.no_offers import no_offers
from melange.service.reading import named_path
from melange.service.schema import OffersSection, ProfileSection, Service
from melange.service.traffic_sections import LOGS, WorkloadSection
from melange.workload.clock import parse_duration
from melange.workload.prefix_reuse import PrefixReuse
from melange.workload.workload import Workload

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from melange.catalog.catalog import Catalog, Model, Offer
    from melange.measure.subject import Subject
    from melange.plan.options import Options
    from melange.profile.estimate import Shown
    from melange.profile.estimate_inputs import EstimateInputs
    from melange.profile.measurement import Measurement
    from melange.profile.rate_cache import RateCache
    from melange.slo import Slo


def workload_of(
    section: WorkloadSection,
    path: Callable[[str], Path],
    progress: Callable[[float], None] | None = None,
    max_context: Callable[[], int | None] = lambda: None,
) -> Workload:
    """The workload that a service's ``workload`` section describes.

    ``path`` resolves its file names; ``max_context`` gives the model's longest request when needed [tokens].
    """
    workload = _workload_in(section, path, progress, max_context)
    if section.prefix_hit_rate is None:
        return workload
    share = [section.prefix_hit_rate] * workload.buckets.shape[0]
    reuse = PrefixReuse.fixed(share, f"workload.prefix_hit_rate: {section.prefix_hit_rate:g}")
    return replace(workload, prefix_reuse=reuse)


def _workload_in(
    section: WorkloadSection,
    path: Callable[[str], Path],
    progress: Callable[[float], None] | None,
    max_context: Callable[[], int | None],
) -> Workload:
    """The workload of the section's source."""
    kind, value = section.source
    buckets = section.buckets.to_buckets()
    given = buckets if "buckets" in section.model_fields_set else None
    if given is not None and kind in {"file", "metrics"}:
        raise InputError(f"workload.buckets: a {kind} has its own buckets", hint="remove buckets")
    request_rate = section.rate if isinstance(section.rate, float | int) else None
    check_keys(section)
    if has_demand(section):
        workload = workload_over_time(demand_of(section, path, progress), section)
        return workload.with_upper_sizes() if section.size == "upper" else workload
    if kind not in LOGS:
        _only_for_traces(section)
    if section.model is not None and kind != "metrics":
        raise InputError(
            "workload.model chooses among the models of a server's metrics",
            hint="of a log: workload: {where: {model: NAME}}" if kind in LOGS else "remove it",
        )
    if kind in LOGS:
        from melange.workload.traces import read_trace

        workload = read_trace(
            section.log(path),
            buckets=buckets,
            columns=section.columns,
            trace_format=section.format,
            where=section.where,
            start=section.start,
            end=section.end,
            window_s=None if section.window is None else parse_duration(section.window, name="workload.window"),
            rate=section.rate if isinstance(section.rate, str) else "mean",
            request_rate=request_rate,
            progress=progress,
        )
    elif kind == "dataset":
        from melange.workload.datasets import dataset

        workload = dataset(value, buckets=buckets, request_rate=request_rate)
    elif kind == "file":
        workload = Workload.read(path(value))
        workload = workload.at_rate(request_rate) if request_rate else workload
    elif kind == "histogram":
        from melange.workload.histograms import read_histogram

        workload = read_histogram(path(value), buckets=given, request_rate=request_rate)
    else:
        workload = _scraped([path(name) for name in value], section, request_rate, max_context())
    return workload.with_upper_sizes() if section.size == "upper" else workload


def _scraped(
    texts: list[Path], section: WorkloadSection, request_rate: float | None, max_context: int | None
) -> Workload:
    """The workload in one dump of a server's metrics, or between two of them."""
    from melange.workload.histograms import read_metrics

    if len(texts) == 1:
        return read_metrics(texts[0], request_rate=request_rate, model=section.model, max_context=max_context)
    if len(texts) != 2 or section.window is None:
        raise InputError(
            "workload.metrics takes one file and a rate, or two files, the earlier first, and the window between them",
            hint="for example workload: {metrics: [before.txt, after.txt], window: 5m}",
        )
    elapsed_s = parse_duration(section.window, name="workload.window")
    return read_metrics(
        texts[1],
        earlier=texts[0],
        elapsed_s=elapsed_s,
        request_rate=request_rate,
        model=section.model,
        max_context=max_context,
    )


def _only_for_traces(section: WorkloadSection) -> None:
    """Reject settings that apply only to a trace, instead of ignoring them."""
    window = None if section.metrics else section.window
    for key, value in (
        ("window", window),
        ("from", section.start),
        ("to", section.end),
        ("where", section.where),
        ("columns", section.columns),
        ("format", section.format),
    ):
        if value is not None:
            raise InputError(f"workload.{key} needs a trace", hint="for example workload: {trace: requests.parquet}")
    if isinstance(section.rate, str):
        raise InputError(f"workload.rate must be a number here, got {section.rate!r}; a statistic needs a trace")


def offers_of(service: Service, catalog: Catalog) -> tuple[tuple[Offer, ...], tuple[Caution, ...]]:
    """The offers that a service may rent, and the rows of its price list that were left out."""
    section = service.offers
    cautions: tuple[Caution, ...] = ()
    if section.file is not None:
        from melange.catalog.readers import read_price_list

        own = read_price_list(service.path(section.file))
        catalog, cautions = replace(catalog, offers=own.offers), own.cautions
    selected = catalog.select(
        gpus=section.gpus, providers=section.providers, markets=section.market, regions=section.regions
    )
    if not selected.offers:
        raise no_offers(section, catalog)
    offers, changed = _at_own_prices(section, selected)
    if service.plan.carbon_price_per_kg:
        facts = {one.accelerator: catalog.accelerators[one.accelerator] for one in offers}
        offers = with_carbon_cost(offers, facts, options_of(service, catalog))
    return offers, (*cautions, *_unmet(service, catalog, offers), *changed)


def _at_own_prices(section: OffersSection, selected: Catalog) -> tuple[tuple[Offer, ...], tuple[Caution, ...]]:
    """The offers at the prices of ``offers.prices``, and a caution that says how many each rule changed."""
    if not section.prices:
        return selected.offers, ()
    from melange.catalog.price_rules import adjusted, price_rule

    rules = [price_rule(who, change) for who, change in section.prices.items()]
    offers, counts = adjusted(selected.offers, rules, selected.accelerators)
    changes = [f"{one.who} {one.change} ({counts[one.who]} of {len(offers)} offers)" for one in rules]
    return offers, (Caution("adjusted-prices", f"offers.prices changes prices: {'; '.join(changes)}"),)


def _unmet(service: Service, catalog: Catalog, left: Sequence[Offer]) -> tuple[Caution, ...]:
    """A caution for each key under ``offers`` with names that match no offer although other names do."""
    section = service.offers
    asked: dict[str, tuple[Sequence[str], Callable[[str], str], set[str]]] = {
        "gpus": (
            section.gpus or (),
            lambda name: catalog.find_accelerator(name) or name,
            {o.accelerator for o in left},
        ),
        "providers": (section.providers or (), str, {o.provider for o in left}),
        # A price without a region applies in all regions.
        "regions": ([] if any(not o.region for o in left) else section.regions or (), str, {o.region for o in left}),
        "market": (section.market, str, {o.market for o in left}),
    }
    cautions = []
    for key, (names, ours, found) in asked.items():
        folded = {name.casefold() for name in found}
        missing = [name for name in dict.fromkeys(names) if ours(name).casefold() not in folded]
        if key == "market":
            missing += _without_market(section, left, missing)
        if missing:
            cautions.append(
                Caution(
                    "no-offer",
                    f"offers.{key}: no offer for {some_of(missing)} passes the other filters; choose from "
                    f"{some_of(sorted(found))}; melange catalog offers shows what there is",
                )
            )
    return tuple(cautions)


def _without_market(section: OffersSection, left: Sequence[Offer], missing: Sequence[str]) -> list[str]:
    """Markets in which one of the named providers has no offer although another has."""
    pairs = {(offer.provider.casefold(), offer.market.casefold()) for offer in left}
    providers = [name for name in section.providers or () if any(name.casefold() == one for one, _ in pairs)]
    markets = [market for market in dict.fromkeys(section.market) if market not in missing]
    return [
        f"{market} of {provider}"
        for market in markets
        for provider in providers
        if (provider.casefold(), market.casefold()) not in pairs
    ]


def profile_of(
    service: Service, workload: Workload, catalog: Catalog, progress: Callable[[float], None] | None = None
) -> Profile:
    """The profile of a service: estimated, measured, or both."""
    files = [service.path(source) for source in service.profile.source if source != "estimate"]
    if not files:
        return _estimate(service, workload, catalog, progress)
    from melange.profile.formats.profiles import combine, read_profile

    is_alone = len(files) == len(service.profile.source)
    if is_alone:
        _only_for_estimates(service)
    place = ", ".join(map(str, files))
    measured = agreed(read_profile(*files), place, service, model_of(service).name, catalog, is_alone=is_alone)
    return measured if is_alone else combine(measured, _estimate(service, workload, catalog, progress))


# How each setting affects estimates, if the words are not "is for".
_VERB = {"profile.anchors": "correct", "profile.observed": "corrects", "profile.step_times": "are for"}


def _only_for_estimates(service: Service) -> None:
    """Reject settings that apply only to estimates, instead of ignoring them."""
    defaults, section = ProfileSection(), service.profile
    keys = sorted(section.model_fields_set - {"source"})
    given = [f"profile.{key}" for key in keys if getattr(section, key) != getattr(defaults, key)]
    given += ["offers.file"] if service.offers.file else []
    given += [f"engine.{key}" for key in sorted(service.engine.model_fields_set - {"name", "version"})]
    if given:
        raise InputError(
            f"{given[0]} {_VERB.get(given[0], 'is for')} estimates, but profile.source names none",
            hint="profile: {source: [measured.json, estimate], ...}",
        )
    if service.variants:
        raise InputError(
            "variants are estimated, but profile.source names no estimate",
            hint="profile: {source: [measured.json, estimate]}",
        )


def _estimate(
    service: Service, workload: Workload, catalog: Catalog, progress: Callable[[float], None] | None
) -> Profile:
    """The estimate, corrected by anchors; simulated rates start from the same limits on the mean."""
    slo = service.to_slo()
    if not service.is_simulated:
        return _closed_form(service, slo, workload, catalog)
    profile = _closed_form(service, slo.on_mean(), workload, catalog)
    from melange.profile.percentiles import RateSearch, with_simulated_rates

    search = RateSearch(is_scarce=bool(service.offers.max))
    return with_simulated_rates(profile, workload, slo, search=search, kept=_kept_rates(), progress=progress)


def _kept_rates() -> RateCache:
    """Simulated rates of earlier runs."""
    from melange.profile.rate_cache import RateCache, cache_folder

    return RateCache(cache_folder() / "rates.json")


def _closed_form(service: Service, slo: Slo, workload: Workload, catalog: Catalog) -> Profile:
    return estimated(service, *estimate_inputs(service, workload, catalog, slo))


def estimated(
    service: Service,
    inputs: EstimateInputs,
    cautions: tuple[Caution, ...],
    shown: Shown | None = None,
) -> Profile:
    """The estimate of a service from its inputs, by closed form, or only the part to show."""
    if service.profile.anchors:
        from melange.profile.anchor import anchor_from

        doubtful = service.profile.doubtful_anchors
        profile = anchor_from(inputs, _anchors_of(service), service.to_slo(), doubtful=doubtful)
    else:
        from melange.profile.estimate import estimate_from

        # Observed step times correct the whole estimate.
        profile = estimate_from(inputs, None if service.profile.observed else shown)
    if service.profile.observed:
        from melange.profile.observed import read_factors, with_observed

        profile = with_observed(profile, inputs, read_factors(service.path(service.profile.observed)))
    return replace(profile, cautions=(*profile.cautions, *cautions))


def estimate_inputs(
    service: Service, workload: Workload, catalog: Catalog, slo: Slo
) -> tuple[EstimateInputs, tuple[Caution, ...]]:
    """The inputs of an estimate under limits on the mean, and the rows of the price list that were left out."""
    from melange.profile.estimate_inputs import EstimateInputs

    offers, cautions = offers_of(service, catalog)
    inputs = EstimateInputs(
        model=model_of(service),
        offers=offers,
        slo=slo,
        sizes=workload,
        engine=service.engine.requirement,
        settings=service.engine.settings,
        prefix_routing=service.profile.prefix_routing,
        tensor_parallel=service.profile.tensor_parallel,
        expert_parallel=service.profile.expert_parallel,
        pipeline_parallel=service.profile.pipeline_parallel,
        variants=service.variants,
        step_times=service.profile.step_times,
        max_context=service.profile.max_context,
        min_kv_tokens=service.profile.min_kv_tokens,
    )
    if not service.plan.drop_unservable:
        inputs.check_context()
    return inputs, cautions


def _anchors_of(service: Service) -> tuple[Measurement, ...]:
    """The measured points that correct a service's estimates."""
    from melange.profile.formats.measurement_files import read_measurements

    return read_measurements(*(named_path(text, service.path) for text in service.profile.anchors))


def model_of(service: Service) -> Model:
    """The model that a service names: bundled, or a folder or file in Hugging Face format."""
    from melange.catalog.bundled import find_model

    path = service.path(service.model)
    return find_model(str(path) if path.exists() else service.model)


def subject_of(service: Service, slo: Slo, workload: Workload, catalog: Catalog, name: str) -> Subject:
    """A replica type of a service to be measured; ``name`` is its own or its accelerator's."""
    refuse_classes(service, "measure")
    from melange.measure.subject import service_subject

    inputs, _ = estimate_inputs(service, workload, catalog, slo.on_mean())
    options = options_of(service, catalog)
    return service_subject(name, inputs, slo, options, anchors=_anchors_of(service), kept=_kept_rates())


def options_of(service: Service, catalog: Catalog) -> Options:
    """The settings of the plan stage, with the limits of ``offers.max``."""
    accelerators: dict[str, int] = {}
    instances: dict[str, int] = {}
    for name, count in service.offers.max.items():
        match = catalog.find_accelerator(name)
        if match is None:
            instances[name] = count
        else:
            accelerators[match] = count
    options = service.plan.to_options(accelerators, instances)
    return replace(options, require=catalog.own_names(options.require), exclude=catalog.own_names(options.exclude))
