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
# How often the supervisor checks [s]: a shorter time finds ended processes sooner, but wakes an idle machine more.
_TICK_S = 0.5
# Snapshots of the counters per window; the window moves by one snapshot at a time. More make it smoother and take more
# memory; the window's length is accurate to a sixtieth.
_STEPS = 60
# A failed process is restarted no sooner than this after its start [s]: a process that cannot run must not be restarted
# in a loop, and the others serve its clients for a second.
_RESTART_S = 1.0
# Interval for comparing step times with the plan's [s]: a comparison takes milliseconds.
_LEARN_S = 15.0
# How much longer than the drain limit processes may take before they are killed [s]: enough to write their last log
# lines, little delay for a restart.
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
        The plan to serve, its replicas, and the settings.
    replicas_file
        File of the addresses; read again whenever it changes.
    profile
        All types that may be rented, for re-planning; None: the types that the plan uses.
    plan_file
        File of the plan; read again whenever it changes; None: the plan stays.

    Raises
    ------
    InputError
        The address cannot be listened on, or the TLS files cannot be used.
    """
    from melange.deploy.live.worker import tls_context

    tls_context(settings)
    _allow_files()
    listeners = _listeners(settings)
    _say_hello(plan, addresses, settings, listeners[0])
    first = Generation.of(plan, addresses, settings.processes)
    return _Supervisor(first, settings, listeners, replicas_file, profile, plan_file).run()


class _Supervisor:
    """Starts and restarts processes, moves the window, and looks for drift; serves no requests itself."""

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
        self.earlier: list[Generation] = []  # generations that are finishing their last requests, oldest first
        self.listeners, self.replicas_file, self.profile, self.plan_file = listeners, replicas_file, profile, plan_file
        self.planner: int | None = None
        self.past: deque[tuple[float, Array]] = deque()
        self.is_stopping = False
        self._seen_plan = stamp_of(plan_file)
        self._forget_drift()

    def _forget_drift(self) -> None:
        self.now.counters.supervisor("drift")[:] = (STATES.index(UNKNOWN), self.now.plan.cost_per_h, float("nan"), 0.0)

    def run(self) -> int:
        """Run until a signal says to stop."""
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
        """Let signals interrupt waits."""
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
        """Wait for a signal, with a time limit [s]."""
        if select.select([self.wakened], [], [], longest_s)[0]:
            self.wakened.recv(4096)

    def _start(self, generation: Generation, process: int) -> None:
        child = self._fork(lambda: self._work(generation, process))
        generation.workers[child] = (process, time.monotonic())

    def _follow_plan(self, now_s: float) -> None:
        """Serve another plan when its file changes; earlier processes finish their requests, and counts continue."""
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
        """Start processes for the plan in the file.

        Raises
        ------
        MelangeError
            The plan cannot be served, or does not use a type that has replicas.
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
        # Use the plan's own factors from the start: otherwise the first requests would be routed without any factors.
        self._learn()
        for process in range(self.settings.processes):
            self._start(after, process)
        log.info("%s: another plan, %s", self.plan_file, plan.fingerprint)

    def _fork(self, do: Callable[[], None]) -> int:
        """Run a function in a child process; no thread of ours is running at the fork."""
        with warnings.catch_warnings():
            # NumPy's library has its own threads, which hold no lock that a child needs.
            warnings.simplefilter("ignore", DeprecationWarning)
            # A signal that arrives meanwhile waits until the child has its own handlers.
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
        """The main function of a child process."""
        import uvloop

        from melange.deploy.live.worker import work

        for other, listener in enumerate(self.listeners):
            if other != process:
                listener.close()
        # Objects created so far stay: repeated garbage collection of them would be useless.
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
        """Handle children that have ended."""
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
        """A worker process has ended; start another, unless it was told to stop."""
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
        """Let every process finish its requests."""
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
        """Move the window on by one snapshot when it is due."""
        if now_s - self.past[-1][0] >= self.settings.window_s / _STEPS:
            self.past.append((now_s, self.now.counters.snapshot()))
        while len(self.past) > 1 and now_s - self.past[1][0] >= self.settings.window_s:
            self.past.popleft()
            self._begin_window()

    def _begin_window(self) -> None:
        """Let the window begin at the oldest snapshot."""
        began_s, counts = self.past[0]
        counters = self.now.counters
        for name in COUNTED_IN_WINDOW:
            counters.supervisor(name)[...] = counters.part(counts, name)
        counters.supervisor("window_began")[0] = began_s

    def _learn(self) -> None:
        """Compare step times of live replicas with the plan's; the processes use the result for routing."""
        plan, counters = self.now.plan, self.now.counters
        names = [plan.replica_types[r].name for r in known_types(plan)]
        table = counters.supervisor("factors")
        for one in live_factors(plan, counters):
            is_told = one.requests >= LEAST_REQUESTS
            if is_told or not table[names.index(one.replica_type), 0]:
                # Learned factors are kept while there is too little traffic to update them.
                table[names.index(one.replica_type)] = (one.factor, one.low, one.high)

    def _look_for_drift(self) -> None:
        """Plan again for the live traffic in a separate process, and log the result."""
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
    """One socket per process, all on one port; the supervisor holds them too, so clients keep a queue if one ends."""
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
    """Raise the limit of open sockets as far as the system allows."""
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
            log.warning("replicas of %s: %d planned, %d given", name, wanted, counts[name])
    if not ipaddress.ip_address(host).is_loopback and not settings.has_keys:
        log.warning("anyone who can reach %s can send requests: no API keys are set (--api-keys)", host)
