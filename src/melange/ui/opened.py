"""The input of the command line: a service or a fleet file, and the logs that can be chosen on the page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from melange.errors import InputError
from melange.files import read_text
from melange.parsing import parse_yaml
from melange.service.fleet_file import is_fleet, read_fleet
from melange.service.reading import apply_setting, read_service
from melange.service.schema import Service
from melange.service.session import is_service
from melange.ui.choices import Choices


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A file named on the command line, and the logs that its page may read.

    Parameters
    ----------
    path
        The file's absolute path.
    words
        The file as the user typed it, for commands that are shown.
    settings
        ``key=value`` of ``--set``, which apply to every answer.
    log_by_name
        Absolute paths of logs that can be chosen, by their names on the page.
    """

    path: Path
    words: str
    settings: tuple[str, ...] = ()
    log_by_name: Mapping[str, Path] = field(default_factory=dict)

    @cached_property
    def is_fleet(self) -> bool:
        """Whether the file lists services on shared pools."""
        return is_fleet(self.path)

    @cached_property
    def service_by_name(self) -> Mapping[str, Opened]:
        """The services of a fleet file, each as if it was opened alone; empty for a service."""
        if not self.is_fleet:
            return {}
        fleet = read_fleet(self.path, self.settings)
        folder = Path(self.words).parent
        return {
            one.name: Opened(path=fleet.path(one), words=str(folder / one.file), log_by_name=self.log_by_name)
            for one in fleet.services
        }

    @property
    def stamp(self) -> str:
        """A text that changes when the file changes."""
        return f"{self.path}@{self.path.stat().st_mtime_ns}"

    def service(self) -> Service:
        """The service in the current file, with the settings of the command line."""
        return _service(self.path, self.settings, self.stamp)

    def with_choices(self, settings: Sequence[str]) -> tuple[str, ...]:
        """Settings of the command line, followed by the chosen ones."""
        return (*self.settings, *settings)

    def text(self, settings: Sequence[str], command: str) -> str:
        """A ``service.yaml`` equivalent to the file with the settings; file names are unchanged."""
        import yaml

        content = parse_yaml(read_text(self.path), f"{self.path}")
        if not isinstance(content, dict):
            raise InputError(f"{self.path}: must hold a mapping")
        for setting in self.with_choices(settings):
            apply_setting(content, setting)
        written = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120)
        return f"# Keep it beside {self.path.name}, where its file names are valid. The same as: {command}\n{written}"

    def command(self, verb: str, settings: Sequence[str], *flags: str) -> str:
        """The command line that gives an answer, quoted for the shell."""
        chosen = [f"--set={one}" for one in self.with_choices(settings)]
        return shlex.join(["melange", verb, self.words, *chosen, *flags])


@lru_cache(maxsize=32)
def _service(path: Path, settings: tuple[str, ...], stamp: str) -> Service:
    """The service of a file that has not changed since ``stamp``; cached, because an answer needs it several times."""
    return read_service(path, settings)


def opened(source: Path, settings: Sequence[str] = (), logs: Sequence[Path] = ()) -> Opened:
    """Open a file and check that it can be read.

    Raises
    ------
    InputError
        Neither a service.yaml nor a fleet file, faults in it, several regions, a missing log, or two logs of one name.
    """
    if not is_service(source):
        raise InputError(f"{source}: a service.yaml or a fleet.yaml is needed", hint="melange init writes one")
    log_by_name: dict[str, Path] = {}
    for log in logs:
        if not log.is_file():
            raise InputError(f"--log {log}: no such file")
        if log.name in log_by_name:
            raise InputError(f"--log {log}: another log is named {log.name} too", hint="rename one of them")
        log_by_name[log.name] = log.resolve()
    found = Opened(path=source.resolve(), words=str(source), settings=tuple(settings), log_by_name=log_by_name)
    for one in found.service_by_name.values() or (found,):
        if one.service().regions is not None:
            raise InputError(
                f"{one.words}: has regions:, but the page shows one fleet",
                hint="melange plan plans a fleet for each region",
            )
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A state of the page.

    Parameters
    ----------
    opened
        The file of the page.
    choices
        Differences from the file.
    log
        Path of the log that ``choices.traffic`` names, and its name in commands; empty: none.
    """

    opened: Opened
    choices: Choices
    log: tuple[str, str] = ("", "")

    @property
    def key(self) -> str:
        """A key that is equal for equal questions while the files are unchanged."""
        log = f"{self.log[0]}@{Path(self.log[0]).stat().st_mtime_ns}" if self.log[0] else ""
        return "|".join([self.opened.stamp, log, *map(str, self.choices.query())])
