"""Inputs that are given twice must agree: a profile or a workload beside a service, and command-line settings.

Nothing is silently ignored: a value that contradicts a given file is an error that states both values. Settings are
compared by what they change in the service, so that a key, a nested key and a whole section are the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from melange.catalog.catalog import Catalog
from melange.catalog.current import kind_of
from melange.catalog.price_rules import price_rule, selector
from melange.errors import InputError, some_of
from melange.plan.plan import Plan
from melange.profile.profile import Profile, ReplicaType
from melange.replica.engine import Engine
from melange.service.changes import Changes, contradiction, in_yaml, said_by
from melange.service.schema import Service
from melange.service.traffic_sections import DEFAULT_CLASS
from melange.slo import Slo
from melange.units import count_of
from melange.workload.workload import Workload

# Keys that a given profile already fixes: the source of capacities and prices, and what they are for. The engine's
# name, the market and other filters of offers are compared with the profile's types instead.
_FIXED = ("variants", "offers.file", "workload.size", "workload.prefix_hit_rate", "plan.carbon_price_per_kg")
_FIXED_SECTIONS = ("profile", "engine")
_COMPARED = ("engine.name", "engine.version")
# Filters of offers, and the field of an offer that each filter checks.
_FILTERS = {"gpus": "accelerator", "providers": "provider", "regions": "region", "market": "market"}
_PUBLISHED = "the model as published"
# The value of a replica type or of its engine under a key: if all are equal to the service's value, the two agree.
_OF_TYPES: dict[str, Callable[[ReplicaType], object]] = {
    "profile.tensor_parallel": lambda one: one.tensor_parallel,
    "profile.expert_parallel": lambda one: one.expert_parallel,
    "profile.pipeline_parallel": lambda one: one.pipeline_parallel,
    "variants": lambda one: one.variant or _PUBLISHED,
    "plan.carbon_price_per_kg": lambda one: f"{one.offer.carbon_cost_per_h:g} USD/h for emissions",
}
_OF_ENGINES: dict[str, Callable[[Engine], object]] = {
    "profile.max_context": lambda one: one.max_context,
    "engine.max_num_seqs": lambda one: one.max_sequences,
    "engine.max_num_batched_tokens": lambda one: one.max_batched_tokens,
    "engine.gpu_memory_utilization": lambda one: one.memory_utilization,
    "engine.enable_prefix_caching": lambda one: one.is_prefix_caching,
}
# A change of a price, as :func:`melange.catalog.price_rules.adjusted` adds it to the source of an offer.
_ADJUSTED = re.compile(r"; ([^;]+) by offers\.prices")

_NO_CHANGES = Changes()
_HINT = "give a profile that was made for this service, or leave it out"
_HINT_ON_SETTINGS = "leave out the setting, or make the profile with it"


def check_incumbent(incumbent: Plan, model: str) -> None:
    """Reject a current plan for another model: its replicas cannot serve the service's requests.

    Raises
    ------
    InputError
        States the names of both models.
    """
    if incumbent.model and model and incumbent.model != model:
        raise InputError(
            f"--incumbent: is a plan for {incumbent.model}, but the service has {model}",
            hint="give the current plan of this service, or leave out --incumbent",
        )


def refuse_schedule(service: Service | None, settings: Sequence[str]) -> None:
    """Reject settings of a service's schedule outside of ``melange schedule``: they would change nothing.

    Raises
    ------
    InputError
        States the settings.
    """
    of_schedule = {key: value for key, value in said_by(settings).items() if key.startswith("schedule.")}
    if service is not None and of_schedule:
        said = ", ".join(f"--set {key}={in_yaml(value)}" for key, value in of_schedule.items())
        raise InputError(f"{said}: only melange schedule uses it", hint="leave it out, or run melange schedule")


def check_workload(workload: Workload, place: str, changes: Changes, service: Service | None) -> None:
    """Reject traffic settings that contradict a given workload, and a workload with other classes than the service's.

    Raises
    ------
    InputError
        States the setting's value and the file's.
    """
    _check_classes(service, workload, place)
    hint = "leave out the setting or the file"
    for key, value in changes.said.items():
        if key.partition(".")[0] != "workload":
            continue
        is_rate = key == "workload.rate" and isinstance(value, int | float)
        if is_rate and math.isclose(value, workload.total_rate, rel_tol=1e-6):  # the file's sum of rates is rounded
            continue
        held = f"{workload.total_rate:g} requests/s" if key == "workload.rate" else workload.source or "other traffic"
        raise contradiction(f"--set {key}={in_yaml(value)}", place, held, hint)
    for key in changes.after:
        if re.fullmatch(r"classes\..*\.(share|workload)", key):
            raise contradiction(changes.label(key), place, workload.source or "other traffic", hint)


def _check_classes(service: Service | None, workload: Workload, place: str) -> None:
    wanted = (DEFAULT_CLASS, *service.classes) if service is not None and service.classes else ()
    if service is not None and workload.buckets.classes != wanted:
        raise InputError(
            f"{place} holds {_named(workload.buckets.classes)}, but the service has {_named(wanted)}",
            hint="make it again with melange workload service.yaml --out workload.json",
        )


def _named(classes: tuple[str, ...]) -> str:
    return f"classes {', '.join(classes)}" if classes else "no classes"


def given_profile(files: Sequence[str | Path], service: Service | None, changes: Changes, catalog: Catalog) -> Profile:
    """The replica types of all given profiles, checked against the service as in :func:`agreed`."""
    from melange.profile.join import read_joined
    from melange.service.stages import model_of

    profile = read_joined(files)
    if service is None:
        return profile
    return agreed(profile, ", ".join(map(str, files)), service, model_of(service).name, catalog, changes)


def agreed(
    profile: Profile,
    place: str,
    service: Service,
    model: str,
    catalog: Catalog,
    changes: Changes = _NO_CHANGES,
    *,
    is_alone: bool = True,
) -> Profile:
    """A given profile, after checking that it agrees with the service and the command-line settings.

    Parameters
    ----------
    profile, place
        The profile, and where it comes from.
    service
        The service with the settings applied.
    model
        The service's model, by its canonical name.
    catalog
        The catalog, for alternative names of accelerators.
    changes
        What settings change in the service; none if the profile is one of the service's own sources.
    is_alone
        Whether prices are those of the profile; if estimates are added to it, prices are the estimates'.

    Returns
    -------
    Profile
        The same profile, with the service's attainment if the profile has none.

    Raises
    ------
    InputError
        The profile has another model, SLO, engine, prices or set of offers than the service, or a setting only affects
        estimates.
    """
    if profile.model and profile.model != model:
        raise _contradiction("model", model, place, profile.model)
    slo = service.to_slo()
    if profile.slo is not None and not profile.slo.agrees_with(slo):
        raise _contradiction("slo", slo, place, profile.slo, _hint_on(profile.slo, slo))
    engines = {one.engine for one in profile.replica_types if one.engine}
    if "engine" in service.model_fields_set and engines and engines != {service.engine.requirement}:
        raise _contradiction("engine", service.engine.requirement, place, ", ".join(sorted(engines)))
    for key, value in changes.after.items():
        is_fixed = key in _FIXED or (key.partition(".")[0] in _FIXED_SECTIONS and key not in _COMPARED)
        if is_fixed and not _is_held(profile, key, value):
            raise contradiction(changes.label(key), place, _held(profile, key), _HINT_ON_SETTINGS)
    _check_offers(profile, place, service, changes, catalog)
    if is_alone:
        _check_stated(profile, place, service)
        _check_prices(profile, place, service, changes, catalog)
    return profile if profile.slo is None else replace(profile, slo=replace(profile.slo, attainment=slo.attainment))


def _held_values(profile: Profile, key: str) -> list[object]:
    """The profile's values under a key, each once; none if it does not state them."""
    if of_type := _OF_TYPES.get(key):
        return list(dict.fromkeys(of_type(one) for one in profile.replica_types))
    if of_engine := _OF_ENGINES.get(key):
        return list(dict.fromkeys(of_engine(one) for one in profile.engines if one is not None))
    return []


def _is_held(profile: Profile, key: str, value: Any) -> bool:
    """Whether the profile states that it was made with a value."""
    found = _held_values(profile, key)
    if key in _OF_ENGINES and None in profile.engines:
        return False
    wanted = set(value if isinstance(value, list) else [value])
    return bool(found) and set(found) - {_PUBLISHED} == wanted - {_PUBLISHED}


def _check_stated(profile: Profile, place: str, service: Service) -> None:
    """Reject values of the service's file that differ from those that the profile states.

    Values that a profile does not state, as for what it was measured with, are taken to agree.
    """
    stated = {
        **{f"engine.{key}": getattr(service.engine, key) for key in service.engine.model_fields_set},
        **{f"profile.{key}": getattr(service.profile, key) for key in service.profile.model_fields_set},
        "variants": service.variants,
    }
    for key, value in stated.items():
        found = set(_held_values(profile, key))
        if not found or value is None or value == []:
            continue
        # Of several degrees a type needs only one; variants may be too slow to be in the profile, but not all of them.
        is_other = found == {_PUBLISHED} if key == "variants" else found - set(value if key in _OF_TYPES else [value])
        if is_other:
            raise contradiction(f"{key}={in_yaml(value)}", place, _held(profile, key), _HINT)


def _held(profile: Profile, key: str) -> str:
    """The profile's value under a key, for error messages."""
    found = _held_values(profile, key)
    if not found:
        count = len(profile.replica_types)
        return f"capacities and prices of {count_of(count, 'replica type')} ({profile.source or 'no source'})"
    return f"{key} {some_of([one if isinstance(one, str) else in_yaml(one) for one in found])}"


def _hint_on(given: Slo, wanted: Slo) -> str:
    """The hint for a different SLO: if the limits are equal, the profile's statistic can be used."""
    if given.limits != wanted.limits or given.statistic == wanted.statistic:
        return _HINT
    return f"slo.statistic={given.statistic} plans on what the profile holds; or {_HINT}"


def _check_offers(profile: Profile, place: str, service: Service, changes: Changes, catalog: Catalog) -> None:
    """Reject filters of offers that exclude types of the profile, and changed ones that allow types it lacks."""
    for key, field in _FILTERS.items():
        wanted, name = getattr(service.offers, key), f"offers.{key}"
        found = {getattr(one.offer, field) for one in profile.replica_types}
        allowed = _names(wanted, key, catalog)
        left_out = sorted(one for one in found - {""} if one.casefold() not in allowed)
        by = changes.label(name) if name in changes.after else ""
        if key in service.offers.model_fields_set and wanted and left_out:
            shown, hint = by or f"{name}={in_yaml(wanted)}", "plan.exclude leaves types of a profile out"
            raise contradiction(shown, place, some_of(left_out), hint)
        # Offers without a region are for all regions. A file without a list allows every name.
        if not by or "" in found or changes.before[name] is None:
            continue
        known = _names([*found, *changes.before[name]], key, catalog)
        if not wanted or allowed - known:
            raise contradiction(by, place, some_of(sorted(found)), _HINT_ON_SETTINGS)


def _names(given: Iterable[str] | None, key: str, catalog: Catalog) -> set[str]:
    """The names in a filter, by the spelling of the catalog and in lower case."""
    return {((catalog.find_accelerator(one) if key == "gpus" else None) or one).casefold() for one in given or ()}


def _check_prices(profile: Profile, place: str, service: Service, changes: Changes, catalog: Catalog) -> None:
    """Reject prices that the profile was not made with: it holds the price of each offer, and the rules behind it."""
    rules = [price_rule(who, change) for who, change in service.offers.prices.items()]
    offers = [one.offer for one in profile.replica_types]
    wanted: list[list[str]] = [[] for _ in offers]
    is_changed = "offers.prices" in changes.after
    label = changes.label("offers.prices") if is_changed else f"offers.prices={in_yaml(service.offers.prices)}"
    for rule in rules:
        try:
            fits = selector(rule.who, offers, catalog.accelerators, "offers.prices")
        except InputError:
            if is_changed and rule.who not in (changes.before["offers.prices"] or {}):
                raise contradiction(label, place, f"no {rule.who}", _HINT_ON_SETTINGS) from None
            continue
        for changed, offer in zip(wanted, offers, strict=True):
            changed += [rule.change] if fits(offer) else []
    for changed, one in zip(wanted, profile.replica_types, strict=True):
        found = _ADJUSTED.findall(one.offer.source)
        if found != changed and (is_changed or changed):
            held = f"{one.name} at {one.cost_per_h:g} USD/h{''.join(f', {change}' for change in found)}"
            raise contradiction(label, place, held, _HINT_ON_SETTINGS if is_changed else _HINT)
    if service.offers.file and not is_changed:
        _check_list(profile, place, service, catalog)
    priced = service.plan.carbon_price_per_kg
    if priced and not any(one.carbon_cost_per_h for one in offers):
        label = f"plan.carbon_price_per_kg={priced:g}"
        raise contradiction(label, place, "prices without emissions", _HINT)


def _check_list(profile: Profile, place: str, service: Service, catalog: Catalog) -> None:
    """Reject a profile with another price of an offer than the service's own list of offers."""
    from melange.service.stages import offers_of

    price_by_kind = {(*kind_of(one), one.instance_type): one.cost_per_h for one in offers_of(service, catalog)[0]}
    for one in profile.replica_types:
        price = price_by_kind.get((*kind_of(one.offer), one.offer.instance_type))
        if price is not None and not math.isclose(price, one.offer.cost_per_h, rel_tol=1e-9):
            label = f"offers.file={service.offers.file} ({one.offer.name} at {price:g} USD/h)"
            raise contradiction(label, place, f"{one.offer.cost_per_h:g} USD/h", _HINT)


def _contradiction(key: str, wanted: object, place: str, found: object, hint: str = _HINT) -> InputError:
    return InputError(f"{key}: the service asks for {wanted}, but {place} holds {found}", hint=hint)
