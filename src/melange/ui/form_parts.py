"""Single controls as HTML: a number with a slider, a choice, a list of names with limits on their counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from melange.present.pages.html import escape
from melange.ui.choices import ALL, NONE

# More names than this are folded at first: the form would fill several screens.
_MOST_OPEN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number field with a slider.

    Parameters
    ----------
    key
        Key of the choice.
    label
        Its name, with the unit in [brackets].
    value, own
        The chosen number and the service's own; None: none.
    least, most
        Bounds of the field; None: no bound.
    drag
        Ends of the slider; None: no slider.
    is_log
        Whether the slider is logarithmic.
    is_whole
        Whether the number is a count.
    placeholder
        Shown if the field is empty.
    empty
        What an empty field chooses if the service has a number; empty: the service's own value.
    about
        A short explanation.
    part
        The mapping that it is a part of; empty: it is a choice by itself.
    """

    key: str
    label: str
    value: float | None
    own: float | None
    least: float = 0.0
    most: float | None = None
    drag: tuple[float, float] | None = None
    is_log: bool = True
    is_whole: bool = False
    placeholder: str = ""
    empty: str = ""
    about: str = ""
    part: str = ""

    def html(self) -> str:
        """The row in the form."""
        name = escape(f"{self.part}-{self.key}" if self.part else self.key)
        kind = (
            f'data-part="{escape(self.part)}" data-key="{escape(self.key)}"' if self.part else f'data-choice="{name}"'
        )
        most = "" if self.most is None else f' max="{self.most:g}"'
        hint = f' aria-describedby="{name}-about"' if self.about else ""
        about = f'<span class="hint" id="{name}-about">{escape(self.about)}</span>' if self.about else ""
        return (
            f'<div class="row"><label for="{name}">{escape(self.label)}</label>{self._slider(name)}'
            f'<input type="number" id="{name}" {kind} value="{_text(self.value)}" data-own="{_text(self.own)}" '
            f'data-empty="{escape(self.empty)}" min="{self.least:g}"{most} step="{1 if self.is_whole else "any"}" '
            f'placeholder="{escape(self.placeholder)}" inputmode="decimal" autocomplete="off"{hint}>{about}</div>'
        )

    def _slider(self, name: str) -> str:
        if self.drag is None:
            return ""
        low, high = self.drag
        return (
            f'<input type="range" data-for="{name}" data-low="{low:g}" data-high="{high:g}" '
            f'data-log="{int(self.is_log)}" data-whole="{int(self.is_whole)}" min="0" max="1000" step="1" '
            f'aria-label="{escape(self.label)}, slider" autocomplete="off">'
        )


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.12g}"


def group(title: str, content: str) -> str:
    """Controls below a title."""
    return f"<fieldset><legend>{escape(title)}</legend>{content}</fieldset>"


def choice(key: str, label: str, options: Mapping[str, str], chosen: str, own: str) -> str:
    """A choice of one option, each with a label."""
    lines = "".join(
        f'<option value="{escape(value)}"{" selected" if value == chosen else ""}>{escape(words)}</option>'
        for value, words in options.items()
    )
    name = escape(key)
    return (
        f'<div class="row"><label for="{name}">{escape(label)}</label>'
        f'<select id="{name}" data-choice="{name}" data-own="{escape(own)}" autocomplete="off">{lines}</select></div>'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """A list of names to choose from; if all are chosen, there is no restriction.

    Parameters
    ----------
    key
        Key of the choice.
    label
        What the names are.
    known
        All names.
    own
        The service's own restriction; None: none.
    chosen
        The user's choice; None: the service's own restriction.
    """

    key: str
    label: str
    known: Sequence[str]
    own: Sequence[str] | None
    chosen: Sequence[str] | None

    @property
    def checked(self) -> set[str]:
        """The names that are currently chosen."""
        return set(self._among(self.own if self.chosen is None else self.chosen))

    def _among(self, names: Sequence[str] | None) -> list[str]:
        """The known names among these, ignoring case; all known names if nothing is restricted."""
        folded = {name.casefold() for name in names or ()}
        is_all = not folded or folded == {ALL}
        return [name for name in self.known if is_all or name.casefold() in folded]

    def html(self, counts: Mapping[str, int] | None = None) -> str:
        """The list, with a limit beside each name if ``counts`` is given."""
        key, checked = escape(self.key), self.checked
        # The same format as in the page's script.
        among = self._among(self.own)
        own = [ALL] if len(among) == len(self.known) else among or [NONE]
        rows = "".join(self._row(name, name in checked, counts) for name in self.known)
        is_open = " open" if len(self.known) <= _MOST_OPEN else ""
        return (
            f'<details class="names"{is_open}><summary>{escape(self.label)}: '
            f'<span data-count="{key}">{len(checked)} of {len(self.known)}</span></summary>'
            f'<div role="group" aria-label="{escape(self.label)}" data-names="{key}" '
            f'data-own="{escape(",".join(own))}">'
            f'<p class="all"><button type="button" data-all="{key}">All</button>'
            f'<button type="button" data-none="{key}">None</button></p>{rows}</div></details>'
        )

    def _row(self, name: str, is_checked: bool, counts: Mapping[str, int] | None) -> str:
        text, at = escape(name), escape(f"{self.key}-{name}")
        count = ""
        if counts is not None:
            count = (
                f'<input type="number" data-part="max" data-key="{text}" value="{counts.get(name, "")}" min="0" '
                f'step="1" '
                f'placeholder="any" aria-label="Number of {text}, at most" inputmode="numeric" autocomplete="off">'
            )
        return (
            f'<div class="name"><input type="checkbox" id="{at}" value="{text}"{" checked" if is_checked else ""} '
            f'autocomplete="off"><label for="{at}">{text}</label>{count}</div>'
        )
