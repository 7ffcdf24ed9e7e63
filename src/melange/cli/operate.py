"""The command that keeps a live service on its plan."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from melange.cli.flags import with_flags
from melange.cli.terminal import need_plan
from melange.errors import InputError, unknown
from melange.units import count_of

if TYPE_CHECKING:
    from melange.deploy.operate.drivers.driver import Driver
    from melange.deploy.operate.lease import Lease
    from melange.deploy.operate.live_traffic import Traffic
    from melange.deploy.operate.operate_settings import OperateSettings
    from melange.deploy.operate.operation import Operation

# Each driver, with the flags that only it uses.
_DRIVERS = {
    "dry-run": (),
    "files": ("folder", "to", "option", "commit"),
    "kubernetes": ("namespace", "service", "context", "api_server"),
    "command": ("command", "command_timeout"),
    "process": ("start",),
}


@dataclass(frozen=True)
class _TrafficFlags:
    """The source of the traffic, and how it is averaged."""

    balancer: Annotated[
        list[str] | None,
        typer.Option(metavar="URL", help="URL of a melange balance that reports the traffic (repeatable)."),
    ] = None
    prometheus: Annotated[
        str | None,
        typer.Option(metavar="URL", help="URL of a Prometheus with vLLM or SGLang metrics, instead of --balancer."),
    ] = None
    selector: Annotated[str, typer.Option(help='Labels that select its series: model_name="llama".')] = ""
    log: Annotated[str | None, typer.Option(metavar="PATH", help="A growing request log, instead of --balancer.")] = (
        None
    )
    schedule: Annotated[
        Path | None,
        typer.Option(
            help="A schedule.json (melange schedule --out): use its scaling rule, keep its reserved instances."
        ),
    ] = None
    profile_files: Annotated[
        list[Path] | None,
        typer.Option("--profile", metavar="FILE", help="A profile.json of all types that may be rented (repeatable)."),
    ] = None
    window: Annotated[float, typer.Option(help="Window over which traffic is averaged [s].")] = 120.0
    target_load: Annotated[
        float, typer.Option(help="Target load as a share of capacity (a schedule's rule takes precedence).")
    ] = 1.0

    def read(self, operation: Operation) -> Traffic:
        """The source of the traffic."""
        from melange.deploy.operate.live_traffic import BalancerTraffic, LogTraffic, PrometheusTraffic

        buckets = operation.plan.workload.buckets
        sources = {"--balancer": self.balancer, "--prometheus": self.prometheus, "--log": self.log}
        given = [flag for flag, source in sources.items() if source is not None]
        if not given:
            raise InputError(
                "the source of the traffic is missing", hint="one of --balancer URL, --prometheus URL, --log PATH"
            )
        if len(given) > 1:
            raise InputError(f"the traffic has one source, got {' and '.join(given)}", hint="leave out all but one")
        if self.selector and self.prometheus is None:
            raise InputError(f"{given[0]} does not use --selector, an option of --prometheus")
        if self.balancer is not None:
            balancers = [_url("--balancer", url) for url in self.balancer]
            return BalancerTraffic(balancers, buckets, os.environ.get("MELANGE_OPERATE_KEY", ""))
        if self.prometheus is not None:
            return PrometheusTraffic(_url("--prometheus", self.prometheus), buckets, self.selector)
        return LogTraffic(str(self.log), buckets)


def _url(flag: str, given: str) -> str:
    from melange.deploy.addresses import url_of

    try:
        return url_of(given)
    except InputError as error:
        raise InputError(f"{flag}: {error}") from error


@dataclass(frozen=True)
class _Limits:
    """The limits and times of the controller."""

    interval: Annotated[float, typer.Option(help="Polling interval [s].")] = 30.0
    floor: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=N", help="Minimum instances: of a type, or N in total (repeatable)."),
    ] = None
    slack: Annotated[float, typer.Option(help="Extra capacity added when the fleet changes, as a share.")] = 0.09
    least_saving: Annotated[
        float, typer.Option(help="A smaller fleet or another mix must save more than this share of the cost.")
    ] = 0.12
    spare: Annotated[
        int, typer.Option(min=0, max=10_000, help="N+k: spare instances beyond what the traffic needs.")
    ] = 0
    max_changes: Annotated[int, typer.Option(min=2, max=10_000, help="Maximum fleet changes per hour.")] = 12
    settle: Annotated[float, typer.Option(help="Minimum time between scale-downs or changes of the mix [s].")] = 600.0
    start_up: Annotated[
        float, typer.Option(min=0, help="Start-up time of an instance, from order to first request [s].")
    ] = 300.0
    drain: Annotated[
        float, typer.Option(min=0, help="Drain time: how long an instance may take to finish its requests [s].")
    ] = 120.0
    patience: Annotated[float, typer.Option(help="Start-up timeout: a start that takes longer has failed [s].")] = 900.0
    exclude: Annotated[float, typer.Option(help="How long a type is excluded after a failure [s].")] = 1800.0

    def settings(self, operation: Operation, traffic: _TrafficFlags) -> OperateSettings:
        """Convert to the controller's settings."""
        from melange.deploy.operate.operate_settings import DEFAULT_RULE, OperateSettings
        from melange.deploy.operate.operation import floor_of

        return operation.settings(
            OperateSettings(
                interval_s=self.interval,
                window_s=traffic.window,
                rule=replace(DEFAULT_RULE, target=traffic.target_load),
                floor=floor_of(self.floor, operation),
                slack=self.slack,
                least_saving=self.least_saving,
                spare=self.spare,
                most_changes_per_h=self.max_changes,
                settle_s=self.settle,
                start_up_s=self.start_up,
                drain_s=self.drain,
                patience_s=self.patience,
                exclude_s=self.exclude,
                lease_s=max(120.0, 4 * self.interval),
            )
        )


@dataclass(frozen=True)
class _DriverFlags:
    """The driver and its options."""

    driver: Annotated[str, typer.Option(help=f"Driver that applies the changes: {', '.join(_DRIVERS)}.")] = "dry-run"
    state: Annotated[Path, typer.Option(help="Folder for state, log and current plan; one per service.")] = Path(
        "melange-operate"
    )
    start: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=COMMAND", help="process: command that starts a type's server, with {port}."),
    ] = None
    command: Annotated[str, typer.Option(help="command: program that reports and changes the fleet.")] = ""
    command_timeout: Annotated[float, typer.Option(help="command: timeout [s].")] = 60.0
    folder: Annotated[Path | None, typer.Option(help="files: output folder for the manifests.")] = None
    to: Annotated[str, typer.Option(help="files: target, as for melange deploy --to.")] = "kubernetes"
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="files: an option of the target (repeatable).")
    ] = None
    commit: Annotated[bool, typer.Option("--commit", help="files: commit each change in the git checkout.")] = False
    namespace: Annotated[str, typer.Option(help="kubernetes: namespace of the Deployments.")] = "default"
    service: Annotated[str, typer.Option(help="kubernetes: service name, if the namespace has several.")] = ""
    context: Annotated[str, typer.Option(help="kubernetes: context of the kubeconfig.")] = ""
    api_server: Annotated[str, typer.Option(metavar="URL", help="kubernetes: an API server without login.")] = ""

    def check(self, call: typer.Context) -> None:
        """Refuse an unknown driver, and flags of other drivers, which would have no effect."""
        if self.driver not in _DRIVERS:
            raise unknown("driver", self.driver, _DRIVERS)
        faults = []
        for driver, names in _DRIVERS.items():
            given = [one for one in names if getattr(call.get_parameter_source(one), "name", "") != "DEFAULT"]
            if given and driver != self.driver:
                flags = ", ".join(f"--{one.replace('_', '-')}" for one in given)
                kind = "an option" if len(given) == 1 else "options"
                faults.append(f"--driver {self.driver} does not use {flags}, {kind} of --driver {driver}")
        if faults:
            raise InputError("\n".join(faults))

    def made(self, operation: Operation, settings: OperateSettings, traffic: Traffic) -> tuple[Driver, Lease]:
        """The driver and its lease."""
        from melange.deploy.operate.lease import FileLease

        self.state.mkdir(parents=True, exist_ok=True)
        lease = FileLease(self.state / "lease.json", settings.lease_s)
        if self.driver == "kubernetes":
            return self._kubernetes(operation, settings, lease.holder)
        if self.driver == "command":
            from melange.deploy.operate.drivers.command_driver import CommandDriver

            return CommandDriver(shlex.split(self.command), self.command_timeout), lease
        if self.driver == "process":
            return self._process(operation, traffic), lease
        from melange.deploy.operate.drivers.dry_run import DryRun

        first = {name: count for name, count in operation.plan.instances_by_name.items() if count}
        paper = DryRun(first, settings.start_up_s, settings.drain_s, self.state / "paper.json")
        if self.driver == "dry-run":
            return paper, lease
        if self.folder is None:
            raise InputError("--driver files: the output folder is missing", hint="--folder DIR")
        if self.folder.is_file():
            raise InputError(f"--folder {self.folder}: is a file; a folder is needed")
        from melange.deploy.operate.drivers.files_driver import FilesDriver
        from melange.deploy.render import target_of

        options = target_of(self.to).read(self.option or [])
        return FilesDriver(paper, self.folder, self.to, options, is_committed=self.commit), lease

    def _process(self, operation: Operation, traffic: Traffic) -> Driver:
        from melange.deploy.operate.drivers.process_driver import ProcessDriver
        from melange.parsing import named_value

        types = operation.types()
        commands: dict[str, str] = {}
        for text in self.start or ():
            name, is_pair, command = named_value(text)
            if not is_pair:
                raise InputError(f"--start: must be NAME=COMMAND, got {text!r}")
            commands[operation.type_named(name.strip(), "--start")] = command
        if not commands:
            raise InputError(
                "--driver process: the start commands are missing", hint='--start "NAME=server --port {port}"'
            )
        for name in commands:
            if types[name].replicas_per_instance > 1:
                raise InputError(f"--start: an instance of {name} holds several replicas, but a process is one replica")
        outstanding = getattr(traffic, "outstanding", None)
        return ProcessDriver(commands, self.state / "servers", self.state / "replicas.txt", outstanding=outstanding)

    def _kubernetes(self, operation: Operation, settings: OperateSettings, holder: str) -> tuple[Driver, Lease]:
        import importlib.util

        from melange.installed import how_to_add

        if importlib.util.find_spec("kubernetes") is None:
            raise InputError(
                "--driver kubernetes needs kubernetes, which is not installed", hint=how_to_add("kubernetes")
            )
        from melange.deploy.operate.drivers.kubernetes_driver import Clients, ClusterLease, KubernetesDriver

        clients = Clients(self.api_server, self.context)
        types = tuple(operation.types().values())
        driver = KubernetesDriver(clients, self.namespace, types, self.service)
        name = f"melange-operate{f'-{self.service}' if self.service else ''}"
        return driver, ClusterLease(clients, self.namespace, name, holder.replace("/", "_"), settings.lease_s)


@with_flags
def operate(
    call: typer.Context,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan.json (melange plan --out).")],
    traffic: _TrafficFlags,
    limits: _Limits,
    driver: _DriverFlags,
    once: Annotated[bool, typer.Option("--once", help="Poll once, then exit.")] = False,
    replay: Annotated[
        Path | None, typer.Option(metavar="LOG", help="Replay a decision log and compare the decisions.")
    ] = None,
) -> None:
    """Keep a live fleet on its plan: scale it, replace failures.

    The mix changes if that saves money.
    """
    from melange.deploy.one_pool import refuse_pools
    from melange.deploy.operate.operation import Operation
    from melange.plan.plan import Plan
    from melange.plan.schedule.schedule import Schedule
    from melange.profile.join import read_joined

    need_plan(plan_file, "melange operate plan.json")
    plan = Plan.read(plan_file)
    refuse_pools(plan, "melange operate")
    operation = Operation(
        plan=plan,
        schedule=None if traffic.schedule is None else Schedule.read(traffic.schedule),
        profile=read_joined(traffic.profile_files) if traffic.profile_files else None,
    )
    if replay is not None:
        _replay(operation, replay)
        return
    if sys.platform == "win32":
        raise InputError("melange operate runs on Linux and macOS", hint="run it in a container or in WSL")
    from melange.deploy.operate.control_loop import Controller

    driver.check(call)
    settings = limits.settings(operation, traffic)
    source = traffic.read(operation)
    acting, lease = driver.made(operation, settings, source)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    controller = Controller(operation.brief(settings), operation.plan, acting, source, lease, driver.state)
    if once:
        try:
            controller.look()
        finally:
            lease.release()
        return
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    controller.run(stop)


def _replay(operation: Operation, path: Path) -> None:
    """Print every decision of a log, and whether the replay gives the same decision."""
    from melange.deploy.operate.decision_log import BEGIN, lines_of, replayed
    from melange.deploy.operate.operate_settings import OperateSettings
    from melange.records import number, reading, record

    if not path.is_file():
        raise InputError(f"{path}: no such log")
    begins = [content for _, content in lines_of(path) if content.get("kind") == BEGIN]
    if not begins:
        raise InputError(f"{path}: not a log of melange operate: it has no 'begin' line")
    with reading(f"{path}", "a log of melange operate"):
        settings = record(OperateSettings, begins[-1]["settings"], f"{path}: settings")
    same = other = 0
    for content, decision, is_same in replayed(path, operation.brief(settings), operation.plan.fingerprint):
        same, other = same + is_same, other + (not is_same)
        for line in decision.lines:
            typer.echo(f"{number(content.get('at_s'), 'at_s'):.0f}  {'' if is_same else 'differs: '}{line}")
    differ = "differs" if other == 1 else "differ"
    typer.echo(f"{count_of(same + other, 'decision')}, {other} {differ}", err=True)
    if other:
        raise typer.Exit(1)
