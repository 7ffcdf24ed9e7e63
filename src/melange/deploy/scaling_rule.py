"""The scaling rule of a schedule for a scaler: KEDA on Prometheus, KEDA by time of day, or plain JSON.

The load comes from the bundled balancer's counters by request size (``melange_completed_requests_total``). A recording
rule sums them with the weights of each signal, and the scaler uses the recorded values to look ahead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from melange.deploy import timetable
from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS
from melange.deploy.scaled_objects import (
    capped,
    common_cautions,
    deployment_names,
    files_of,
    ignored_steps,
    scaled_object,
)
from melange.deploy.schedule_options import KedaOptions, RuleFileOptions, ScheduleTarget
from melange.deploy.targets.launchers import sky_schedule
from melange.deploy.targets.terraform import terraform_schedule
from melange.errors import Caution, InputError, unknown
from melange.plan.schedule.rule import HIGHEST, LINE, RuleSettings, ScalingRule, Signal
from melange.plan.schedule.schedule import Schedule
from melange.profile.profile import ReplicaType
from melange.workload.workload import Buckets

# Interval at which a signal is recorded [s].
_RECORDED_S = 60
# Longest time for which Kubernetes' autoscaler waits before it scales down [s].
_MOST_LISTED = 1_000  # instances of a type that are looked at
_MOST_STABLE_S = 3600
_ABOUT = """\
Rule for {name}: {settings}. {signals} in Prometheus (recording-rules.yaml), in instances; KEDA takes the highest. An
instance has {pods}.

Apply: load recording-rules.yaml in Prometheus, then kubectl apply -f scaled-object.yaml, with KEDA in the cluster.
"""


def render_rule(
    schedule: Schedule, target: str, options: Mapping[str, object] | None = None, *, written: date | None = None
) -> Manifest:
    """A schedule's rule as files.

    Parameters
    ----------
    schedule
        The schedule with the rule.
    target
        ``keda``, ``cron``, ``skypilot``, ``terraform`` or ``json``.
    options
        The target's options (``SCHEDULE_TARGETS[target].declared``).
    written
        The date in the files; None: today (UTC).

    Raises
    ------
    InputError
        An unknown target, unknown options or invalid values, a schedule without a rule, or a missing time zone.
    """
    found = schedule_target_of(target)
    return found.render(schedule, found.chosen(options or {}), written or datetime.now(UTC).date())


def schedule_target_of(name: str) -> ScheduleTarget[Any]:
    """The target of schedules of that name.

    Raises
    ------
    InputError
        There is no such target; the error names those that a schedule has.
    """
    if name in SCHEDULE_TARGETS:
        return SCHEDULE_TARGETS[name]
    fault = str(unknown("target of a schedule", name, SCHEDULE_TARGETS))
    if name in TARGETS:
        fault = f"{name} is a target of plans: its files cannot follow the hours of a schedule"
    own = f"a schedule has the targets {', '.join(SCHEDULE_TARGETS)}"
    raise InputError(fault, hint=f"{own}; elsewhere melange operate --schedule follows it")


def _rule_of(schedule: Schedule) -> tuple[ScalingRule, Buckets]:
    rule = schedule.rule
    if rule is None:
        raise InputError(
            "the schedule has no scaling rule: its reserved instances carry all traffic",
            hint="there is nothing to scale",
        )
    if rule.buckets is None:
        raise InputError("the schedule file does not say which request sizes its weights are for", hint="plan it again")
    return rule, rule.buckets


def _json(schedule: Schedule, options: RuleFileOptions, written: date) -> Manifest:
    content = {
        **_rule_of(schedule)[0].to_json(),
        "wanted": "max over signals of ceil(ahead x (1 + margin) / target - reserved_load), but at most `most`",
    }
    return Manifest(target="json", files={"rule.json": json.dumps(content, indent=1) + "\n"})


def _keda(schedule: Schedule, options: KedaOptions, written: date) -> Manifest:
    rule, buckets = _rule_of(schedule)
    if buckets.is_ordinal:
        raise InputError("request sizes are only numbered, but the balancer counts them by tokens")
    names = deployment_names(schedule, None)
    if rule.replica_type not in names:
        raise InputError(f"rule.replica_type {rule.replica_type!r} is not a type of the schedule", hint="plan it again")
    place = [*names].index(rule.replica_type)
    one = schedule.replica_types[place]
    per_instance = one.replicas_per_instance
    stable_s = int(rule.settings.stable_windows * rule.window_s)
    rules = [
        {"record": f"melange:signal{k}:instances", "expr": _signal(signal, buckets, rule.window_s)}
        for k, signal in enumerate(rule.signals)
    ]
    triggers = [
        {
            "type": "prometheus",
            "name": f"signal{k}",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": options.prometheus,
                "query": _in_pods(_stable(_query(k, signal, rule), stable_s), per_instance),
                "threshold": "1",
            },
        }
        for k, signal in enumerate(rule.signals)
    ]
    needed = _needed(schedule, place)
    most = 2 * max(1, int(np.ceil(needed - 1e-9)))
    most = most if rule.most is None else min(most, max(1, rule.most))
    most = (most if options.most is None else options.most) * per_instance
    name = options.deployment or names[one.name]
    waits_s = stable_s if stable_s <= _MOST_STABLE_S else 0
    documents = {
        "recording-rules.yaml": {
            "groups": [{"name": "melange-schedule", "interval": f"{_RECORDED_S}s", "rules": rules}]
        },
        "scaled-object.yaml": scaled_object(name, options, triggers, (0, most), waits_s),
    }
    cautions = (*_cautions(schedule, rule, one), *capped(one.name, options.most, needed), *_too_small(one, most))
    count = len(rule.signals)
    about = _ABOUT.format(
        name=one.name,
        settings=rule.settings.words,
        signals="One weighted sum of request rates is recorded"
        if count == 1
        else f"{count} weighted sums of request rates are recorded",
        pods="one pod" if per_instance == 1 else f"{per_instance} pods, one for each replica",
    )
    return Manifest(target="keda", files=files_of(schedule, written, about, cautions, documents), cautions=cautions)


def _needed(schedule: Schedule, place: int) -> float:
    """Instances of one type that cost as much as those of the busiest hour beyond the reserved ones, on demand."""
    price = schedule.on_demand_per_h
    counts = schedule.on_demand + schedule.spot
    if not np.isfinite(price[place]) or price[place] <= 0 or not np.isfinite(price[counts.any(axis=0)]).all():
        return float(counts.sum(axis=1).max())
    return float((counts @ np.where(np.isfinite(price), price, 0.0)).max() / price[place])


def _cautions(schedule: Schedule, rule: ScalingRule, one: ReplicaType) -> list[Caution]:
    words = (
        "the rule counts completed requests of melange balance: while a fleet is overloaded they lag behind arrivals; "
        "without the balancer, record melange:signal0:instances from your own counters by size"
    )
    said = [Caution("completed", words), *common_cautions(schedule, [one])]
    if rule.spot_share:
        words = (
            f"the rule runs up to {rule.spot_share:.0%} of the load on spot, which a ScaledObject cannot do: its pods "
            "run in the market of the Deployment"
        )
        said.append(Caution("spot", words))
    return said


def _too_small(one: ReplicaType, most: int) -> list[Caution]:
    per_instance = one.replicas_per_instance
    steps = ignored_steps(range(0, min(most, _MOST_LISTED * per_instance) + 1, per_instance))
    if not steps:
        return []
    words = f"Kubernetes ignores changes of up to 10 %: from {steps[0][0]} pods on, one more instance is not started"
    return [Caution("tolerance", f"{one.name}: {words} at once; see --horizontal-pod-autoscaler-tolerance")]


def _stable(query: str, stable_s: int) -> str:
    """The highest value of the time before giving back, where it is longer than the autoscaler can wait."""
    return query if stable_s <= _MOST_STABLE_S else f"max_over_time(({query})[{stable_s}s:{_RECORDED_S}s])"


def _in_pods(query: str, per_instance: int) -> str:
    """Pods of whole instances."""
    return query if per_instance == 1 else f"{per_instance} * ceil({query})"


def _signal(signal: Signal, buckets: Buckets, window_s: float) -> str:
    """PromQL of one signal: weights times rates by size; sizes without requests count as 0."""
    parts = []
    for i, o in np.argwhere(signal.request_weight > 0).tolist():
        k, row = divmod(i, len(buckets.input_edges))
        labels = f'input_upto="{buckets.input_edges[row]}",output_upto="{buckets.output_edges[o]}"'
        labels += f',class="{buckets.classes[k]}"' if buckets.classes else ""
        rate = f"sum(rate(melange_completed_requests_total{{{labels}}}[{window_s:.0f}s]))"
        parts.append(f"{signal.request_weight[i, o]:.6g} * ({rate} or vector(0))")
    return "\n+ ".join(parts)


def _query(k: int, signal: Signal, rule: ScalingRule) -> str:
    """PromQL of the instances that a signal requires, before rounding up."""
    one, name = rule.settings, f"melange:signal{k}:instances"
    ahead = _ahead(name, one, rule)
    scale = (1 + one.margin) / one.target
    return f"clamp_min({scale:.6g} * {ahead} - {signal.reserved_load:.6g}, 0)"


def _ahead(name: str, one: RuleSettings, rule: ScalingRule) -> str:
    # The newest window is already recorded, so looking back over k windows takes k - 1 steps.
    back_s = max(1, round((one.look_back - 1) * rule.window_s + _RECORDED_S))
    if one.ahead == HIGHEST:
        return f"max_over_time({name}[{back_s}s])"
    if one.ahead == LINE:
        ahead_s = (1 + np.ceil(rule.delay_windows)) * rule.window_s
        return f"predict_linear({name}[{back_s}s], {ahead_s:.0f})"
    return name


_KEDA = ScheduleTarget(
    name="keda",
    about="The scaling rule: a KEDA ScaledObject on load by request size, and Prometheus recording rules.",
    options=KedaOptions,
    render=_keda,
)
_JSON = ScheduleTarget(
    name="json",
    about="The scaling rule with its weights, for a scaler of your own.",
    options=RuleFileOptions,
    render=_json,
)
SCHEDULE_TARGETS: Mapping[str, ScheduleTarget[Any]] = {
    one.name: one for one in (_KEDA, timetable.TARGET, sky_schedule.TARGET, terraform_schedule.TARGET, _JSON)
}
