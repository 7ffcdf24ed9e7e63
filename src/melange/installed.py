"""What is installed: the name of the distribution, its version, and how to add an extra.

The distribution is not called ``melange``: on the Python package index that name belongs to another project.
"""

from __future__ import annotations

DISTRIBUTION = "melange-planner"


def version() -> str:
    """The installed version, such as ``0.1.0``."""
    import importlib.metadata  # slow, as it imports the email package: only loaded when the version is needed

    return importlib.metadata.version(DISTRIBUTION)


def how_to_add(extra: str) -> str:
    """The command that installs an extra: from a clone, as long as the distribution is not published.

    >>> how_to_add("live")
    "in the clone of Melange: pip install '.[live]'"
    """
    return f"in the clone of Melange: pip install '.[{extra}]'"
