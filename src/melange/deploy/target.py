"""A target of the deploy stage: its name, its options, and how it renders a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import date
from types import NoneType, UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import TypeAdapter, ValidationError

from melange.deploy.manifest import Manifest
from melange.errors import InputError, unknown
from melange.files import Json
from melange.parsing import parse_yaml
from melange.plan.plan import Plan

Chosen = TypeVar("Chosen")
_KINDS: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    Mapping: "a mapping",
    Sequence: "a list",
}


def option(default: Any, about: str) -> Any:
    """A field of a target's options: a dataclass field with a default and a help text."""
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option as shown to users.

    Parameters
    ----------
    name
        Name of its field.
    kind
        Valid values, in words.
    default
        Default value.
    about
        Description, in one sentence.
    """

    name: str
    kind: str
    default: Any
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared(Generic[Chosen]):
    """What users see of a target: its name, its description and its options.

    Parameters
    ----------
    name
        Name that users give.
    about
        Description, in one sentence.
    options
        Its own options: a frozen dataclass whose fields are made by :func:`option`. Types are ``str``, ``int``,
        ``float``, ``bool``, ``Literal`` choices, ``Sequence`` and ``Mapping``, and each of these or None.
        ``__post_init__`` checks ranges and combinations of fields.
    """

    name: str
    about: str
    options: type[Chosen]

    @property
    def source(self) -> str:
        """What the files are made from: ``plan`` or ``schedule``."""
        return "plan"

    @property
    def declared(self) -> tuple[Option, ...]:
        """The options as shown to users."""
        hints = get_type_hints(self.options)
        return tuple(
            Option(name=one.name, kind=_kind_of(hints[one.name]), default=one.default, about=one.metadata["about"])
            for one in fields(self.options)  # type: ignore[arg-type]
        )

    def chosen(self, given: Mapping[str, object]) -> Chosen:
        """The options with the given values, checked.

        Raises
        ------
        InputError
            An unknown option (the error names the known ones), or a value of another type.
        """
        hints = get_type_hints(self.options)
        if strange := [name for name in given if name not in hints]:
            fault = unknown("option", strange[0], hints, place=self.name)
            raise InputError(str(fault), hint=f"{self.name} has {', '.join(hints) or 'no options'}")
        wrong = [
            f"{self.name}: option {name} must be {_kind_of(hints[name])}, got {value!r}"
            for name, value in given.items()
            if not _is_of(hints[name], value)
        ]
        if wrong:
            raise InputError("\n".join(wrong))
        return self.options(**given)

    def read(self, pairs: Iterable[str]) -> dict[str, object]:
        """Values by option name from ``KEY=VALUE`` texts, not yet checked.

        Values are YAML; a value of another type than the option's remains text: ``image_tag=1.10``.

        Raises
        ------
        InputError
            A text in another format, or an option that is given twice.
        """
        hints, values = get_type_hints(self.options), dict[str, object]()
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals or not name:
                raise InputError(f"--option must be KEY=VALUE, got {pair!r}")
            if name in values:
                raise InputError(f"--option {name} is given twice")
            values[name] = _value_of(hints.get(name, object), text)
        return values

    def to_json(self) -> Json:
        """The target's description and options, as a JSON object."""
        declared = [asdict(one) for one in self.declared]
        return {"name": self.name, "about": self.about, "source": self.source, "options": declared}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target(Declared[Chosen]):
    """A deployment target of plans.

    Parameters
    ----------
    render
        Returns the files for a plan with options, written on a date.
    """

    render: Callable[[Plan, Chosen, date], Manifest]


def _kind_of(hint: Any) -> str:
    """Valid values of a type, in words.

    >>> _kind_of(float | None), _kind_of(Literal["hpa", "keda"])
    ('a number or null', 'hpa or keda')
    """
    if get_origin(hint) in {Union, UnionType}:
        return " or ".join(_kind_of(one) for one in get_args(hint))
    if get_origin(hint) is Literal:
        return " or ".join(str(one) for one in get_args(hint))
    return _KINDS[get_origin(hint) or hint]


def _is_of(hint: Any, value: object) -> bool:
    """Whether a value has a type; a whole number is also accepted as a number, but there is no other conversion."""
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def _value_of(hint: Any, text: str) -> object:
    try:
        value = parse_yaml(text, "--option")
    except InputError:
        return text
    return value if _is_of(hint, value) else text
