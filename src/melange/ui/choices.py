"""The user's choices on the page: parsed from a URL's query, checked, and converted to settings of the service.

No choice is a file path: logs are chosen from those given on the command line and those uploaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from melange.errors import InputError
from melange.service.schema import Service
from melange.slo import METRICS

# Sources of traffic that are not logs: the service's own, and a mixture of bundled data sets.
OWN, MIXTURE = "own", "mixture"
# Values of a list for no restriction, and for an empty list.
ALL, NONE = "all", "none"
PERCENT = 100.0
# Most names in one list: a query has at most a few kilobytes.
_MOST_NAMES = 200


def _names(value: Any) -> Any:
    return [name for name in value.split(",") if name] if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """``name:value,name:value`` as a mapping; a name may contain colons or spaces."""
    if not isinstance(value, str):
        return value
    pairs = [one.rpartition(":") for one in value.split(",") if one]
    return {name: number for name, _, number in pairs}


_Names = Annotated[list[str], Field(max_length=_MOST_NAMES), BeforeValidator(_names)]
_Limit = Annotated[float, Field(gt=0, le=1e9)] | Literal["none"] | None
_Count = Annotated[int, Field(ge=0, le=10_000)] | None


class Choices(BaseModel):
    """Choices that differ from the service's own; if all are None, the service is unchanged."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: Annotated[float, Field(gt=0, le=1e7)] | None = None
    growth: Annotated[float, Field(ge=-99, le=10_000)] = 0.0
    traffic: Annotated[str, Field(max_length=200)] = OWN
    mix: Annotated[dict[str, Annotated[float, Field(ge=0, le=1e6)]], BeforeValidator(_pairs)] = {}
    ttft_ms: _Limit = None
    tpot_ms: _Limit = None
    ntpot_ms: _Limit = None
    latency_ms: _Limit = None
    attainment: Annotated[float, Field(gt=0, le=PERCENT)] | None = None
    statistic: Annotated[str, Field(pattern=r"^(requests|mean|p\d\d(\.\d)?)$")] | None = None
    gpus: _Names | None = None
    providers: _Names | None = None
    regions: _Names | None = None
    market: _Names | None = None
    max: Annotated[dict[str, Annotated[int, Field(ge=0, le=100_000)]], BeforeValidator(_pairs)] | None = None
    spare_replicas: _Count = None
    spare_total_replicas: _Count = None
    min_total_replicas: _Count = None
    max_types: Annotated[int, Field(ge=1, le=100)] | Literal["none"] | None = None
    headroom: Annotated[float, Field(ge=0, lt=PERCENT)] | None = None

    @classmethod
    def of(cls, query: Iterable[tuple[str, str]]) -> Choices:
        """Parse the choices of a query; unknown keys are errors.

        Raises
        ------
        InputError
            An unknown key, a key that is given twice, or a value out of range.
        """
        given: dict[str, str] = {}
        for key, value in query:
            if key in given:
                raise InputError(f"{key[:60]} is given twice in the address")
            given[key] = value
        try:
            return cls(**given)  # type: ignore[arg-type]  # pydantic reads the texts
        except ValidationError as error:
            faults = [f"{'.'.join(map(str, one['loc'][:1]))}: {one['msg']}" for one in error.errors()]
            raise InputError("\n".join(dict.fromkeys(faults)), hint="choose another value on the page") from None

    def query(self) -> tuple[tuple[str, str], ...]:
        """The choices as pairs of a query, without unset ones, in the order of the fields."""
        said = []
        for key in type(self).model_fields:
            value = getattr(self, key)
            if value == type(self).model_fields[key].default:
                continue
            if isinstance(value, dict):
                value = ",".join(f"{name}:{number:g}" for name, number in value.items())
            elif isinstance(value, list):
                value = ",".join(value)
            said.append((key, f"{value:.12g}" if isinstance(value, float) else str(value)))
        return tuple(said)


def settings_of(
    choices: Choices, service: Service, log_path: Callable[[str], str], own_rate: Callable[[str], float]
) -> tuple[str, ...]:
    """The choices that differ from the service as ``key=value`` of ``--set``; values are JSON.

    Parameters
    ----------
    choices, service
        The choices, and the service as its file describes it.
    log_path
        Returns the path of a log by its name on the page.
    own_rate
        Returns the rate of the service's traffic, or of a log by its setting, for adding a growth [1/s].

    Raises
    ------
    InputError
        An unknown log, no data set with a share, or no allowed offers.
    """
    pairs: dict[str, Any] = {}
    traffic = _traffic(choices, service, log_path)
    if traffic is None:
        rate = choices.rate
        if choices.growth:
            rate = _grown(choices, rate or own_rate(""))
        if rate is not None:
            pairs["workload.rate"] = rate
    else:
        rate = choices.rate
        if rate is None and ("dataset" in traffic or choices.growth):
            rate = own_rate("" if "dataset" in traffic else json.dumps(traffic))
        if rate is not None:
            traffic["rate"] = _grown(choices, rate)
        pairs["workload"] = traffic
    for metric in METRICS:
        limit = getattr(choices, f"{metric}_ms")
        if limit is not None:
            pairs[f"slo.{metric}_ms"] = None if limit == NONE else limit
    pairs |= _given("slo", attainment=_share(choices.attainment), statistic=choices.statistic)
    for key in ("gpus", "providers", "regions", "market"):
        names = getattr(choices, key)
        if names is not None:
            pairs[f"offers.{key}"] = _restriction(key, names)
    pairs |= _given("offers", max=choices.max)
    pairs |= _given(
        "plan",
        spare_replicas=choices.spare_replicas,
        spare_total_replicas=choices.spare_total_replicas,
        min_total_replicas=choices.min_total_replicas,
        headroom=_share(choices.headroom),
    )
    if choices.max_types is not None:
        pairs["plan.max_types"] = None if choices.max_types == NONE else choices.max_types
    return tuple(
        f"{key}={_text(value)}" for key, value in pairs.items() if key == "workload" or value != _own(service, key)
    )


def _given(section: str, **values: Any) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in values.items() if value is not None}


def _grown(choices: Choices, rate: float) -> float:
    return float(f"{rate * (1 + choices.growth / PERCENT):.6g}")


def _share(percent: float | None) -> float | None:
    """A share from a percentage, without the division's extra digits."""
    return None if percent is None else float(f"{percent / PERCENT:.12g}")


def _restriction(key: str, names: list[str]) -> list[str] | None:
    if names == [ALL]:
        return ["on-demand", "spot"] if key == "market" else None
    if names in ([], [NONE]):
        raise InputError(f"nothing can be rented: no {key.removesuffix('s')} is chosen", hint="choose at least one")
    return names


def _traffic(choices: Choices, service: Service, log_path: Callable[[str], str]) -> dict[str, Any] | None:
    """The section ``workload`` for traffic other than the service's own, without its rate; None for its own."""
    if choices.traffic == OWN:
        return None
    section: dict[str, Any] = {}
    if choices.traffic == MIXTURE:
        shares = {name: weight for name, weight in choices.mix.items() if weight > 0}
        if not shares:
            raise InputError("the mixture is empty", hint="give at least one data set a share")
        section["dataset"] = _whole(shares)
    else:
        section["trace"] = log_path(choices.traffic)
    for key in ("buckets", "size", "prefix_hit_rate"):
        if key in service.workload.model_fields_set:
            section[key] = service.workload.model_dump(mode="json")[key]
    return section


def _whole(weights: Mapping[str, float]) -> dict[str, float]:
    """Weights as shares that add up to 1, rounded for readers."""
    total = math.fsum(weights.values())
    shares = {name: round(weight / total, 4) for name, weight in weights.items()}
    largest = max(shares, key=lambda name: shares[name])
    shares[largest] = round(1 - math.fsum(share for name, share in shares.items() if name != largest), 4)
    return {name: share for name, share in shares.items() if share > 0}


def _own(service: Service, key: str) -> Any:
    """The service's value of a key, or the default."""
    section, _, name = key.partition(".")
    return getattr(getattr(service, section), name)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return json.dumps(value)
