"""Differences between a target's files for two plans."""

from __future__ import annotations

import difflib

from melange.deploy.manifest import Manifest

# A plan embedded in a file is one very long line, so only the beginning of long lines is shown.
_LONGEST_LINE = 200
# Lines of context around a change.
_CONTEXT = 3


def difference(before: Manifest, after: Manifest) -> str:
    r"""A unified diff of all files; empty if no file changes.

    >>> old, new = (Manifest(target="a", files={"a.yaml": f"replicas: {count}\n"}) for count in (2, 3))
    >>> print(difference(old, new), end="")
    --- a.yaml
    +++ a.yaml
    @@ -1 +1 @@
    -replicas: 2
    +replicas: 3
    """
    names = dict.fromkeys((*before.files, *after.files))
    return "".join(_of_file(name, before.files.get(name), after.files.get(name)) for name in names)


def _of_file(name: str, old: str | None, new: str | None) -> str:
    lines = difflib.unified_diff(
        (old or "").splitlines(),
        (new or "").splitlines(),
        "/dev/null" if old is None else name,
        "/dev/null" if new is None else name,
        n=_CONTEXT,
        lineterm="",
    )
    return "".join(f"{_short(line)}\n" for line in lines)


def _short(line: str) -> str:
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}... ({len(line):,} characters)"
