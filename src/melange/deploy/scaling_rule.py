"""The scaling rule of a schedule for a scaler: KEDA on Prometheus, KEDA by time of day, or plain JSON.

The load comes from the bundled balancer's counters by request size (``melange_completed_requests_total``). A recording
rule sums them with the weights of each signal, and the scaler uses the recorded values to look ahead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from melange.deploy.as_yaml import yaml_text
from melange.deploy.manifest import Manifest
from melange.errors import Caution, InputError, unknown
from melange.plan.problem import Positions
from melange.plan.schedule.rule import HIGHEST, LINE, RuleSettings, ScalingRule, Signal
from melange.plan.schedule.schedule import Schedule
from melange.units import S_PER_MIN
from melange.workload.cycle import WEEK
from melange.workload.workload import Buckets

# Interval at which a signal is recorded [s].
_RECORDED_S = 60
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_OPTIONS = {
    "keda": ("deployment", "namespace", "prometheus", "most"),
    "cron": ("deployment", "namespace", "time_zone", "most"),
    "json": (),
}


def render_rule(schedule: Schedule, target: str, options: Mapping[str, str]) -> Manifest:
    """A schedule's rule as files.

    Parameters
    ----------
    schedule
        The schedule with the rule.
    target
        ``keda``, ``cron`` or ``json``.
    options
        ``deployment`` (its instances are scaled; reserved ones are not part of it), ``namespace``, ``prometheus``,
        ``time_zone``, and ``most``, the maximum number of instances.

    Raises
    ------
    InputError
        An unknown target or option, a schedule without a rule, or a missing time zone.
    """
    if target not in _OPTIONS:
        raise unknown("target of a schedule", target, _OPTIONS)
    for name in options:
        if name not in _OPTIONS[target]:
            raise unknown(f"option of {target}", name, _OPTIONS[target])
    rule = schedule.rule
    if rule is None:
        raise InputError(
            "the schedule has no scaling rule: its reserved instances carry all traffic",
            hint="there is nothing to scale",
        )
    if target == "cron":
        return _cron(schedule, options)
    if rule.buckets is None:
        raise InputError("the schedule file does not say which request sizes its weights are for", hint="plan it again")
    return _json(rule) if target == "json" else _keda(schedule, rule, rule.buckets, options)


def _json(rule: ScalingRule) -> Manifest:
    content = {
        **rule.to_json(),
        "wanted": "max over signals of ceil(ahead x (1 + margin) / target - reserved_load)",
    }
    return Manifest(target="json", files={"rule.json": json.dumps(content, indent=1) + "\n"})


def _keda(schedule: Schedule, rule: ScalingRule, buckets: Buckets, options: Mapping[str, str]) -> Manifest:
    if buckets.is_ordinal:
        raise InputError("request sizes are only numbered, but the balancer counts them by tokens")
    rules = [
        {"record": f"melange:signal{k}:instances", "expr": _signal(signal, buckets, rule.window_s)}
        for k, signal in enumerate(rule.signals)
    ]
    groups = {"groups": [{"name": "melange-schedule", "interval": f"{_RECORDED_S}s", "rules": rules}]}
    triggers = [
        {
            "type": "prometheus",
            "name": f"signal{k}",
            "metricType": "AverageValue",
            "metadata": {
                "serverAddress": options.get("prometheus", "http://prometheus-operated.monitoring:9090"),
                "query": _query(k, signal, rule),
                "threshold": "1",
            },
        }
        for k, signal in enumerate(rule.signals)
    ]
    scaled = _scaled_object(schedule, options, triggers, int(rule.settings.stable_windows * rule.window_s), 0)
    words = (
        "the rule counts completed requests of melange balance: while a fleet is overloaded they lag behind arrivals; "
        "without the balancer, record melange:signal0:instances from your own counters by size"
    )
    return Manifest(
        target="keda",
        files={"recording-rules.yaml": yaml_text([groups]), "scaled-object.yaml": yaml_text([scaled])},
        cautions=(Caution("completed", words),),
    )


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


def _cron(schedule: Schedule, options: Mapping[str, str]) -> Manifest:
    if "time_zone" not in options:
        raise InputError(
            "the schedule's hours are local times, and their time zone is missing",
            hint="--option time_zone=Europe/Berlin: that of the service's workload.time_zone, or Etc/UTC",
        )
    files = {}
    for r, one in enumerate(schedule.replica_types):
        counts = (schedule.on_demand + schedule.spot)[:, r].astype(int)
        if not counts.any():
            continue
        name = _slug(one.name)
        named = {**options, "deployment": options.get("deployment", "melange") + f"-{name}"}
        triggers = [
            {
                "type": "cron",
                "metadata": {
                    "timezone": options["time_zone"],
                    "start": _clock(begin, schedule.over),
                    "end": _clock(end % len(counts), schedule.over),
                    "desiredReplicas": str(count),
                },
            }
            for begin, end, count in _stretches(counts)
            if count
        ]
        files[f"scaled-object-{name}.yaml"] = yaml_text(
            [_scaled_object(schedule, named, triggers, 0, int(counts.min()))]
        )
    return Manifest(target="cron", files=files)


def _stretches(counts: Positions) -> list[tuple[int, int, int]]:
    """First hour, hour after the last, and count of each run of equal counts; two runs if all are equal.

    A scaler ignores a run that ends at the hour at which it begins.
    """
    if (counts == counts[0]).all():
        half = len(counts) // 2
        return [(0, half, int(counts[0])), (half, len(counts), int(counts[0]))]
    begins = [0, *(np.flatnonzero(np.diff(counts)) + 1).tolist()]
    ends = [*begins[1:], len(counts)]
    return [(begin, end, int(counts[begin])) for begin, end in zip(begins, ends, strict=True)]


def _clock(hour: int, over: str) -> str:
    """An hour of the week or of the day, as a cron expression."""
    return f"0 {hour % 24} * * {_DAYS[hour // 24]}" if over == WEEK else f"0 {hour} * * *"


def _scaled_object(
    schedule: Schedule, options: Mapping[str, str], triggers: Sequence[object], stable_s: int, least: int
) -> dict[str, object]:
    most = int(np.ceil((schedule.on_demand + schedule.spot).max())) * 2
    name = options.get("deployment", "melange")
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name, "namespace": options.get("namespace", "default")},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicaCount": least,
            "maxReplicaCount": int(options.get("most", max(most, 1))),
            "pollingInterval": int(S_PER_MIN / 2),
            "advanced": {
                "horizontalPodAutoscalerConfig": {"behavior": {"scaleDown": {"stabilizationWindowSeconds": stable_s}}}
            },
            "triggers": list(triggers),
        },
    }


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.rpartition("/")[2].lower()).strip("-")
