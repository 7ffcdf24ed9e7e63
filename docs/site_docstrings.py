"""Docstrings for the site's Python reference: roles and doctests as griffe knows them."""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`(?P<hidden>~)?(?P<name>[\w.]+)`")
# A doctest stands at the end, without the heading by which griffe knows it.
DOCTEST = re.compile(r"^(?=>>> )", re.MULTILINE)
HEADING = "Examples\n--------\n"


class Docstrings(griffe.Extension):
    """Turns roles (``:func:`~melange.solve```) into code, and gives doctests their heading."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a class, function, attribute or module when it was read."""
        if obj.docstring:
            text = ROLE.sub(as_code, obj.docstring.value)
            obj.docstring.value = text if HEADING in text else DOCTEST.sub(HEADING, text, count=1)


def as_code(role: re.Match[str]) -> str:
    """A role as a name in backticks: the last part of it where the role has a tilde."""
    return f"`{role['name'].rpartition('.')[2] if role['hidden'] else role['name']}`"
