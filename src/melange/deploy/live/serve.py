"""Run a balancer: worker processes that share a port, and their supervisor."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import itertools
import logging
import os
import resource
import select
import signal
import socket
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from melange.deploy.addresses import Address, addresses_of, counts_of, known_types, read_addresses
from melange.deploy.live.counters import COUNTED_IN_WINDOW
from melange.deploy.live.drift import CHEAPER, FAILED, SHORT, STATES, UNKNOWN, find_drift
from melange.deploy.live.generation import Generation
from melange.deploy.live.live_workload import live_workload
from melange.deploy.live.settings import BalancerSettings
from melange.deploy.live.stamp import stamp_of
from melange.deploy.live.step_factors import live_factors, routed_plan
from melange.errors import InputError, MelangeError
from melange.plan.plan import Plan
from melange.plan.routing import policy_state
from melange.profile.observed import LEAST_REQUESTS

if TYPE_CHECKING:
    from melange.profile.profile import Profile
    from melange.workload.workload import Array

log = logging.getLogger("melange.balance")

_STOPS = (signal.SIGTERM, signal.SIGINT)
_SIGNALS = (*_STOPS, signal.SIGCHLD, signal.SIGHUP)
# How often the supervisor looks around [s]: a shorter wait finds ended processes sooner and wakes an idle machine more.
_TICK_S = 0.5
# Snapshots of the counters in a window; it moves on by one of them at a time. More make it smoother and take
# more memory; its length is right to a sixtieth.
_STEPS = 60
# A process that ends by itself is started again, no sooner than this after its start [s]: one that cannot live must not
# be started without a break, and the others carry its clients for a second.
_RESTART_S = 1.0
# How often step times are compared with the plan's [s]: it takes milliseconds.
_LEARN_S = 15.0
# How much longer than the limit of draining processes are waited for before they are killed [s]: enough to write their
# last log lines, little delay for a restart.
_GRACE_S = 5.0


def serve(
    plan: Plan,
    addresses: Sequence[Address],
    settings: BalancerSettings,
    replicas_file: Path | None = None,
    profile: Profile | None = None,
    plan_file: Path | None = None,
) -> int:
    """Balance requests until SIGTERM or SIGINT; returns the exit code.

    Parameters
    ----------
    plan, addresses, settings
        What is served, by which replicas, how.
    replicas_file
        Where the addresses came from, read again whenever it changes.
    profile
        All that may be rented, for re-planning; None: the types that the plan uses.
    plan_file
        Where the plan came from, read again whenever it changes; None: the plan stays.

    Raises
    ------
    InputError
        An address that cannot be listened on, TLS files that cannot be used.
    """
    from melange.deploy.live.worker import tls_context

    tls_context(settings)
    _allow_files()
    listeners = _listeners(settings)
    _say_hello(plan, addresses, settings, listeners[0])
    first = Generation.of(plan, addresses, settings.processes)
    return _Supervisor(first, settings, listeners, replicas_file, profile, plan_file).run()


class _Supervisor:
    """Starts processes, starts them again, moves the window on, and looks for drift; serves nothing itself."""

    def __init__(
        self,
        first: Generation,
        settings: BalancerSettings,
        listeners: list[socket.socket],
        replicas_file: Path | None,
        profile: Profile | None,
        plan_file: Path | None,
    ) -> None:
        self.now, self.settings = first, settings
        self.earlier: list[Generation] = []  # whose last requests come to their end, the oldest first
        self.listeners, self.replicas_file, self.profile, self.plan_file = listeners, replicas_file, profile, plan_file
        self.planner: int | None = None
        self.past: deque[tuple[float, Array]] = deque()
        self.is_stopping = False
        self._seen_plan = stamp_of(plan_file)
        self._forget_drift()

    def _forget_drift(self) -> None:
        self.now.counters.supervisor("drift")[:] = (STATES.index(UNKNOWN), self.now.plan.cost_per_h, float("nan"), 0.0)

    def run(self) -> int:
        """Until a signal says to stop."""
        now_s = time.monotonic()
        self.past.append((now_s, self.now.counters.snapshot()))
        self.now.counters.supervisor("window_began")[0] = now_s
        self._listen_for_signals()
        learn_at_s = now_s + min(_LEARN_S, self.settings.window_s / 4)
        replan_at_s = now_s + (self.settings.replan_every_s or float("inf"))
        for process in range(self.settings.processes):
            self._start(self.now, process)
        while True:
            self._wait(_TICK_S)
            if self.is_stopping:
                return self._stop()
            self._reap()
            now_s = time.monotonic()
            self._follow_plan(now_s)
            self._move_window(now_s)
            if now_s >= learn_at_s:
                learn_at_s = now_s + min(_LEARN_S, self.settings.window_s / 4)
                self._learn()
            if now_s >= replan_at_s and self.planner is None:
                replan_at_s = now_s + self.settings.replan_every_s
                self.planner = self._fork(self._look_for_drift)

    def _listen_for_signals(self) -> None:
        """Have signals end our waits."""
        self.wakened, waker = socket.socketpair()
        waker.setblocking(False)
        self.waker = waker
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, self._note_stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _note_stop(self, number: int, frame: FrameType | None) -> None:
        self.is_stopping = True

    def _wait(self, longest_s: float) -> None:
        """Until a signal comes, and no longer than this [s]."""
        if select.select([self.wakened], [], [], longest_s)[0]:
            self.wakened.recv(4096)

    def _start(self, generation: Generation, process: int) -> None:
        child = self._fork(lambda: self._work(generation, process))
        generation.workers[child] = (process, time.monotonic())

    def _follow_plan(self, now_s: float) -> None:
        """Serve by another plan when its file changes; earlier processes finish what they have begun, and count on."""
        if (stamp := stamp_of(self.plan_file)) not in (None, self._seen_plan):
            self._seen_plan = stamp
            try:
                self._take_up(now_s)
            except MelangeError as fault:
                log.error("plan unchanged: %s", fault)
        if self.earlier and self.now.is_serving:
            for one in self.earlier:
                for child in one.workers:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(child, signal.SIGHUP)
        for one, following in itertools.pairwise([*self.earlier, self.now]):
            following.take_over(one)
        while self.earlier and not self.earlier[0].workers:
            del self.earlier[0]

    def _take_up(self, now_s: float) -> None:
        """Start processes by the plan in the file.

        Raises
        ------
        MelangeError
            A plan that cannot be served by, or that does not use a type of which there are replicas.
        """
        assert self.plan_file is not None
        before, plan = self.now, Plan.read(self.plan_file)
        if plan.fingerprint == before.plan.fingerprint:
            return
        if self.replicas_file is not None:
            addresses = read_addresses(self.replicas_file, plan)
        else:
            names = [before.plan.replica_types[one.place].name for one in before.addresses]
            given = [f"{name}={one.url}" for name, one in zip(names, before.addresses, strict=True)]
            addresses = addresses_of((("--replica", text) for text in given), plan)
        policy_state(plan, counts_of(addresses, plan))
        after = Generation.of(plan, addresses, self.settings.processes)
        after.counters.follow(before.counters)
        after.take_over(before)
        self.past = deque((at_s, after.sorted_in(before, row)) for at_s, row in self.past)
        self.earlier.append(before)
        self.now = after
        self._forget_drift()
        self._begin_window()
        # Its own factors from the first request on: until the next look it would be routed as if nothing were known.
        self._learn()
        for process in range(self.settings.processes):
            self._start(after, process)
        log.info("%s: another plan, %s", self.plan_file, plan.fingerprint)

    def _fork(self, do: Callable[[], None]) -> int:
        """Run something in a child; no thread of ours runs when it is made."""
        with warnings.catch_warnings():
            # NumPy's library has threads of its own, which hold no lock that a child would want.
            warnings.simplefilter("ignore", DeprecationWarning)
            # A signal that comes meanwhile waits, until the child no longer takes it for its parent's.
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            child = os.fork()
        if child:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            return child
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            do()
            code = 0
        except KeyboardInterrupt:
            code = 0
        except BaseException:
            log.exception("a worker process of the balancer failed")
        finally:
            logging.shutdown()
            os._exit(code)

    def _work(self, generation: Generation, process: int) -> None:
        """A child's life."""
        import uvloop

        from melange.deploy.live.worker import work

        for other, listener in enumerate(self.listeners):
            if other != process:
                listener.close()
        # What has been made until now stays: looking through it for garbage again and again would be in vain.
        gc.freeze()
        uvloop.run(
            work(
                generation.plan,
                generation.addresses,
                self.settings,
                generation.counters,
                process,
                self.listeners[process],
                self.replicas_file,
            )
        )

    def _reap(self) -> None:
        """Take notice of children that have ended."""
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not child:
                return
            if child == self.planner:
                self.planner = None
            else:
                self._ended(child, status)

    def _ended(self, child: int, status: int) -> None:
        """A worker process has ended; start another, unless it was told to go."""
        for one in self.earlier:
            if child in one.workers:
                one.counters.forget_gauges(one.workers.pop(child)[0])
        if child in self.now.workers:
            process, began_s = self.now.workers.pop(child)
            log.error("worker process %d ended (%d); starting another", process, os.waitstatus_to_exitcode(status))
            time.sleep(max(0.0, began_s + _RESTART_S - time.monotonic()))
            self.now.counters.forget_gauges(process)
            self._start(self.now, process)

    def _stop(self) -> int:
        """Let every process finish what it has begun."""
        for listener in self.listeners:
            listener.close()
        workers = {child for one in (*self.earlier, self.now) for child in one.workers}
        for child in workers:
            os.kill(child, signal.SIGTERM)
        end_s = time.monotonic() + self.settings.drain_s + _GRACE_S
        code = 0
        while workers and time.monotonic() < end_s:
            self._wait(0.1)
            for child in tuple(workers):
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended:
                    workers.remove(child)
                    code = code or os.waitstatus_to_exitcode(status)
        for child in (*workers, *filter(None, (self.planner,))):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        return 1 if workers else code

    def _move_window(self, now_s: float) -> None:
        """Forget what is older than the window, a step of it at a time."""
        if now_s - self.past[-1][0] >= self.settings.window_s / _STEPS:
            self.past.append((now_s, self.now.counters.snapshot()))
        while len(self.past) > 1 and now_s - self.past[1][0] >= self.settings.window_s:
            self.past.popleft()
            self._begin_window()

    def _begin_window(self) -> None:
        """Let the window begin with the oldest counts that are kept."""
        began_s, counts = self.past[0]
        counters = self.now.counters
        for name in COUNTED_IN_WINDOW:
            counters.supervisor(name)[...] = counters.part(counts, name)
        counters.supervisor("window_began")[0] = began_s

    def _learn(self) -> None:
        """Compare the steps of live replicas with the plan's; the processes route by what is found."""
        plan, counters = self.now.plan, self.now.counters
        names = [plan.replica_types[r].name for r in known_types(plan)]
        table = counters.supervisor("factors")
        for one in live_factors(plan, counters):
            is_told = one.requests >= LEAST_REQUESTS
            if is_told or not table[names.index(one.replica_type), 0]:
                # What was learned stays while there is too little traffic to learn more.
                table[names.index(one.replica_type)] = (one.factor, one.low, one.high)

    def _look_for_drift(self) -> None:
        """Plan again for what arrives, in a process of its own, and say what came out."""
        try:
            live = live_workload(self.now.counters, self.now.plan.workload)
        except InputError:
            return
        plan = self.now.plan
        factors = self.now.counters.supervisor("factors")[:, 0].tolist()
        names = [plan.replica_types[r].name for r in known_types(plan)]
        learned = {name: factor for name, factor in zip(names, factors, strict=True) if factor > 0}
        if self.profile is None and learned:
            plan = routed_plan(plan, learned, plan.replicas)
        drift = find_drift(plan, live, self.settings.drift, self.profile)
        code = STATES.index(drift.state)
        self.now.counters.supervisor("drift")[:] = (code, drift.cost_per_h, drift.new_cost_per_h, time.time())
        level = logging.WARNING if drift.state in {CHEAPER, SHORT, FAILED} else logging.INFO
        log.log(level, "drift: %s", drift.message)


def _listeners(settings: BalancerSettings) -> list[socket.socket]:
    """A socket a process, all on one port, held here too: one that ends leaves no client without a queue."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listeners: list[socket.socket] = []
    port = settings.port
    for _ in range(settings.processes):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.processes > 1:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((settings.host, port))
        except OSError as fault:
            for one in (*listeners, listener):
                one.close()
            raise InputError(
                f"{settings.host}:{port}: cannot listen: {fault.strerror or fault}",
                hint="choose another with --host and --port",
            ) from fault
        port = listener.getsockname()[1]
        listeners.append(listener)
    return listeners


def _allow_files() -> None:
    """As many sockets as the system lets us have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _say_hello(plan: Plan, addresses: Sequence[Address], settings: BalancerSettings, listener: socket.socket) -> None:
    scheme = "https" if settings.tls_cert else "http"
    host, port = listener.getsockname()[:2]
    log.info("listening on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
    counts = counts_of(addresses, plan)
    for name, wanted in plan.replicas.items():
        if counts[name] != wanted:
            log.warning("the plan has %d replicas of %s, %d are given", wanted, name, counts[name])
    if not ipaddress.ip_address(host).is_loopback and not settings.has_keys:
        log.warning("anyone who can reach %s can send requests: no API keys are set (--api-keys)", host)
