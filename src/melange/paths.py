"""What paths lead to: folders, pipes, and the folders of a user."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from melange.errors import InputError


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and its subfolders, in order of their paths.

    Raises
    ------
    InputError
        A folder that cannot be read; ``Path.rglob`` would leave its files out.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename}: cannot be read: {error.strerror}", hint="give this user the right to read the folder"
        )

    return sorted(Path(place, name) for place, _, names in os.walk(folder, onerror=refuse) for name in names)


def check_names_a_file(path: Path) -> None:
    """Reject a path that is a folder, before the work whose result it should hold.

    Raises
    ------
    InputError
        The path is a folder; an empty text is the current one.
    """
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):
        return  # the write reports the error
    if is_folder:
        raise InputError(
            f"{path}: cannot be written: is a folder{' (was the name empty?)' if str(path) == '.' else ''}",
            hint="give the name of a file, for example plan.json",
        )


def user_folder(variable: str, *below_home: str) -> Path:
    """The folder ``melange`` among this user's files of a kind.

    Parameters
    ----------
    variable
        The environment variable that names the folder of all such files: ``XDG_CACHE_HOME``, ``XDG_DATA_HOME``.
    below_home
        That folder if the variable is not set, from the home folder on. If there is no home folder either, the folder
        is next to temporary files.
    """
    if own := os.environ.get(variable):
        return Path(own) / "melange"
    try:
        return Path.home().joinpath(*below_home) / "melange"
    except RuntimeError:  # no HOME and no entry in the user database, as in some containers
        return Path(tempfile.gettempdir()) / f"melange-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


def is_pipe(path: str | Path) -> bool:
    """Whether a path is a pipe, which can be read only once: a named one, or one of this process (``/dev/stdin``)."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False
