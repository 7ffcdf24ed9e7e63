"""The few load points worth running before a plan is rented: one for each used type whose rates are estimated.

A plan on the corrected estimates may use other types, which are then listed in turn. With random errors of 10 %, it
takes 2.7 points on average until every used type is measured. A point is the mean request that a type serves, at the
number of requests in flight that the plan puts on a replica. By Little's law this is ``sum over sizes of load / part``,
where a request takes ``part`` of a replica while it runs.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melange.files import Json
from melange.plan.plan import Plan
from melange.profile.profile import ESTIMATED
from melange.replica.occupancy import parts_of, sizes_of

# Number of types whose points are listed, the most expensive first.
MOST_POINTS = 3
# Requests of a load test: this many turns of all requests in flight, or at least this many; as in suggest.py.
_TURNS, _LEAST_REQUESTS = 5, 100
# Where commands write their results, by replica type, and where they expect the server.
RESULTS, URL = "results", "http://localhost:8000"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPoint:
    """One load test to run.

    Parameters
    ----------
    replica_type
        The replica type to run it on, with one replica.
    model
        Name of the model on the server.
    engine
        Engine, by its name in the replica type.
    input_tokens, output_tokens
        Size of every request [tokens].
    concurrency
        Requests in flight.
    requests
        Total requests.
    """

    replica_type: str
    model: str
    engine: str
    input_tokens: int
    output_tokens: int
    concurrency: int
    requests: int

    @property
    def folder(self) -> str:
        """Folder of the results: ``--anchor results/`` takes the measured type from the type's name."""
        return f"{RESULTS}/{self.replica_type}"

    def commands(self, service: str = "service.yaml") -> dict[str, str]:
        """A command for each tool that can run it, by the tool's name."""
        return {tool: command(self, service) for tool, command in _COMMANDS.items()}

    def command(self, service: str = "service.yaml") -> str:
        """The command for the tool that comes with the engine."""
        return self.commands(service)[_TOOL_BY_ENGINE.get(self.engine.partition("-")[0].partition("=")[0], "aiperf")]

    def to_json(self, service: str = "") -> Json:
        """As a JSON object, with commands for a service's file; empty: ``service.yaml``."""
        commands = self.commands(service or "service.yaml")
        return {name: getattr(self, name) for name in self.__slots__} | {"commands": commands}


def load_points(plan: Plan, most: int = MOST_POINTS) -> tuple[LoadPoint, ...]:
    """The points to check a plan by, most expensive types first; none if all used types are measured.

    There is one for each kind of replica: types on the same hardware share their step times.
    """
    if plan.workload.buckets.is_ordinal:
        return ()
    cost = plan.instances * np.array([one.cost_per_h for one in plan.replica_types])
    found: dict[tuple[object, ...], LoadPoint] = {}
    for r in np.argsort(-cost, kind="stable").tolist():
        item = plan.replica_types[r]
        served = plan.share[r] * plan.workload.request_rate
        is_open = plan.question.profile.provenance[r] == ESTIMATED
        if not plan.instances[r] or plan.engines[r] is None or not (served[is_open] > 0).any():
            continue
        kind = (item.offer.accelerator, item.layout, item.offer.interconnect, item.engine, item.variant)
        found.setdefault(kind, _point(plan, r))
    return tuple(found.values())[:most]


def _point(plan: Plan, r: int) -> LoadPoint:
    item, workload = plan.replica_types[r], plan.workload
    served = plan.share[r] * workload.request_rate
    weight = served / served.sum()
    concurrency = max(1, round(in_flight_on(plan, r)))
    return LoadPoint(
        replica_type=item.type_name,
        model=plan.model,
        engine=item.engine,
        input_tokens=max(1, round(float((weight * workload.input_tokens).sum()))),
        output_tokens=max(2, round(float((weight * workload.output_tokens).sum()))),
        concurrency=concurrency,
        requests=max(_LEAST_REQUESTS, _TURNS * concurrency),
    )


def in_flight_on(plan: Plan, r: int, replicas: int | None = None) -> float:
    """Requests in flight on one of the replicas of a type, on average; by default as many as planned.

    Each bucket uses ``rate / (replicas max_request_rate)`` of a replica, and the same share of its requests in flight
    at the maximum rate.
    """
    rate = plan.max_request_rate[r]
    part = parts_of(plan.engines[r], rate, plan.slo, sizes_of(plan.workload))
    if replicas is None:
        replicas = int(plan.instances[r]) * plan.replica_types[r].replicas_per_instance
    served = plan.share[r] * plan.workload.request_rate
    load = np.divide(served, rate * replicas, out=np.zeros_like(served), where=rate > 0)
    return float((load / part).sum())


def _vllm(one: LoadPoint, _: str) -> str:
    return _lines(
        f"vllm bench serve --model {shlex.quote(one.model)} --base-url {URL}",
        f"--dataset-name random --random-input-len {one.input_tokens} --random-output-len {one.output_tokens}",
        f"--ignore-eos --max-concurrency {one.concurrency} --num-prompts {one.requests}",
        "--save-result --result-filename vllm.json",
        f"--result-dir {shlex.quote(one.folder)}",
    )


def _sglang(one: LoadPoint, _: str) -> str:
    return _lines(
        f"mkdir -p {shlex.quote(one.folder)} &&",
        f"python -m sglang.bench_serving --backend sglang --base-url {URL}",
        f"--model {shlex.quote(one.model)} --dataset-name random --random-range-ratio 1",
        f"--random-input-len {one.input_tokens} --random-output-len {one.output_tokens}",
        f"--max-concurrency {one.concurrency} --num-prompts {one.requests}",
        f"--output-file {shlex.quote(one.folder + '/sglang.jsonl')}",
    )


def _aiperf(one: LoadPoint, _: str) -> str:
    return _lines(
        f"aiperf profile --model {shlex.quote(one.model)} --url {URL}",
        "--endpoint-type completions --streaming",
        f"--synthetic-input-tokens-mean {one.input_tokens} --synthetic-input-tokens-stddev 0",
        f"--output-tokens-mean {one.output_tokens} --output-tokens-stddev 0",
        f"--extra-inputs ignore_eos:true --extra-inputs min_tokens:{one.output_tokens}",
        f"--concurrency {one.concurrency} --request-count {one.requests}",
        f"--output-artifact-dir {shlex.quote(one.folder)}",
    )


def _guidellm(one: LoadPoint, _: str) -> str:
    return _lines(
        f"mkdir -p {shlex.quote(one.folder)} &&",
        f"guidellm benchmark --target {URL} --model {shlex.quote(one.model)}",
        f"--data prompt_tokens={one.input_tokens},output_tokens={one.output_tokens}",
        f"--rate-type concurrent --rate {one.concurrency} --max-requests {one.requests}",
        f"--output-path {shlex.quote(one.folder + '/benchmarks.json')}",
    )


def _melange(one: LoadPoint, service: str) -> str:
    return _lines(
        f"mkdir -p {shlex.quote(one.folder)} &&",
        f"melange measure {shlex.quote(service)} --url {URL}",
        f"--replica-type {shlex.quote(one.replica_type)} --budget 15m",
        f"--journal {shlex.quote(one.folder + '/journal.jsonl')}",
    )


def _lines(*parts: str) -> str:
    """One command on several lines, broken so that a terminal does not break it elsewhere."""
    return " \\\n  ".join(parts)


_COMMANDS: dict[str, Callable[[LoadPoint, str], str]] = {
    "vllm bench serve": _vllm,
    "sglang.bench_serving": _sglang,
    "aiperf": _aiperf,
    "guidellm": _guidellm,
    "melange measure": _melange,
}
_TOOL_BY_ENGINE = {"vllm": "vllm bench serve", "sglang": "sglang.bench_serving"}
