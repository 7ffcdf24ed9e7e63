"""The dataclass of the deploy stage: files by name, ready to write."""

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
        The target that the files are for: ``haproxy``, ``envoy``, ``nginx``.
    files
        Text by file name: a path below the output folder, with ``/`` between its parts (``base/deployment.yaml``).
    cautions
        What users should know before using the files.

    Raises
    ------
    ValueError
        A name that leads out of the folder or means different files on different systems, or two names that cannot both
        be files.
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
        """Write the files to a folder. Missing folders are created; files are replaced as a whole, all or none.

        A link in place of a file is replaced, and its target is left unchanged; a link in place of a folder is followed
        only within the output folder.

        Raises
        ------
        InputError
            A folder cannot be created or written to, or is a link to outside; in the last case, nothing is written.
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
    """Reject names that are not relative paths, or that mean different files on different systems."""
    is_plain = name.isprintable() and "\\" not in name and not _DRIVE.match(name)
    if not is_plain or any(part in {"", ".", ".."} for part in name.split("/")):
        raise ValueError(f"file names of a manifest must be plain and below its folder, got {name!r}")


def _check_all(names: Iterable[str]) -> None:
    """Reject names that differ only in case (one file on some systems), and files that are also parent folders."""
    name_by_folded: dict[str, str] = {}
    for name in names:
        if (other := name_by_folded.setdefault(name.casefold(), name)) != name:
            raise ValueError(f"file names of a manifest must differ in more than case, got {other!r} and {name!r}")
    for folded, name in name_by_folded.items():
        for folder in [*accumulate(folded.split("/"), "{}/{}".format)][:-1]:
            if folder in name_by_folded:
                raise ValueError(f"{name_by_folded[folder]!r} is a file of the manifest, and {name!r} is below it")


def _within(place: Path, name: str) -> Path:
    """The folder of a file, with links resolved."""
    home = (place / name).parent
    try:
        found, root = home.resolve(), place.resolve()
    except (OSError, RuntimeError) as error:  # circular links
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
