"""Targets of schedules, and their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import TypeVar

from melange.deploy.manifest import Manifest
from melange.deploy.server_options import ServerOptions
from melange.deploy.target import Declared, option
from melange.deploy.targets.kubernetes.cluster_options import LABEL, MOST_REPLICAS, check_name
from melange.errors import InputError
from melange.plan.schedule.schedule import Schedule
from melange.records import shown
from melange.workload.demand import zone_of

Chosen = TypeVar("Chosen")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleTarget(Declared[Chosen]):
    """A deployment target of schedules.

    Parameters
    ----------
    render
        Returns the files for a schedule with options, written on a date.
    """

    render: Callable[[Schedule, Chosen, date], Manifest]

    @property
    def source(self) -> str:
        """What the files are made from."""
        return "schedule"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalerOptions:
    """The options of targets that scale Deployments.

    Parameters
    ----------
    namespace
        Namespace of all objects; None: the default of ``kubectl``.
    most
        Maximum number of instances of a type; None: from the schedule.
    """

    namespace: str | None = option(None, "Namespace; null: kubectl's own.")
    most: int | None = option(None, "Maximum instances of a type; null: from the schedule.")

    def __post_init__(self) -> None:
        if self.namespace is not None:
            check_name("namespace", self.namespace, LABEL)
        if self.most is not None and not 1 <= self.most <= MOST_REPLICAS:
            raise InputError(f"most must be 1 to {MOST_REPLICAS:,} instances, got {shown(self.most)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KedaOptions(ScalerOptions):
    """Options of the rule in KEDA.

    Parameters
    ----------
    deployment
        The Deployment that is scaled; None: the one that ``kubernetes`` writes for the type.
    prometheus
        Address where KEDA queries the signals.
    """

    deployment: str | None = option(None, "The Deployment to scale; null: as --to kubernetes names it.")
    prometheus: str = option("http://prometheus:9090", "Prometheus address for KEDA.")

    def __post_init__(self) -> None:
        ScalerOptions.__post_init__(self)
        if self.deployment is not None:
            check_name("deployment", self.deployment, LABEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class CronOptions(ScalerOptions):
    """Options of the timetable.

    Parameters
    ----------
    deployment
        Beginning of the Deployments' names, before the type; None: as ``kubernetes`` names them.
    time_zone
        Time zone of the hours; None: the schedule's.
    """

    deployment: str | None = option(None, "Name prefix of the Deployments; null: as --to kubernetes names them.")
    time_zone: str | None = option(None, "Time zone of the hours; null: the schedule's.")

    def __post_init__(self) -> None:
        ScalerOptions.__post_init__(self)
        if self.deployment is not None:
            check_name("deployment", self.deployment, LABEL)
        if self.time_zone is not None:
            zone_of(self.time_zone, "time_zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class HourlyServerOptions(ServerOptions):
    """Options of targets that start the servers of each hour.

    Parameters
    ----------
    drain_s
        Time limit for finishing requests when a server stops [s]; None: ten minutes.
    time_zone
        Time zone of the hours; None: the schedule's.
    """

    drain_s: int | None = option(None, "Time to finish requests before stopping [s]; null: 600.")
    time_zone: str | None = option(None, "Time zone of the hours; null: the schedule's.")

    def __post_init__(self) -> None:
        ServerOptions.__post_init__(self)
        if self.time_zone is not None:
            zone_of(self.time_zone, "time_zone")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleFileOptions:
    """The rule as JSON has no options."""
