"""Inputs that are given twice must agree: a profile or a workload beside a service, and command-line settings.

Nothing is silently ignored: a setting that contradicts a given file is an error that states both values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from melange.catalog.catalog import Catalog
from melange.errors import InputError, some_of
from melange.parsing import parse_yaml
from melange.plan.plan import Plan
from melange.profile.profile import Profile
from melange.service.schema import Service
from melange.service.traffic_sections import DEFAULT_CLASS
from melange.slo import Slo
from melange.workload.workload import Workload

# Settings that a given profile already fixes: the source of capacities, and what they are for.
_OF_ESTIMATES = ("profile", "variants")
_OF_PRICES = ("offers.file", "offers.prices")
_OF_SIZES = ("workload.size", "workload.prefix_hit_rate")
# Filters of offers, and the field of an offer that each filter checks.
_FILTERS = {"gpus": "accelerator", "providers": "provider", "regions": "region", "market": "market"}

_HINT = "give a profile that was made for this service, or leave it out"


def _values_of(settings: Sequence[str]) -> dict[str, Any]:
    """The command-line settings by key; the last one wins if a key is given twice."""
    pairs = (setting.partition("=") for setting in settings)
    return {key.strip(): parse_yaml(value, f"--set {key}") for key, _, value in pairs}


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


def check_workload(workload: Workload, place: str, settings: Sequence[str], service: Service | None) -> None:
    """Reject traffic settings that contradict a given workload, and a workload with other classes than the service's.

    Raises
    ------
    InputError
        States the setting's value and the file's.
    """
    _check_classes(service, workload, place)
    for key, value in _values_of(settings).items():
        if key.split(".")[0] != "workload":
            continue
        is_rate = key == "workload.rate" and isinstance(value, int | float)
        if is_rate and math.isclose(value, workload.total_rate, rel_tol=1e-6):  # the file's sum of rates is rounded
            continue
        said = f"{workload.total_rate:g} requests/s" if key == "workload.rate" else workload.source or "other traffic"
        raise InputError(
            f"--set {key}={_in_yaml(value)} contradicts {place}, which holds {said}",
            hint="leave out the setting or the file",
        )


def _check_classes(service: Service | None, workload: Workload, place: str) -> None:
    wanted = (DEFAULT_CLASS, *service.classes) if service is not None and service.classes else ()
    if service is not None and workload.buckets.classes != wanted:
        raise InputError(
            f"{place} holds {_named(workload.buckets.classes)}, but the service has {_named(wanted)}",
            hint="make it again with melange workload service.yaml --out workload.json",
        )


def _named(classes: tuple[str, ...]) -> str:
    return f"classes {', '.join(classes)}" if classes else "no classes"


def agreed(
    profile: Profile, place: str, service: Service, model: str, settings: Sequence[str], catalog: Catalog
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
    settings
        The command-line settings.
    catalog
        The catalog, for alternative names of accelerators.

    Returns
    -------
    Profile
        The same profile, with the service's attainment if the profile has none.

    Raises
    ------
    InputError
        The profile has another model, SLO, engine or set of offers than the service, or a setting only affects
        estimates.
    """
    if profile.model and profile.model != model:
        raise _contradiction("model", model, place, profile.model)
    slo = service.to_slo()
    if profile.slo is not None and not profile.slo.agrees_with(slo):
        raise _contradiction("slo", slo, place, profile.slo, _hint_on(profile.slo, slo))
    given = _values_of(settings)
    engines = {one.engine for one in profile.replica_types if one.engine}
    is_said = any(key.split(".")[0] == "engine" for key in given) or "engine" in service.model_fields_set
    if is_said and engines and engines != {service.engine.requirement}:
        raise _contradiction("engine", service.engine.requirement, place, ", ".join(sorted(engines)))
    for key, value in given.items():
        is_setting = key.startswith("engine.") and key not in ("engine.name", "engine.version")
        if key.split(".")[0] in _OF_ESTIMATES or key in (*_OF_PRICES, *_OF_SIZES) or is_setting:
            raise InputError(
                f"--set {key}={_in_yaml(value)} contradicts {place}, which holds {_held(profile, key)}",
                hint="leave out the setting or the profile",
            )
    _check_offers(profile, place, service, given, catalog)
    return profile if profile.slo is None else replace(profile, slo=replace(profile.slo, attainment=slo.attainment))


def _held(profile: Profile, key: str) -> str:
    """The profile's value of a setting, for error messages."""
    types, engines = profile.replica_types, [one for one in profile.engines if one is not None]
    values: dict[str, Iterable[object]] = {
        "variants": (one.variant or "the model as published" for one in types),
        "profile.tensor_parallel": (one.tensor_parallel for one in types),
        "profile.max_context": (one.max_context for one in engines),
        "engine.max_num_seqs": (one.max_sequences for one in engines),
        "engine.max_num_batched_tokens": (one.max_batched_tokens for one in engines),
        "offers.prices": (f"{one.name} at {one.cost_per_h:g} USD/h" for one in types),
    }
    found = dict.fromkeys(values.get(key, ()))
    if not found:
        return f"capacities and prices of {len(types)} replica types ({profile.source or 'no source'})"
    return f"{key} {some_of([str(one) for one in found])}"


def _in_yaml(value: object) -> str:
    """The value of a setting as one line of YAML."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).partition("\n")[0]


def _hint_on(given: Slo, wanted: Slo) -> str:
    """The hint for a different SLO: if the limits are equal, the profile's statistic can be used."""
    if given.limits != wanted.limits or given.statistic == wanted.statistic:
        return _HINT
    return f"slo.statistic={given.statistic} plans on what the profile holds; or {_HINT}"


def _check_offers(profile: Profile, place: str, service: Service, given: Mapping[str, Any], catalog: Catalog) -> None:
    """Reject a filter of offers, in the service or on the command line, that excludes types of the profile."""
    for key, field in _FILTERS.items():
        wanted = getattr(service.offers, key)
        if key not in service.offers.model_fields_set or not wanted:
            continue
        names = {catalog.find_accelerator(one) or one if key == "gpus" else one for one in wanted}
        left_out = sorted({getattr(one.offer, field) for one in profile.replica_types} - names - {""})
        if left_out:
            by = "--set " if f"offers.{key}" in given else ""
            raise InputError(
                f"{by}offers.{key}={','.join(wanted)} contradicts {place}, which holds {some_of(left_out)}",
                hint="plan.exclude leaves types of a profile out",
            )


def _contradiction(key: str, wanted: object, place: str, found: object, hint: str = _HINT) -> InputError:
    return InputError(f"{key}: the service asks for {wanted}, but {place} holds {found}", hint=hint)
