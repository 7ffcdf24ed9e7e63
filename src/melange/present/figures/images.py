"""Pictures as files for papers: PNG and SVG, drawn by a browser on this machine."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melange.errors import InputError
from melange.installed import how_to_add

if TYPE_CHECKING:
    from melange.present.figures.picture import Picture

_FORMATS = ("png", "svg")
# Wide enough for the titles, which are wrapped for this width (present/figures/theme.py).
_WIDTH_PX = 1000
# PNG pixels per picture pixel: 300 dpi for a picture printed 17 cm wide. With 1, pixels would show in print; with 3,
# files grow for detail that few printers show.
_PIXEL_RATIO = 2


def check_images(folder: Path, image_format: str) -> None:
    """Check the requirements of images before any work is done.

    Raises
    ------
    InputError
        An unknown format, a folder that cannot be created, or kaleido, Chrome or Chromium is not installed.
    """
    if image_format not in _FORMATS:
        raise InputError(f"--format must be {' or '.join(_FORMATS)}, got {image_format!r}")
    if importlib.util.find_spec("kaleido") is None:
        raise InputError("--images needs kaleido, which is not installed", hint=how_to_add("images"))
    if find_browser() is None:
        raise InputError(
            "--images needs Chrome or Chromium, and none was found",
            hint="install chromium, or set the environment variable BROWSER_PATH to its program",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be created: {error.strerror}", hint="choose a writable folder") from error


def write_images(pictures: Sequence[Picture], folder: Path, image_format: str) -> list[Path]:
    """Write every view of every picture; files are named after the picture, with a number from the second view on.

    Raises
    ------
    InputError
        As in :func:`check_images`; also a browser that fails to draw.
    """
    check_images(folder, image_format)
    import kaleido

    jobs = []
    for picture in pictures:
        for number, variant in enumerate(picture.variants, 1):
            stem = picture.name + (f"-{number}" if number > 1 else "")
            path = folder / f"{stem}.{image_format}"
            options = {"format": image_format, "width": max(_WIDTH_PX, picture.min_width), "scale": _PIXEL_RATIO}
            jobs.append({"fig": variant.figure.to_dict(), "path": path, "opts": options})
    page = kaleido.PageGenerator(mathjax=False)  # text is drawn literally; nothing is fetched
    try:
        kaleido.write_fig_from_object_sync(jobs, cancel_on_error=True, kopts={"page_generator": page})
    except Exception as error:  # any error of the browser's driver has the same remedy
        raise InputError(
            f"the browser did not draw the pictures: {error}",
            hint="check that Chrome or Chromium starts, or set the environment variable BROWSER_PATH to another one",
        ) from error
    return [Path(str(job["path"])) for job in jobs]


def find_browser() -> str | None:
    """Path of the Chrome or Chromium that draws; None if there is none."""
    from choreographer.browsers.chromium import Chromium

    return str(path) if (path := Chromium.find_browser(skip_local=False)) else None
