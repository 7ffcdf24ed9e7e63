"""Match measured points to the hardware of a service."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from melange.catalog.bundled import find_model
from melange.catalog.model import Model
from melange.catalog.variants import variant_of
from melange.errors import Caution, InputError, unknown
from melange.profile.estimate_inputs import EstimateInputs
from melange.profile.measurement import Measurement, split_name
from melange.replica.era import find_era
from melange.replica.hardware import Hardware
from melange.units import count_of


def points_by_hardware(
    inputs: EstimateInputs, measurements: Sequence[Measurement]
) -> tuple[dict[Hardware, list[Measurement]], list[Caution]]:
    """Points of the service's model and engine, by hardware, and cautions about all other points.

    Raises
    ------
    InputError
        A point does not state what was measured, or names something that is not offered.
    """
    served = {one.variant: variant_of(inputs.model, one.variant) for one in inputs.replica_types}
    used, cautions = _usable(measurements, inputs, served)
    matched: dict[Hardware, list[Measurement]] = defaultdict(list)
    for point in used:
        matched[_measured_hardware(point, inputs, served)].append(point)
    return dict(matched), cautions


def _usable(
    measurements: Sequence[Measurement], inputs: EstimateInputs, served: Mapping[str, Model]
) -> tuple[list[Measurement], list[Caution]]:
    """Points of this model and engine, and cautions about other points and doubtful points."""
    used, cautions = [], []
    for point in measurements:
        if point.engine and find_era(point.engine).name != inputs.era.name:
            what = f"{point.source}: measured with {point.engine}, but the service runs {inputs.engine_name}; skipped"
            cautions.append(Caution("anchor", what))
        elif point.model and not _served_variants(point.model, served):
            what = f"{point.source}: measured {point.model}, but the service runs {served[''].name}"
            cautions.append(Caution("anchor", f"{what}{_in_words(served)}; skipped"))
        else:
            used.append(point)
            if point.failed:
                what = f"{point.source}: {count_of(point.failed, 'request')} failed; measure at a lower load"
                cautions.append(Caution("anchor", what))
    return used, cautions


def _served_variants(name: str, served: Mapping[str, Model]) -> list[str]:
    """Variants that a measured model may be; all if its name is unknown: servers may use any name for a model."""
    try:
        found = find_model(name or "unnamed")
    except InputError:
        return list(served)
    shape = ("layers", "hidden_size", "heads", "kv_heads", "experts", "vocabulary_size")
    return [
        variant
        for variant, model in served.items()
        if all(getattr(found, one) == getattr(model, one) for one in shape)
        and math.isclose(found.weight_bytes(), model.weight_bytes(), rel_tol=1e-3)
    ]


def _in_words(served: Mapping[str, Model]) -> str:
    return f" in {', '.join(dict.fromkeys(model.weight_dtype for model in served.values()))}"


def _measured_hardware(point: Measurement, inputs: EstimateInputs, served: Mapping[str, Model]) -> Hardware:
    """The service's hardware on which a point was measured."""
    names, hardware = [one.name for one in inputs.replica_types], inputs.hardware
    if point.replica_type in names:
        return hardware[names.index(point.replica_type)]
    name = point.accelerator or point.replica_type
    if not name:
        raise InputError(
            f"{point.source}: does not name the replica that was measured",
            hint="name it: --anchor A10G=results.json, or 'A10G tp2=results.json' for two of it",
        )
    accelerator, degree = split_name(name)
    degree = point.tensor_parallel or degree
    wanted = (accelerator, degree, _served_variants(point.model, served)[0])
    plain = [one for one in hardware if one.layout.is_plain]
    matches = {one for one in plain if (one.accelerator, one.tensor_parallel, one.variant) == wanted}
    if len(matches) > 1:
        raise InputError(
            f"{point.source}: {accelerator} x {degree} is offered with two kinds of links; name the replica type",
            hint="melange profile lists replica types",
        )
    if matches:
        return matches.pop()
    degrees = sorted({one.tensor_parallel for one in plain if one.accelerator == accelerator})
    if degrees:
        listed = ", ".join(map(str, degrees))
        raise InputError(f"{point.source}: {accelerator} is offered split over {listed}, not over {degree}")
    if accelerator in inputs.facts_by_name:
        raise InputError(
            f"{point.source}: {accelerator} is not among the offers of the service",
            hint="add it to offers.gpus, or leave out the file",
        )
    raise unknown("replica type or accelerator", name, [*names, *inputs.facts_by_name], place=point.source)
