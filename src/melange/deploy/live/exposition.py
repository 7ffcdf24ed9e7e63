"""The counters in Prometheus format."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from melange.deploy.addresses import counts_of, known_types
from melange.deploy.live.counters import METRICS, REASONS, TENANT_LIMITS, edges_by_histogram
from melange.deploy.live.drift import STATES
from melange.deploy.live.step_factors import standings

if TYPE_CHECKING:
    from melange.deploy.live.balancer import Balancer
    from melange.deploy.live.counters import Counters
    from melange.profile.profile import ReplicaType
    from melange.workload.workload import Array, Buckets

_Sample = tuple[dict[str, str], float]


def metrics_text(balancer: Balancer, counters: Counters) -> str:
    """The counters of all processes in the Prometheus text format 0.0.4."""
    lines: list[str] = []
    for part in (_traffic, _shares, _load, _planned, _replicas, _outcomes, _tenants, _histograms, _steps, _drift):
        for name, kind, about, samples in part(balancer, counters):
            lines += [f"# HELP melange_{name} {about}", f"# TYPE melange_{name} {kind}"]
            lines += [_line(*sample) if len(sample) == 3 else _line(name, *sample) for sample in samples]
    return "\n".join(lines) + "\n"


_Family = tuple[str, str, str, Iterable["_Sample | tuple[str, dict[str, str], float]"]]


def _traffic(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    buckets = balancer.plan.workload.buckets
    arrived, completed = counters.total("arrived"), counters.total("completed")
    yield (
        "arrived_requests_total",
        "counter",
        "Requests that arrived, by the estimated input bucket.",
        [(_row(buckets, i), arrived[i]) for i in range(buckets.shape[0])],
    )
    cells = [(i, o) for i in range(buckets.shape[0]) for o in range(buckets.shape[1]) if completed[i, o]]
    for name, counter, about in _BY_CELL:
        values = counters.total(counter)
        yield name, "counter", about, [(_cell(buckets, i, o), values[i, o]) for i, o in cells]
    yield (
        "oversized_requests_total",
        "counter",
        "Requests larger than the last bucket.",
        [({}, counters.total("oversized")[0])],
    )
    yield "client_connections", "gauge", "Connected clients.", [({}, counters.total("connections")[0])]
    yield "processes", "gauge", "Processes that share the port.", [({}, float(counters.processes))]


_BY_CELL = (
    ("completed_requests_total", "completed", "Completed requests, by bucket."),
    ("input_tokens_total", "input_sum", "Prompt tokens of completed requests, by bucket."),
    ("output_tokens_total", "output_sum", "Generated tokens of completed requests, by bucket."),
)


def _cell(buckets: Buckets, i: int, o: int) -> dict[str, str]:
    return _row(buckets, i) | {"output_upto": str(buckets.output_edges[o])}


def _row(buckets: Buckets, i: int) -> dict[str, str]:
    """The labels of a row: the upper edge of its prompts, and its class if the plan has several."""
    k, place = divmod(i, len(buckets.input_edges))
    upto = {"input_upto": str(buckets.input_edges[place])}
    return upto | {"class": buckets.classes[k]} if buckets.classes else upto


def _shares(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    plan, kinds = balancer.plan, known_types(balancer.plan)
    sent, buckets = counters.total("sent"), plan.workload.buckets
    names = [plan.replica_types[r].name for r in kinds]
    yield (
        "sent_requests_total",
        "counter",
        "Requests sent to a replica type, retries included, by input bucket.",
        [
            ({"type": name} | _row(buckets, i), sent[t, i])
            for t, name in enumerate(names)
            for i in range(buckets.shape[0])
        ],
    )
    total = max(float(sent.sum()), 1.0)
    yield (
        "observed_share",
        "gauge",
        "Share of all sent requests that went to a replica type.",
        [({"type": name}, sent[t].sum() / total) for t, name in enumerate(names)],
    )
    planned = _planned_shares(balancer, counters)
    yield (
        "planned_share",
        "gauge",
        "The plan's shares for the sizes that arrived.",
        [({"type": name}, planned[t]) for t, name in enumerate(names)],
    )


def _load(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    types = balancer.plan.replica_types
    values = load(balancer, counters, time.monotonic())
    yield (
        "load",
        "gauge",
        "Work sent to a replica type in the window, in replicas at the plan's maximum rate.",
        [({"type": types[r].name}, values[t]) for t, r in enumerate(known_types(balancer.plan))],
    )


def _planned(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    """The plan's values of each type, and the results of its requests."""
    plan, kinds = balancer.plan, known_types(balancer.plan)
    names = [plan.replica_types[r].name for r in kinds]
    counts = np.array([plan.replicas[name] for name in names], float)
    for name, about, values in (
        ("planned_replicas", "Replicas of a type in the plan.", counts),
        (
            "planned_load",
            "Load of a replica type in the plan, in replicas at its maximum rate.",
            plan.load[kinds] * counts,
        ),
        (
            "replica_cost_usd_per_hour",
            "Price of one replica of a type.",
            [_price(plan.replica_types[r]) for r in kinds],
        ),
    ):
        yield name, "gauge", about, [({"type": one}, value) for one, value in zip(names, values, strict=True)]
    if plan.target is not None:
        yield "slo_target", "gauge", "Target share of requests that meet every limit.", [({}, plan.target)]
    buckets = plan.workload.buckets
    judged, met = counters.total("type_judged"), counters.total("type_met")
    seen = [(t, i) for t in range(len(names)) for i in range(buckets.shape[0]) if judged[t, i]]
    for name, about, values in (
        ("slo_type_judged_requests_total", "Completions checked against all limits, by type and input bucket.", judged),
        ("slo_type_met_requests_total", "Checked completions that met every limit.", met),
    ):
        cells = [({"type": names[t]} | _row(buckets, i), values[t, i]) for t, i in seen]
        yield name, "counter", about, cells


def _price(replica_type: ReplicaType) -> float:
    return replica_type.cost_per_h / replica_type.replicas_per_instance


def load(balancer: Balancer, counters: Counters, now_s: float) -> Array:
    """Load of each counted type in the plan's units (T,): sum over sizes of rate / maximum rate [replicas].

    The rate is that of requests sent in the window of the live workload, by input bucket. Output lengths follow the
    observed completions. Sizes that a type cannot serve within the SLO count like its other sizes.

    Parameters
    ----------
    balancer
        The balancer with the plan's maximum rates and the observed completions.
    counters
        Counters of all processes.
    now_s
        End of the window, on the monotonic clock [s].
    """
    plan = balancer.plan
    rate = np.asarray(plan.max_request_rate[known_types(plan)])
    likely = np.where(rate > 0, _likely(balancer)[None], 0.0)
    likely /= np.maximum(likely.sum(axis=2, keepdims=True), 1e-12)
    # Time of a replica per request of an input bucket (T, I) [s].
    busy_s = np.divide(likely, rate, out=np.zeros_like(rate), where=rate > 0).sum(axis=2)
    length_s = max(now_s - float(counters.supervisor("window_began")[0]), 1.0)
    return np.asarray((counters.window("sent") * busy_s).sum(axis=1) / length_s)


def _likely(balancer: Balancer) -> Array:
    """Share of each output bucket in the observed completions of an input bucket (I, O), 0-1."""
    likely = np.asarray(balancer.fleet.completions).reshape(balancer.plan.workload.buckets.shape)
    return np.asarray(likely / np.maximum(likely.sum(axis=1, keepdims=True), 1e-12))


def _planned_shares(balancer: Balancer, counters: Counters) -> Array:
    """Share of each counted type that the plan expects for the sent sizes (T,)."""
    plan, likely = balancer.plan, _likely(balancer)
    by_input = counters.total("sent").sum(axis=0)
    share = plan.share[known_types(plan)]
    expected = (share * likely[None]).sum(axis=2) @ by_input
    return np.asarray(expected / max(float(by_input.sum()), 1.0))


def _replicas(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    types = balancer.plan.replica_types
    labels = [({"type": types[one.address.place].name, "url": one.address.url}, one.slot) for one in balancer.replicas]
    for name, kind, about, counter in _BY_REPLICA:
        # The processes' views of a replica are averaged, not summed; processes of earlier plans are ignored.
        is_mean = counter in {"replica_fill", "replica_up"}
        values = counters.each(counter).mean(axis=0) if is_mean else counters.total(counter)
        yield name, kind, about, [(names, values[slot]) for names, slot in labels]


_BY_REPLICA = (
    ("replica_sent_requests_total", "counter", "Requests sent to a replica.", "replica_sent"),
    ("replica_failures_total", "counter", "Requests that failed on a replica.", "replica_failed"),
    ("replica_ejections_total", "counter", "Ejections, summed over all processes.", "replica_ejected"),
    ("replica_outstanding", "gauge", "Requests in flight on a replica.", "replica_outstanding"),
    ("replica_fill", "gauge", "Load of a replica, relative to what it can run within the SLO.", "replica_fill"),
    ("replica_up", "gauge", "Share of the processes that consider a replica up.", "replica_up"),
)


def _tenants(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    slots = {name: counters.tenant_slot(name) for name in balancer.tenant_names}
    if not slots:
        return
    for name, kind, about, counter in (
        ("tenant_requests_total", "counter", "Admitted requests of a tenant.", "tenant_requests"),
        ("tenant_tokens_total", "counter", "Prompt and completion tokens of a tenant.", "tenant_tokens"),
        ("tenant_running", "gauge", "Requests of a tenant in flight.", "tenant_running"),
    ):
        values = counters.total(counter)
        yield name, kind, about, [({"tenant": one}, values[slot]) for one, slot in slots.items()]
    limited = counters.total("tenant_limited")
    yield (
        "tenant_limited_total",
        "counter",
        "Requests refused for a tenant's limit.",
        [
            ({"tenant": one, "limit": limit}, limited[slot, place])
            for one, slot in slots.items()
            for place, limit in enumerate(TENANT_LIMITS)
        ],
    )


def _outcomes(_: Balancer, counters: Counters) -> Iterator[_Family]:
    ended, answers = counters.total("ended"), counters.total("answers")
    yield (
        "unserved_requests_total",
        "counter",
        "Requests that ended without a completion, by reason.",
        [({"reason": name}, ended[place]) for place, name in enumerate(REASONS)],
    )
    yield (
        "answers_total",
        "counter",
        "Responses to clients, by status class.",
        [({"status": f"{digit}xx"}, answers[digit]) for digit in range(1, 6)],
    )
    yield "retries_total", "counter", "Requests retried on a second replica.", [({}, counters.total("retried")[0])]
    yield (
        "retries_served_total",
        "counter",
        "Retried requests that the second replica served.",
        [({}, counters.total("retried_served")[0])],
    )
    judged, met = counters.total("judged"), counters.total("met")
    names = (*METRICS, "all")
    seen = [place for place in range(len(names)) if judged[place]]
    yield (
        "slo_judged_requests_total",
        "counter",
        "Requests checked against a limit of the SLO, or against all.",
        [({"limit": names[place]}, judged[place]) for place in seen],
    )
    yield (
        "slo_met_requests_total",
        "counter",
        "Checked requests that met it.",
        [({"limit": names[place]}, met[place]) for place in seen],
    )
    yield (
        "slo_attainment",
        "gauge",
        "Share of the requests since the start that met it.",
        [({"limit": names[place]}, met[place] / judged[place]) for place in seen],
    )


def _histograms(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    types = balancer.plan.replica_types
    about = {
        "ttft": "Arrival to first token of a stream.",
        "tpot": "Time between tokens of a stream.",
        "latency": "Arrival to last token.",
    }
    for name, edges in edges_by_histogram().items():
        values = counters.total(name)
        samples: list[tuple[str, dict[str, str], float]] = []
        for t, r in enumerate(known_types(balancer.plan)):
            label = {"type": types[r].name}
            running = np.cumsum(values[t, :-1])
            for edge, count in zip(edges, running, strict=True):
                text = "+Inf" if np.isinf(edge) else f"{edge:g}"
                samples.append((f"{name}_seconds_bucket", label | {"le": text}, count))
            samples.append((f"{name}_seconds_sum", label, values[t, -1]))
            samples.append((f"{name}_seconds_count", label, running[-1]))
        yield f"{name}_seconds", "histogram", about[name], samples


def _steps(balancer: Balancer, counters: Counters) -> Iterator[_Family]:
    plan = balancer.plan
    names = [plan.replica_types[r].name for r in known_types(plan)]
    learned = counters.supervisor("factors")

    def samples(column: int) -> list[_Sample]:
        return [({"type": name}, learned[t, column]) for t, name in enumerate(names) if learned[t, 0] > 0]

    yield "step_factor", "gauge", "Step time of live replicas over the plan's.", samples(0)
    yield "step_factor_low", "gauge", "Low end of its 80 % interval.", samples(1)
    yield "step_factor_high", "gauge", "High end of its 80 % interval.", samples(2)
    counts = counts_of([one.address for one in balancer.replicas], plan)
    found = standings(plan, balancer.routed, load(balancer, counters, time.monotonic()), counts)
    yield (
        "needed_replicas",
        "gauge",
        "Replicas of a type that the traffic needs with observed step times, at the plan's load.",
        [({"type": one.replica_type}, one.needed) for one in found],
    )


def _drift(_: Balancer, counters: Counters) -> Iterator[_Family]:
    code, cost, new_cost, at_s = counters.supervisor("drift").tolist()
    yield "plan_cost_usd_per_hour", "gauge", "Cost of the current plan.", [({}, cost)]
    yield "replan_cost_usd_per_hour", "gauge", "Cost of a plan for the live workload; NaN: none yet.", [({}, new_cost)]
    yield "drift_checked_timestamp_seconds", "gauge", "Time of the last re-planning; 0: not yet.", [({}, at_s)]
    yield (
        "drift_state",
        "gauge",
        "1 for the latest result of re-planning.",
        [({"state": name}, float(place == code)) for place, name in enumerate(STATES)],
    )


def _line(name: str, labels: dict[str, str], value: float) -> str:
    pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    text = "NaN" if np.isnan(value) else f"{value:.10g}"
    return f"melange_{name}{{{pairs}}} {text}" if pairs else f"melange_{name} {text}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
