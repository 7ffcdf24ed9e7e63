"""What would save 20 %? The smallest change of each limit, reserve or restriction of a service that reaches a cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from melange.errors import InputError
from melange.files import Json
from melange.plan.options import CARBON
from melange.service.session import Session
from melange.service.what_if import Answer, Variant, answer
from melange.units import MS_PER_S, limit_in_ms

if TYPE_CHECKING:
    from melange.plan.plan import Plan
    from melange.service.schema import Service

# How far a limit is relaxed and traffic reduced, at most: beyond that it is another service. Chosen by judgment.
_LOOSEST, _LEAST_TRAFFIC = 4.0, 0.5
# Number of steps: limits are found within 9 % (the 16th root of 4), and rounded up.
_STEPS = 16
# Shares of the requests that may miss the SLO, tried in this order.
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
# Tolerance for rounding when a saving by closed form is compared with the wanted one [share of the cost].
_SLACK = 1e-9
_ALSO_SPOT = "also spot instances"


@dataclass(frozen=True, slots=True, kw_only=True)
class Relaxation:
    """One change and its saving.

    Parameters
    ----------
    answer
        The plan with the change; its variant says what changes.
    saved_fraction
        Saving as a share of the service's current cost (0-1); negative if the change costs more.
    is_enough
        Whether this reaches the wanted saving.
    """

    answer: Answer
    saved_fraction: float
    is_enough: bool

    def to_json(self) -> Json:
        """As a JSON object."""
        return self.answer.to_json() | {"saved_fraction": self.saved_fraction, "is_enough": self.is_enough}


def relaxations(
    open_session: Callable[[Sequence[str]], Session],
    base: Answer,
    wanted: float,
    *,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[Relaxation, ...]:
    """The smallest change of each kind that saves a share of the cost, or the largest change that was tried.

    Each kind is searched by closed form. Unless ``quick``, a certified plan then gives the answer.

    Parameters
    ----------
    open_session
        Opens the service with additional settings.
    base
        The unchanged service, answered as ``quick`` says.
    wanted
        Wanted saving as a share of the service's current cost (0-1).
    quick
        Use the closed form only.
    progress
        Called with each change that is tried.

    Returns
    -------
    tuple
        Changes that save enough first, then the others by saving.
    """
    assert base.cost_per_h is not None
    if base.plan is not None and base.plan.options.objective == CARBON:
        raise InputError(
            "what-if --save: plan.objective: carbon minimizes emissions at any cost",
            hint="--change plan.objective=cost compares it with the cheapest plan",
        )
    if base.plan is not None and base.plan.options.budget_per_h is not None:
        raise InputError(
            "what-if --save: under plan.budget_per_h, plans differ in the requests that they serve",
            hint="--set plan.budget_per_h=null compares what it costs to serve all of them",
        )
    session = open_session(())
    assert session.service is not None
    plain = base if quick else answer(open_session, base.variant, quick=True)
    simulated_goal = (1 - wanted) * base.cost_per_h
    closed_goal = (1 - wanted) * (plain.cost_per_h or base.cost_per_h)

    @cache
    def answered(variant: Variant, *, is_closed: bool) -> Answer:
        progress(variant.label)
        return answer(open_session, variant, quick=is_closed)

    def seems_enough(is_simulated: bool, variant: Variant) -> bool:
        cost = _costs(answered(variant, is_closed=not is_simulated))
        return cost <= (simulated_goal if is_simulated else closed_goal) * (1 + _SLACK)

    found = []
    for kind in _kinds(session.service, session):
        if kind.is_simulated and quick:
            continue
        for step in _steps(kind, partial(seems_enough, kind.is_simulated)):
            there = answered(kind.at(step), is_closed=quick)
            saved = 1 - _costs(there) / base.cost_per_h
            if saved >= wanted - _SLACK:
                break
        if there.plan is not None:
            there = replace(there, variant=_with_note(there.variant, there.plan))
            found.append(Relaxation(answer=there, saved_fraction=saved, is_enough=saved >= wanted - _SLACK))
    return tuple(sorted(found, key=lambda one: (not one.is_enough, -one.saved_fraction)))


def _with_note(variant: Variant, plan: Plan) -> Variant:
    """The change; spot instances with a note if none are offered there."""
    if variant.label != _ALSO_SPOT or any(one.offer.market == "spot" for one in plan.replica_types):
        return variant
    return replace(variant, label=f"{_ALSO_SPOT} (no spot offers known)")


def _costs(one: Answer) -> float:
    return math.inf if one.cost_per_h is None else one.cost_per_h


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A kind of change, with steps from the smallest to the largest.

    Parameters
    ----------
    at
        Gives the change of a step, 1 to ``count``.
    count
        Number of steps.
    is_simulated
        Whether only simulation shows the saving: the closed form ignores the share of requests.
    """

    at: Callable[[int], Variant]
    count: int = 1
    is_simulated: bool = False


def _steps(kind: _Kind, is_enough: Callable[[Variant], bool]) -> Iterator[int]:
    """Steps to answer until one saves enough: the first that seems to, by bisection, and then larger ones.

    A step that saves enough by closed form may not save enough in simulation.
    """
    low, high = 0, kind.count
    if kind.count > 1 and is_enough(kind.at(kind.count)):
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_enough(kind.at(middle)) else (middle, high)
    yield from dict.fromkeys((high, math.ceil((high + kind.count) / 2), kind.count))


def _kinds(service: Service, session: Session) -> Iterator[_Kind]:
    """All kinds of change that are possible for a service."""
    for metric in ("ttft", "tpot", "ntpot", "latency"):
        limit = getattr(service.slo, f"{metric}_ms")
        if limit is not None:
            yield _Kind(at=_looser(metric, limit), count=_STEPS)
    misses = 1 - session.slo.target
    shares = [share for share in _SHARES if share > misses]
    if session.slo.is_on_requests and shares:
        yield _Kind(at=_fewer(misses, shares), count=len(shares), is_simulated=True)
    rate = service.workload.rate
    if not isinstance(rate, str):
        yield _Kind(at=_less_traffic(session.workload().total_rate), count=_STEPS)
    for label, setting in (*_reserves(service), *_restrictions(service)):
        yield _Kind(at=partial(_as_said, Variant(label=label, settings=(setting,))))


def _as_said(variant: Variant, _: int) -> Variant:
    return variant


def _looser(metric: str, limit_ms: float) -> Callable[[int], Variant]:
    def at(step: int) -> Variant:
        value = _rounded_up(limit_ms * _LOOSEST ** (step / _STEPS))
        now = limit_in_ms(limit_ms / MS_PER_S).removesuffix(" ms")
        label = f"{metric.upper()} <= {limit_in_ms(value / MS_PER_S)} instead of {now}"
        return Variant(label=label, settings=(f"slo.{metric}_ms={value!r}",))

    return at


def _rounded_up(value: float) -> float:
    """Round up to two significant digits.

    >>> _rounded_up(1091.0), _rounded_up(80.1)
    (1100.0, 81.0)
    """
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / unit - 1e-9) * unit:.6g}")


def _fewer(misses: float, shares: Sequence[float]) -> Callable[[int], Variant]:
    def at(step: int) -> Variant:
        share = 1 - shares[step - 1]
        label = f"SLO for {100 * share:.6g}% of the requests instead of {100 * (1 - misses):.6g}%"
        return Variant(label=label, settings=(f"slo.attainment={share:.6g}",))

    return at


def _less_traffic(rate: float) -> Callable[[int], Variant]:
    def at(step: int) -> Variant:
        share = 1 - (1 - _LEAST_TRAFFIC) * step / _STEPS
        return Variant(label=f"{100 * (1 - share):.3g}% less traffic", settings=(f"workload.rate={rate * share:.12g}",))

    return at


def _reserves(service: Service) -> Iterator[tuple[str, str]]:
    """Settings that rent more than the traffic needs, and the same settings without them."""
    plan = service.plan
    for key, least in (
        ("spare_replicas", 0),
        ("spare_total_replicas", 0),
        ("min_replicas", 1),
        ("min_total_replicas", 0),
    ):
        value = getattr(plan, key)
        if value not in (least, {}):
            yield f"plan.{key}: {least} instead of {value}", f"plan.{key}={least}"


def _restrictions(service: Service) -> Iterator[tuple[str, str]]:
    """Settings that exclude fleets, and the same settings without them."""
    plan, offers = service.plan, service.offers
    for section, name, values in (
        ("plan", "max_types", plan.max_types),
        ("plan", "require", plan.require),
        ("plan", "exclude", plan.exclude),
        ("offers", "max", offers.max),
        ("offers", "gpus", offers.gpus),
        ("offers", "providers", offers.providers),
        ("offers", "regions", offers.regions),
    ):
        if values:
            empty = {"require": "[]", "exclude": "[]", "max": "{}"}.get(name, "null")
            yield f"without {section}.{name}", f"{section}.{name}={empty}"
    if "spot" not in offers.market:
        yield _ALSO_SPOT, f"offers.market=[{', '.join([*offers.market, 'spot'])}]"
