"""The simulation again, slow and plain: every step of every replica by itself, every request an object.

It shares no code with the compiled one but the policies and the columns of a step's cost. Blocks are counted request by
request at every step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from melange.replica import policy as policies
from melange.replica.engine import Engine
from melange.replica.policy_state import PolicyState

SERVED, REFUSED, FAILED = 0, 1, 2


@dataclass(eq=False)
class Job:
    """One request."""

    number: int
    arrival_s: float
    inputs: int
    outputs: int
    reusable: int
    limit: int
    cached: int = 0
    made: int = 0
    read: int = 0  # prompt tokens in the KV cache; the prompt is inputs + what had been made before a preemption
    prompt: int = 0
    stored: int = 0
    part: float = 0.0
    replica: int = -1
    status: int = FAILED
    admitted_s: float = math.nan
    first_s: float = math.nan
    finish_s: float = math.nan
    preemptions: int = 0
    retries: int = 0
    mark: float = 0.0
    prefill_wait_s: float = math.nan


def step_s(engine: Engine, contexts: Sequence[int], chunks: Sequence[tuple[int, int]], admitted: int) -> float:
    """Time of a step: the contexts of requests that get a token, and the chunks (first token, tokens) that are read."""
    cost, batch = engine.cost, len(contexts)
    tokens = batch + sum(count for _, count in chunks)
    touched = -math.expm1(cost.expert_decay * tokens)
    computed = cost.token_s * tokens + cost.output_s * batch + cost.padding_s * touched
    time = max(cost.weights_s + cost.experts_s * touched, computed)
    time += cost.context_s * sum(contexts)
    if engine.sliding_layers:
        time += cost.window_context_s * sum(min(context, engine.window) for context in contexts)
    for start, count in chunks:
        time += cost.position_s * count * (start + count / 2)
        if engine.sliding_layers:
            time += cost.window_position_s * (_seen(start + count, engine.window) - _seen(start, engine.window))
    if cost.one_shot_token_s:
        time += min(cost.one_shot_s + cost.one_shot_token_s * tokens, cost.ring_s + cost.ring_token_s * tokens)
    time += cost.host_s + cost.sequence_s * batch + cost.request_s * admitted
    if cost.batch_power:
        time *= min(max(batch, cost.least_batch), cost.most_batch) ** cost.batch_power
    return max(time, cost.stream_s * batch)


def _seen(tokens: int, window: int) -> float:
    """Integral of min(position, window) over the first tokens of a prompt."""
    return tokens**2 / 2 if tokens <= window else window * tokens - window**2 / 2


@dataclass(eq=False)
class Replica:
    """One replica."""

    engine: Engine
    number: int
    running: list[Job] = field(default_factory=list)  # in the order of admission
    waiting: deque[Job] = field(default_factory=deque)
    decoding: list[Job] = field(default_factory=list)
    ready: list[Job] = field(default_factory=list)
    ends_s: float = math.inf
    began_s: float = 0.0
    added_s: float = 0.0
    busy_s: float = 0.0
    is_prompts: bool = False
    steps: int = 0
    made: int = 0
    wasted: int = 0

    def held(self, tokens: int) -> int:
        """KV cache of one request [tokens of one layer]."""
        engine = self.engine
        full = math.ceil(tokens / engine.block_tokens) * engine.full_layers
        within = min(tokens, engine.window - 1) if engine.sliding_layers else 0
        cached = engine.block_tokens * (full + math.ceil(within / engine.block_tokens) * engine.sliding_layers)
        return cached + engine.state_units

    def used(self) -> int:
        """KV cache of all running requests."""
        return sum(self.held(job.stored) for job in self.running)

    def could_serve(self, job: Job) -> bool:
        """Whether it could if it had no other."""
        whole = job.inputs + job.outputs
        return whole <= self.engine.max_context and self.held(whole - 1) <= int(self.engine.kv_tokens)

    def _preempt(self) -> None:
        job = self.running.pop()
        if job in self.decoding:
            self.decoding.remove(job)
        job.stored = job.read = 0
        job.preemptions += 1
        self.waiting.appendleft(job)

    def _room(self, more: int) -> bool:
        return self.used() + more <= int(self.engine.kv_tokens)

    def _growth(self) -> int:
        """What the next token of every decoding request takes."""
        return sum(self.held(job.stored + 1) - self.held(job.stored) for job in self.decoding)

    def _free_blocks(self) -> bool:
        preempted = False
        while self.decoding and not self._room(self._growth()):
            self._preempt()
            preempted = True
        return preempted

    def _admit(self, now: float) -> Job:
        job = self.waiting.popleft()
        self.running.append(job)
        job.prompt = job.inputs + job.made
        job.stored = job.prompt  # blocks for all of it
        job.read = job.cached
        if math.isnan(job.admitted_s):
            job.admitted_s = now
        return job

    def _may_admit(self, growth: int) -> bool:
        if not self.waiting or len(self.running) >= self.engine.max_sequences:
            return False
        if self.engine.is_fully_reserved:
            whole = sum(self.held(job.inputs + job.outputs - 1) for job in [*self.running, self.waiting[0]])
            return whole <= int(self.engine.kv_tokens)
        return self._room(growth + self.held(self.waiting[0].inputs + self.waiting[0].made))

    def begin(self, now: float) -> None:
        """Begin the next step, or rest."""
        self.began_s, self.ready, self.ends_s = now, [], math.inf
        self.is_prompts = False
        if self.engine.is_chunked:
            preempted = self._free_blocks()
            chunks, admitted = self._chunks(now, preempted)
        else:
            chunks, admitted = self._prompts(now)
            self.is_prompts = bool(chunks)
            if not chunks:
                self._free_blocks()
        contexts = [] if self.is_prompts else [job.inputs + job.made for job in self.decoding]
        if not contexts and not chunks:
            return
        time = step_s(self.engine, contexts, chunks, admitted)
        if chunks and self.decoding:
            self.added_s += time - (step_s(self.engine, contexts, [], 0) if contexts else 0.0)
        if not self.is_prompts:
            for job in self.decoding:
                job.stored += 1
        self.ends_s = now + time

    def _chunks(self, now: float, preempted: bool) -> tuple[list[tuple[int, int]], int]:
        budget, chunks, admitted = self.engine.max_batched_tokens - len(self.decoding), [], 0
        growth = self._growth()
        open_ = [job for job in self.running if job not in self.decoding]
        while budget > 0:
            if open_:
                job = open_.pop()
            elif not preempted and self._may_admit(growth):
                job, admitted = self._admit(now), admitted + 1
            else:
                break
            count = min(job.prompt - job.read, budget)
            chunks.append((job.read, count))
            job.read += count
            budget -= count
            if job.read == job.prompt:
                self.ready.append(job)
        return chunks, admitted

    def _prompts(self, now: float) -> tuple[list[tuple[int, int]], int]:
        chunks: list[tuple[int, int]] = []
        while self._may_admit(0):
            job = self.waiting[0]
            count = job.inputs + job.made - job.cached
            if chunks and sum(c for _, c in chunks) + count > self.engine.max_batched_tokens:
                break
            job = self._admit(now)
            chunks.append((job.cached, count))
            job.read = job.prompt
            self.ready.append(job)
        return chunks, len(chunks)

    def finish(self, fleet: PolicyState) -> None:
        """Take the end of a step."""
        now = self.ends_s
        self.busy_s += now - self.began_s
        self.steps += 1
        if not self.is_prompts:
            for job in sorted(self.decoding, key=lambda one: one.number):
                job.made += 1
                self.made += 1
                if job.made == job.outputs:
                    self.decoding.remove(job)
                    self._end(job, now, fleet)
        for job in self.ready:
            job.made += 1
            self.made += 1
            if math.isnan(job.first_s):
                job.first_s, job.mark = now, self.added_s
                policies.read(fleet, self.number, job.inputs)
            if job.made == job.outputs:
                self._end(job, now, fleet)
            else:
                self.decoding.append(job)

    def _end(self, job: Job, now: float, fleet: PolicyState) -> None:
        self.running.remove(job)
        job.status, job.finish_s = SERVED, now
        job.prefill_wait_s = self.added_s - job.mark
        policies.finished(fleet, self.number, job.inputs, job.outputs, job.part)


@dataclass(eq=False)
class Cluster:
    """Replicas behind a balancer."""

    replicas: list[Replica]
    fleet: PolicyState
    policy: int

    def until(self, now: float) -> None:
        """Take all steps that end up to a moment."""
        while True:
            replica = min(self.replicas, key=lambda one: (one.ends_s, one.number))
            if replica.ends_s > now:
                return
            end = replica.ends_s
            replica.finish(self.fleet)
            replica.begin(end)

    def send(self, job: Job, now: float, random: float) -> None:
        """Send a job where the policy says."""
        job.replica = policies.choose(self.policy, self.fleet, job.inputs, job.limit, random)
        job.status = FAILED
        if job.replica < 0:
            return
        replica = self.replicas[job.replica]
        if not replica.could_serve(job):
            job.status = REFUSED
            return
        job.cached = int(job.reusable * replica.engine.prefix_kept)
        if self.policy == policies.PREFIX_AFFINITY:
            job.cached *= job.replica == policies.home(self.fleet, job.inputs, job.limit, random)
        job.part = policies.sent(self.fleet, job.replica, job.inputs, job.limit)
        policies.waits(self.fleet, job.replica, job.inputs)
        replica.waiting.append(job)
        if replica.ends_s == math.inf:
            replica.begin(now)

    def change(self, number: int, is_up: bool, now: float) -> None:
        """A replica comes or goes."""
        if bool(self.fleet.is_up[number]) == is_up:
            return
        self.fleet.is_up[number] = int(is_up)
        if is_up:
            return
        lost = self.replicas[number]
        if lost.ends_s < math.inf:
            lost.busy_s += now - lost.began_s
        held = [*lost.running, *lost.waiting]
        lost.running, lost.waiting, lost.decoding, lost.ready, lost.ends_s = [], deque(), [], [], math.inf
        for job in reversed(held):
            policies.lost(self.fleet, number, job.part)
            if math.isnan(job.first_s):
                policies.read(self.fleet, number, job.inputs)
            lost.wasted += job.made
            job.made = job.read = job.stored = 0
            job.first_s = math.nan
        for job in held:
            if job.retries == 0:
                job.retries = 1
                self.send(job, now, (job.number * 0.6180339887498949) % 1.0)


def play_slowly(
    engines: Sequence[Engine],
    fleet: PolicyState,
    policy: int,
    jobs: list[Job],
    events: Sequence[tuple[float, int, bool]],
    seed: int,
) -> list[Replica]:
    """Play jobs out; they hold what became of them."""
    replicas = [Replica(engine=engine, number=number) for number, engine in enumerate(engines)]
    cluster = Cluster(replicas=replicas, fleet=fleet, policy=policy)
    uniform = np.random.default_rng(seed).random(len(jobs))
    arrivals = [(job.arrival_s, 1, job.number) for job in jobs]
    for now, kind, place in sorted([(event[0], 0, number) for number, event in enumerate(events)] + arrivals):
        cluster.until(now)
        if kind == 1:
            cluster.send(jobs[place], now, uniform[place])
        else:
            cluster.change(events[place][1], events[place][2], now)
    cluster.until(1e300)
    return replicas
