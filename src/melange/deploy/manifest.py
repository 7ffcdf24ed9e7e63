"""The noun of the deploy stage: files by name, ready to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from melange.errors import Caution, InputError
from melange.files import Json, write_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The files that put a plan into production.

    Parameters
    ----------
    target
        What reads them: ``haproxy``, ``envoy``, ``nginx``.
    files
        Text by file name.
    cautions
        What a reader should know before using them.
    """

    target: str
    files: Mapping[str, str]
    cautions: tuple[Caution, ...] = ()

    def __post_init__(self) -> None:
        for name in self.files:
            if Path(name).name != name or name in {"", ".", ".."}:
                raise ValueError(f"a manifest's files have plain names, got {name!r}")
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def __str__(self) -> str:
        if len(self.files) == 1:
            return next(iter(self.files.values()))
        return "\n".join(f"# file: {name}\n{text}" for name, text in self.files.items())

    def write(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the files to a folder, which is made where it is absent; each is replaced whole or not at all.

        Raises
        ------
        InputError
            When the folder cannot be made or written to.
        """
        place = Path(folder)
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{place}: cannot be made: {error.strerror}") from error
        return tuple(write_text(place / name, text) for name, text in self.files.items())

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "target": self.target,
            "files": dict(self.files),
            "warnings": [caution.to_json() for caution in self.cautions],
        }
