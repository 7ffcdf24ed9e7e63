"""The same service under other assumptions, side by side: prices, traffic, and offers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from melange.catalog.price_rules import adjusted, price_rule
from melange.errors import InfeasibleError, InputError, MelangeError
from melange.files import Json
from melange.plan.energy import energy_of
from melange.service.session import Session
from melange.service.stages import offers_of
from melange.units import count_of

if TYPE_CHECKING:
    from melange.plan.plan import Plan

_TIMES = re.compile(r"x\s*(\d+(?:\.\d+)?)")
_CHANGE = re.compile(r"([+-]\d+(?:\.\d+)?)\s*%")
BASE = "current"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One assumption, or several combined.

    Parameters
    ----------
    label
        The assumption as the user wrote it.
    settings
        The settings that express it, ``key=value`` each.
    """

    label: str
    settings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The result of a variant.

    Parameters
    ----------
    variant
        The assumption.
    plan
        The cheapest plan; None if there is none.
    reason
        Why there is no plan; otherwise empty.
    """

    variant: Variant
    plan: Plan | None = None
    reason: str = ""

    @property
    def cost_per_h(self) -> float | None:
        """Cost of its plan [USD/h]; None if there is no plan."""
        return None if self.plan is None else self.plan.cost_per_h

    @property
    def carbon_kg_per_h(self) -> float | None:
        """Emissions of its plan at the planned traffic [kg CO2e/h]; None without a plan, or if powers are unknown."""
        total = None if self.plan is None else energy_of(self.plan).get("total")
        return None if total is None else total.carbon_kg_per_h

    @property
    def served_fraction(self) -> float | None:
        """Share of all requests that its plan carries, as :attr:`Plan.served_fraction`; None if there is no plan."""
        return None if self.plan is None else self.plan.served_fraction

    @property
    def fleet(self) -> dict[str, int]:
        """Instances by replica type, only types in use."""
        counted = {} if self.plan is None else self.plan.instances_by_name
        return {name: count for name, count in counted.items() if count > 0}

    def to_json(self) -> Json:
        """As a JSON object; the plan as in ``plan.json``, without its question."""
        shown: Json = {"label": self.variant.label, "settings": list(self.variant.settings), "reason": self.reason}
        if self.plan is None:
            empty = dict.fromkeys(("served_fraction", "attainment", "carbon_kg_per_h"))
            return shown | {"cost_per_h": None, "instances": {}, **empty}
        return shown | {
            "cost_per_h": self.plan.cost_per_h,
            "instances": self.fleet,
            "served_fraction": self.served_fraction,
            "attainment": self.plan.attainment,
            "carbon_kg_per_h": self.carbon_kg_per_h,
        }


def answer(open_session: Callable[[Sequence[str]], Session], variant: Variant, *, quick: bool = False) -> Answer:
    """The plan of a variant, or why there is none.

    Parameters
    ----------
    open_session
        Opens the service with additional settings.
    variant
        The assumption.
    quick
        Use the closed form only.

    Raises
    ------
    InputError
        The service itself cannot be planned. An assumption that cannot is an answer, with the reason.
    """
    try:
        session = open_session(variant.settings)
        return Answer(variant=variant, plan=session.plan() if quick else session.answer())
    except MelangeError as error:
        if isinstance(error, InputError) and not variant.settings:
            raise
        return Answer(variant=variant, reason=_reason(error))


def _reason(error: MelangeError) -> str:
    """Why there is no plan, in a line."""
    said = str(error).partition("\n")[0]
    if not isinstance(error, InfeasibleError):
        return said
    first, *more = error.reasons or ("",)
    why = f": {first}" if first else ""
    rest = f"; and {count_of(len(more), 'more reason')}" if more else ""
    return f"infeasible: {said}{why}{rest}"


def read(session: Session) -> None:
    """Read all inputs of a service.

    Raises
    ------
    InputError
        One is missing or invalid.
    """
    with suppress(InfeasibleError):  # answered with the plans
        session.question()


def change_variant(open_session: Callable[[Sequence[str]], Session], change: str) -> Variant:
    """``slo.tpot_ms=100``: another value of a key of the service.

    Raises
    ------
    InputError
        The service has no such key, or cannot be read with this value: an unknown model, a missing file.
    """
    try:
        read(open_session((change,)))
    except InputError as error:
        said = str(error).replace("--set: ", "").replace("--set ", "--change ")
        said = said if said.startswith("--change ") else f"--change {change}: {said}"
        raise InputError(said, hint=error.hint.replace("--set ", "--change ")) from error
    return Variant(label=change, settings=(change,))


def price_variant(session: Session, change: str) -> Variant:
    """``H100=-30%``: other prices, in addition to those of ``offers.prices``."""
    who, is_given, value = change.rpartition("=")
    if not is_given or not who.strip():
        raise InputError(f"--price {change}: must be NAME=CHANGE", hint="for example --price H100=-30%")
    rules = dict(_service(session).offers.prices)
    offers, _ = offers_of(_service(session), session.catalog)
    try:
        rule = price_rule(who, value)
        adjusted(offers, [rule], session.catalog.accelerators)
    except InputError as error:
        raise InputError(str(error).replace("offers.prices", f"--price {change}", 1), hint=error.hint) from error
    if who in rules and rule.factor is not None:  # a change of the price that the service's own rule leaves
        own = price_rule(who, rules[who])
        price = own.price_per_h
        value = (
            f"{100 * ((own.factor or 1.0) * rule.factor - 1):+.6f}".rstrip("0").rstrip(".") + "%"
            if price is None
            else f"{price * rule.factor!r}"
        )
    return Variant(label=f"price {change}", settings=(_setting("offers.prices", {**rules, who: value}),))


def rate_variant(session: Session, change: str) -> Variant:
    """``x2``, ``+20%`` or a number of requests/s: the same traffic at another rate."""
    if match := _TIMES.fullmatch(change.strip()):
        factor = float(match[1])
    elif match := _CHANGE.fullmatch(change.strip()):
        factor = 1 + float(match[1]) / 100
    else:
        try:
            return _at_rate(float(change), f"rate {change}")
        except ValueError:
            raise InputError(
                f"--rate {change}: must be a factor such as x2, a change such as +20%, or requests/s"
            ) from None
    statistic = _service(session).workload.rate
    if isinstance(statistic, str):
        raise InputError(
            f"--rate {change}: the service plans for {statistic} of its log, which cannot be scaled",
            hint=f"give requests/s: --rate {session.workload().total_rate * factor:.4g}",
        )
    return _at_rate(session.workload().total_rate * factor, f"rate {change}")


def _at_rate(rate: float, label: str) -> Variant:
    if not 0 < rate < float("inf"):
        raise InputError(f"--{label}: leaves {rate:g} requests/s")
    return Variant(label=label, settings=(f"workload.rate={rate:.12g}",))


def without_variant(session: Session, name: str) -> Variant:
    """Exclude an accelerator or a replica type, or all offers of a provider, region or market."""
    service, profile = _service(session), session.profile()
    accelerator = session.catalog.find_accelerator(name) or name
    types = profile.replica_types
    if any(accelerator in (one.offer.accelerator, one.name) for one in types):
        return Variant(label=f"without {name}", settings=(_excluding(service, [accelerator]),))
    for field in ("provider", "region", "market"):
        # Types are excluded, not offers: limits and requirements may name them.
        found = [one.name for one in types if getattr(one.offer, field).casefold() == name.casefold()]
        if found:
            return Variant(label=f"without {name}", settings=(_excluding(service, found),))
    known = sorted({one.offer.accelerator for one in types} | {one.offer.provider for one in types} - {""})
    raise InputError(
        f"--without {name}: no replica type has this accelerator, provider, region or market",
        hint=f"choose from: {', '.join(known)}",
    )


def _excluding(service: Any, names: Iterable[str]) -> str:
    """The setting that excludes types in addition to those that the service excludes."""
    return _setting("plan.exclude", list(dict.fromkeys([*service.plan.exclude, *names])))


def together(variants: Sequence[Variant]) -> Variant:
    """Several variants combined into one.

    Raises
    ------
    InputError
        Two variants set the same key to different values, so the combination is ambiguous.
    """
    value_by_key: dict[str, str] = {}
    for variant in variants:
        for setting in variant.settings:
            key, _, value = setting.partition("=")
            if key in _MERGED and key in value_by_key:
                value = _merged(value_by_key[key], value)
            elif value_by_key.get(key, value) != value:
                raise InputError(f"{key} is {value_by_key[key]} in one and {value} in another: they cannot be combined")
            value_by_key[key] = value
    settings = tuple(f"{key}={value}" for key, value in value_by_key.items())
    return Variant(label="all combined", settings=settings)


# Keys whose values add up.
_MERGED = ("offers.prices", "plan.exclude")


def _merged(one: str, other: str) -> str:
    first, second = json.loads(one), json.loads(other)
    return json.dumps(first | second if isinstance(first, dict) else list(dict.fromkeys([*first, *second])))


def _setting(key: str, value: Any) -> str:
    return f"{key}={json.dumps(value)}"


def _service(session: Session) -> Any:
    if session.service is None:
        raise InputError(f"{session.source}: what-if needs a service", hint="give a service.yaml")
    return session.service
