"""The dataclass of the deploy stage: files by name, ready to be written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType

from melange.errors import Caution, InputError
from melange.files import Json, write_texts

_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files that put a plan into production.

    Parameters
    ----------
    target
        What reads them: ``haproxy``, ``envoy``, ``nginx``.
    files
        Text by file name: a path below the folder that they are written to, with ``/`` between its parts
        (``base/deployment.yaml``).
    cautions
        What a reader should know before using them.

    Raises
    ------
    ValueError
        A name that leads out of the folder or means different files on different systems, or two that cannot both be
        files.
    """

    target: str
    files: Mapping[str, str]
    cautions: tuple[Caution, ...] = ()

    def __post_init__(self) -> None:
        for name in self.files:
            _check_name(name)
        _check_all(self.files)
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def __str__(self) -> str:
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        return "\n".join(f"# file: {name}\n{text}" for name, text in self.files.items())

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the files to a folder. Absent folders are made; files are replaced whole, all or none.

        A link in the place of a file is replaced and what it points to is left alone; a link in the place of a folder
        is followed only within the folder.

        Raises
        ------
        InputError
            When a folder cannot be made or written to, or is a link to elsewhere; in the last case nothing is written.
        """
        place = _made(Path(folder))
        homes = [_within(place, name) for name in self.files]
        write_texts(
            {
                _made(home) / name.rpartition("/")[2]: text
                for home, (name, text) in zip(homes, self.files.items(), strict=True)
            }
        )
        return tuple(place / name for name in self.files)

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "target": self.target,
            "files": dict(self.files),
            "warnings": [caution.to_json() for caution in self.cautions],
        }


def _check_name(name: str) -> None:
    """Refuse what is no relative path, or not the same one on every system."""
    is_plain = name.isprintable() and "\\" not in name and not _DRIVE.match(name)
    if not is_plain or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError(f"file names of a manifest must be plain and below its folder, got {name!r}")


def _check_all(names: Iterable[str]) -> None:
    """Refuse names that differ in case only, which are one file on some systems, and a file that others are below."""
    name_by_folded: dict[str, str] = {}
    for name in names:
        if (other := name_by_folded.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"file names of a manifest must differ in more than case, got {other!r} and {name!r}")
    for folded, name in name_by_folded.items():
        for folder in [*accumulate(folded.split("/"), "{}/{}".format)][:-1]:
            if folder in name_by_folded:
                raise ValueError(f"{name_by_folded[folder]!r} is a file of the manifest, and {name!r} is below it")


def _within(place: Path, name: str) -> Path:
    """The folder that a file goes to, links resolved."""
    home = (place / name).parent
    try:
        found, root = home.resolve(), place.resolve()
    except (OSError, RuntimeError) as error:  # a circle of links
        raise InputError(f"{home}: cannot be written to: {error}") from error
    if not found.is_relative_to(root):
        raise InputError(
            f"{home}: is a link to {found}, outside of {place}", hint="remove it, or choose another folder"
        )
    return found


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}") from error
    return folder
