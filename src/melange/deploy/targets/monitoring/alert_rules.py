"""Alert rules for Prometheus: fast burn of the SLO's error budget, a slow replica type, an outdated plan."""

from __future__ import annotations

from typing import Any

from melange.deploy.targets.monitoring import queries
from melange.deploy.targets.monitoring.queries import asked

# Multiwindow, multi-burn-rate alerts from the Site Reliability Workbook (chapter 5): 2 % of a month's budget in an
# hour, or 5 % in six hours. A short window confirms each, so that an alert ends when the burning ends.
_BURNS = (("Fast", "1h", "5m", 14.4, "2m", "page"), ("Slow", "6h", "30m", 6.0, "15m", "ticket"))
# A type needs at least this request rate [1/s] to be judged: a few stray requests in an hour are noise.
_LEAST_RATE = 0.05
_UNSERVED = 0.01
_STALE = '{state=~"cheaper|short",'
_Rule = dict[str, Any]


def rules_of(name: str, selector: str) -> dict[str, Any]:
    """The rule groups of a service."""
    lengths = sorted({length for burn in _BURNS for length in burn[1:3]})
    recorded = [
        {"record": _recorded(length), "labels": {"service": name}, "expr": asked(queries.ATTAINMENT, selector, length)}
        for length in lengths
    ]
    return {
        "groups": [
            {"name": f"melange-{name}-attainment", "rules": recorded},
            {"name": f"melange-{name}-alerts", "rules": [*_burns(name, selector), *_others(name, selector)]},
        ]
    }


def _recorded(length: str) -> str:
    return f"melange:slo_attainment:rate{length}"


def _burns(name: str, selector: str) -> list[_Rule]:
    found = []
    for word, long, short, times, wait, severity in _BURNS:
        budget = f"{times:g} * (1 - {asked(queries.TARGET, selector, long)})"
        parts = [f'(1 - {_recorded(length)}{{service="{name}"}}) > {budget}' for length in (long, short)]
        about = f"The error budget of the SLO burns {times:g} times as fast as it may over {long}"
        found.append(_alert(f"MelangeSloBurn{word}", " and ".join(parts), wait, severity, name, about))
    return found


def _others(name: str, selector: str) -> list[_Rule]:
    def ask(query: str, length: str = "10m") -> str:
        return asked(query, selector, length)

    behind = (
        f"({ask(queries.ATTAINMENT_BY_TYPE, '30m')}) < {ask(queries.TARGET)}"
        f" and on (type) {ask(queries.JUDGED_BY_TYPE, '30m')} > {_LEAST_RATE:g}"
    )
    return [
        _alert("MelangeTypeBehind", behind, "15m", "ticket", name, "{{ $labels.type }} misses the SLO's target"),
        _alert(
            "MelangeTypeOverloaded",
            f"{ask(queries.LOAD)} > on (type) {ask(queries.UP)}",
            "10m",
            "page",
            name,
            "{{ $labels.type }} gets more than its replicas can serve within the SLO",
        ),
        _alert(
            "MelangeReplicasMissing",
            f"{ask(queries.UP)} < on (type) {ask(queries.PLANNED_REPLICAS)}",
            "15m",
            "ticket",
            name,
            "{{ $labels.type }} has fewer replicas than the plan",
        ),
        _alert(
            "MelangeRequestsUnserved",
            f"{ask(queries.MISSED)} > {_UNSERVED:g} * {ask(queries.REQUESTS)}",
            "5m",
            "page",
            name,
            "More than 1 % of the requests get no answer",
        ),
        _alert(
            "MelangePlanStale",
            f"{ask(queries.DRIFT.replace('{', _STALE))} == 1",
            "1h",
            "ticket",
            name,
            "The plan does not fit the traffic ({{ $labels.state }}): plan again",
        ),
        _alert(
            "MelangePlanUnchecked",
            f"time() - {ask(queries.DRIFT_CHECKED)} > 7200 and {ask(queries.DRIFT_CHECKED)} > 0",
            "5m",
            "ticket",
            name,
            "The plan was not compared with the traffic for two hours",
        ),
    ]


def _alert(alert: str, expr: str, wait: str, severity: str, name: str, about: str) -> _Rule:
    return {
        "alert": alert,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity, "service": name},
        "annotations": {"summary": f"{name}: {about}."},
    }
