"""States of the page from the URLs of requests, with uploaded logs."""

from __future__ import annotations

import re
import secrets
import tempfile
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import parse_qsl

from melange.errors import InputError
from melange.ui.choices import MIXTURE, OWN, Choices
from melange.ui.opened import Asked, Opened

# Keys of a query that are not choices about the service.
OF_PAGE = ("service", "pin", "against", "tab", "auto")
MOST_PINS = 4
_MOST_UPLOADS = 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[A-Za-z0-9_-]{16}")


class States:
    """Converts URLs to states of the page.

    Parameters
    ----------
    opened
        The file of the page.
    """

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self._uploads = tempfile.TemporaryDirectory(prefix="melange-ui-")

    def of(self, query: Iterable[tuple[str, str]]) -> Asked:
        """The state of a URL.

        Raises
        ------
        InputError
            An unknown service, log or choice.
        """
        pairs = list(query)
        about = self.about(dict(pairs).get("service", ""))
        choices = Choices.of((key, value) for key, value in pairs if key not in OF_PAGE)
        return Asked(opened=about, choices=choices, log=self._log(about, choices.traffic))

    def pins(self, query: Iterable[tuple[str, str]]) -> list[Asked]:
        """The pinned states of a URL; each pin is a query."""
        pinned = [value for key, value in query if key == "pin"]
        if len(pinned) > MOST_PINS:
            raise InputError(f"at most {MOST_PINS} plans are pinned, got {len(pinned)}")
        return [self.of(parse_qsl(one, keep_blank_values=True)) for one in pinned]

    def about(self, name: str) -> Opened:
        """The requested service: by name in a fleet, the first if none is named."""
        services = self.opened.service_by_name
        if not services:
            if name:
                raise InputError("this page shows one service, but the address names another")
            return self.opened
        if name and name not in services:
            raise InputError(f"the fleet has no service {name[:60]!r}", hint=f"choose from: {', '.join(services)}")
        return services[name or next(iter(services))]

    def _log(self, about: Opened, traffic: str) -> tuple[str, str]:
        """Path of the chosen log, and its name in commands."""
        if traffic in (OWN, MIXTURE):
            return "", ""
        if traffic in about.log_by_name:
            return (str(about.log_by_name[traffic]),) * 2
        number, _, name = traffic.partition("/")
        place = Path(self._uploads.name) / number / name
        if not (_ID.fullmatch(number) and _NAME.fullmatch(name) and place.is_file()):
            raise InputError(f"there is no log {traffic[:60]!r}", hint="upload it again")
        return str(place), name

    def place_for_upload(self, name: str) -> tuple[Path, str]:
        """A new file for an upload, and its name as a choice; the oldest uploads are removed if there are too many.

        Raises
        ------
        InputError
            The name is not valid as a file name.
        """
        if not _NAME.fullmatch(name):
            raise InputError(
                f"{name[:60]!r} is not a valid name for a log",
                hint="letters, digits, '.', '_' and '-', at most 100; rename the file",
            )
        folders = sorted(Path(self._uploads.name).iterdir(), key=lambda one: one.stat().st_mtime)
        for folder in folders[: max(0, len(folders) + 1 - _MOST_UPLOADS)]:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        number = secrets.token_urlsafe(12)
        folder = Path(self._uploads.name) / number
        folder.mkdir()
        return folder / name, f"{number}/{name}"

    def shown(self, text: str) -> str:
        """A text without the path of the upload folder."""
        return re.sub(re.escape(self._uploads.name) + r"/[A-Za-z0-9_-]{16}/", "", text)

    def close(self) -> None:
        """Remove the uploads."""
        self._uploads.cleanup()
