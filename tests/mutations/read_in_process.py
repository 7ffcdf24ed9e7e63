"""What reads a damaged file in this process: command lines with its content, and readers without a command."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from samples import GPUHUNT, JOURNAL, MODELS

Command = Sequence[str] | Callable[[Path], object]


def run(*words: str) -> None:
    """The command line in this process."""
    from melange.cli.app import app

    app([*words], standalone_mode=False)


def settings(command: Sequence[str], flag: str) -> Callable[[Path], None]:
    """The lines of a file as values of a repeated flag."""

    def read(path: Path) -> None:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        run(*command, *(word for line in lines if line for word in (flag, line)))

    return read


def flags(command: Sequence[str]) -> Callable[[Path], None]:
    """The lines of a file as flags with their values."""

    def read(path: Path) -> None:
        lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        run(*command, *(line for line in lines if line))

    return read


def show_quantized(path: Path) -> None:
    """A ``hf_quant_config.json`` beside the shape that it is of."""
    (path.parent / "config.json").write_text(json.dumps(MODELS["latent"]))
    show_model(path.parent / "config.json")


def beside_offers(folder: Path) -> Callable[[Path], None]:
    """A service that reads the log and the offers in the folder of the valid files."""

    def read(path: Path) -> None:
        for name in ("log.csv", "offers.csv"):
            if not (path.parent / name).exists():
                (path.parent / name).write_bytes((folder / name).read_bytes())
        run("plan", str(path), "--quick", "--out", f"{path}.out")

    return read


def schedule(path: Path) -> None:
    """Read and print a ``schedule.json``."""
    from melange.plan.schedule.schedule import Schedule
    from melange.present.terminal import layout, schedule_page

    layout.console().print(schedule_page.schedule_page(Schedule.read(path)))


def packed_prices() -> bytes:
    """A price list as gpuhunt publishes it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("aws.csv", GPUHUNT)
    return stream.getvalue()


def unpacked(path: Path) -> None:
    """Unpack zipped price lists."""
    from melange.catalog.sources import unpacked

    unpacked(path.read_bytes(), str(path))


def report(path: Path) -> None:
    """Read a ``report.json``."""
    from melange.validate.report import Report

    Report.read(path)


def show_model(path: Path) -> None:
    """Read and print a ``config.json``."""
    from melange.catalog.huggingface import read_model
    from melange.present.terminal import layout, listings

    layout.console().print(listings.models_page([read_model(path)]))


def show_plan(path: Path) -> None:
    """Read, print and write a ``plan.json``."""
    from melange.plan.plan import Plan
    from melange.present.terminal import layout, plan_tables

    plan = Plan.read(path)
    layout.console().print(plan_tables.plan_page(plan, plan))
    plan.dumps()


def replicas_of(folder: Path) -> Callable[[Path], None]:
    """A file of addresses for the plan in the folder of the valid files."""

    def read(path: Path) -> None:
        from melange.deploy.addresses import read_addresses
        from melange.plan.plan import Plan

        read_addresses(path, Plan.read(folder / "plan.json"))

    return read


def keys(path: Path) -> None:
    """Read the keys that a balancer accepts."""
    from melange.deploy.live.access import read_keys

    read_keys(path)


def arrivals(path: Path) -> None:
    """Read a log to be replayed."""
    from melange.workload.arrivals import read_arrivals

    read_arrivals(path)


def journal(path: Path) -> None:
    """Continue an interrupted campaign of measurements."""
    from melange.measure.journal import Journal

    header = json.loads(JOURNAL.splitlines()[0])
    header.pop("melange")
    with Journal(path, header):
        pass


def cache(path: Path) -> None:
    """Read a cache of simulated rates."""
    from melange.profile.rate_cache import RateCache

    RateCache(path)
