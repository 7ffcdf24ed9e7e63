"""What a command works on: from a service, from the stages' files, or from a configuration of the release."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from melange.cli.terminal import progress
from melange.errors import InputError
from melange.units import ms

if TYPE_CHECKING:
    from melange.plan.options import Options
    from melange.plan.plan import Plan
    from melange.present.study import Study
    from melange.profile.profile import Profile
    from melange.service.schema import Service
    from melange.slo import Slo
    from melange.workload.arrivals import Arrivals
    from melange.workload.workload import Workload


def is_service(source: Path) -> bool:
    """Whether a file describes a service, by its ending."""
    return source.suffix in {".yaml", ".yml"}


def plan_inputs(
    source: Path | None, workload_file: Path | None, profile_files: list[Path] | None, settings: list[str]
) -> tuple[Workload, Profile, Options]:
    """What to solve: from a service, from the stages' files, or from a configuration of the authors' release."""
    from melange.service.schema import read_plan_section, read_service
    from melange.workload.workload import Workload

    traffic = Workload.read(workload_file) if workload_file else None
    capacities = joined_profile(profile_files)
    if source is None:
        if traffic is None or capacities is None:
            raise InputError(
                "a service.yaml is needed, or both --workload and --profile", hint="melange init writes one"
            )
        return traffic, capacities, read_plan_section({}, settings).to_options({}, {})
    if is_service(source):
        from melange.catalog.catalog import load_catalog
        from melange.service.stages import options_of

        service = read_service(source, settings)
        options = options_of(service, load_catalog())
        return *first_stages(service, traffic, capacities), options
    from melange.profile.formats.profiles import read_melange_config

    released_traffic, released_capacities, release = read_melange_config(source)
    return (
        traffic or released_traffic,
        capacities or released_capacities,
        read_plan_section(release, settings).to_options({}, {}),
    )


def joined_profile(files: list[Path] | None) -> Profile | None:
    """The replica types of all profiles that were given; None where none was."""
    from melange.profile.join import read_joined

    return read_joined(files) if files else None


def first_stages(service: Service, traffic: Workload | None, capacities: Profile | None) -> tuple[Workload, Profile]:
    """The workload and the profile of a service, except where a file already gave one."""
    from melange.catalog.catalog import load_catalog
    from melange.service.stages import profile_of, workload_of

    if traffic is None:
        with progress("reading the traffic") as tell:
            traffic = workload_of(service.workload, service.path, tell)
    if capacities is None:
        words = "estimating what each replica type carries"
        if service.is_simulated:
            words = "simulating what each replica type carries"
        with progress(words) as tell:
            capacities = profile_of(service, traffic, load_catalog(), tell)
    return traffic, capacities


def source_and_anchors(files: list[Path], anchors: list[str]) -> tuple[Path, list[str]]:
    """The service among the files; the others are anchors where a shell has spread a pattern after ``--anchor``."""
    if len(files) == 1:
        return files[0], anchors
    services = [file for file in files if is_service(file)]
    if len(services) != 1 or not anchors:
        listed = ", ".join(map(str, files))
        raise InputError(f"one service.yaml is needed, got {listed}", hint="name results after --anchor")
    return services[0], [*anchors, *(str(file) for file in files if file != services[0])]


def with_anchors(service: Service, anchors: list[str]) -> Service:
    """The service with more anchors, given relative to where the command runs."""
    from melange.service.stages import named_path

    given = [named_path(text, lambda name: Path(name).expanduser().absolute()) for text in anchors]
    section = service.profile.model_copy(update={"anchors": [*service.profile.anchors, *given]})
    return service.model_copy(update={"profile": section})


def with_uncertainty(
    result: Plan, traffic: Workload, capacities: Profile, options: Options, source: Path | None, settings: list[str]
) -> Plan:
    """The plan with the cost of not knowing, and what to measure."""
    from melange.plan.uncertainty import with_uncertainty
    from melange.service.schema import read_service
    from melange.service.stages import in_flight_of

    in_flight = None
    if source is not None and is_service(source):
        in_flight = in_flight_of(read_service(source, settings), traffic, capacities)
    return with_uncertainty(result, traffic, capacities, options, in_flight=in_flight)


def certified_plan(
    traffic: Workload,
    capacities: Profile,
    options: Options,
    source: Path | None,
    settings: list[str],
    burstiness: float,
) -> Plan:
    """The cheapest plan that a simulation certifies; sizes are drawn from the service's own log where it has one."""
    from melange.replica.simulated.compiling import compilation_told
    from melange.validate.certify.certify import certify

    observed = None
    if source is not None and is_service(source):
        observed = _observed(source, settings, traffic)
    with progress("simulating plans") as tell, compilation_told(lambda told: tell(f"compiling once, {told}")):
        return certify(traffic, capacities, options, burstiness=burstiness, observed=observed, progress=tell)


def _observed(source: Path, settings: list[str], traffic: Workload) -> Arrivals | None:
    """The requests of a service's log whose sizes the plan carries; None where its traffic is no log."""
    from melange.service.schema import read_service
    from melange.workload.arrivals import read_arrivals

    service = read_service(source, settings)
    kind, value = service.workload.source
    if kind != "trace":
        return None
    section = service.workload
    if section.start is not None or section.end is not None:
        return None  # its buckets know which part of the log is meant
    with progress("reading the log's sizes") as tell:
        arrivals = read_arrivals(
            service.path(value), columns=section.columns, trace_format=section.format, progress=tell
        )
    return arrivals.within(traffic.buckets, traffic.request_rate > 0)


def study_of(
    result: Plan,
    traffic: Workload,
    capacities: Profile,
    options: Options,
    estimate_at: Callable[[Slo], Profile] | None,
    tell: Callable[[str], None],
) -> Study:
    """What pages are made from."""
    from melange.present.study import Study

    return Study(
        plan=result,
        workload=traffic,
        profile=capacities,
        options=options,
        estimate_at=estimate_at,
        day=datetime.now(UTC).date(),
        progress=tell,
    )


def title_of(source: Path | None) -> str:
    """What a page calls its input."""
    return source.name if source is not None else "a workload and a profile"


def estimator(
    source: Path | None, traffic: Workload, profile_files: list[Path] | None, settings: list[str]
) -> Callable[[Slo], Profile] | None:
    """Estimates under other SLOs; None where capacities are given by a file and hold under one SLO only."""
    from melange.service.schema import SloSection, read_service

    if source is None or not is_service(source) or profile_files:
        return None
    service = read_service(source, settings)
    if service.profile.source != ["estimate"] or service.is_simulated:
        return None  # a dozen SLOs by simulation would take minutes
    from melange.catalog.catalog import load_catalog
    from melange.service.stages import profile_of

    catalog = load_catalog()

    def estimate_at(slo: Slo) -> Profile:
        limits = {f"{metric}_ms": ms(limit) for metric, limit in slo.limits.items()}
        section = SloSection(**limits, statistic=slo.statistic, attainment=slo.attainment)
        return profile_of(service.model_copy(update={"slo": section}), traffic, catalog)

    return estimate_at


def parse_columns(text: str | None) -> dict[str, str] | None:
    """``ROLE=NAME,...`` as a mapping."""
    return None if text is None else parse_pairs(text, "--columns", "arrival=ts,input=prompt,output=completion")


def parse_pairs(text: str, flag: str, example: str) -> dict[str, str]:
    """``KEY=VALUE,...`` as a mapping; the flag and an example are for the error."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(equals and name and value for name, equals, value in pairs):
        raise InputError(f"{flag} must be KEY=VALUE,..., got {text!r}", hint=example)
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_edges(text: str | None) -> list[str] | None:
    """Edges with commas between them; what they are is checked with the service."""
    return [edge.strip() for edge in text.split(",")] if text else None
