"""What command-line settings change in a service, key by key, whether they name a key or a whole section."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from melange.errors import InputError
from melange.parsing import parse_yaml
from melange.service.reading import apply_setting
from melange.service.schema import Service

# Keys that a file may lack because a setting gives them.
_REQUIRED = ("model", "slo", "workload")
# Flags that add to a key of the service.
_FLAG_BY_KEY = {"profile.anchors": "--anchor", "profile.observed": "--observed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What settings and flags change in a service.

    Parameters
    ----------
    before, after
        The values of the file alone and of the service, by key: ``section.key``, ``classes.NAME.key``, or a key
        without a section. Only keys whose values differ.
    said
        Every value that a setting names, by key, also if it is the file's own; a whole section is divided into its
        keys.
    """

    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)

    def label(self, key: str) -> str:
        """How the user gave a changed value: ``--set offers.market=[spot]``; as in the file if no setting names it."""
        flag = _FLAG_BY_KEY.get(key, "")
        shown = in_yaml(self.after[key])
        if any(one == key or one.startswith(f"{key}.") for one in self.said):
            return f"--set {key}={shown}"
        if any(one.partition(".")[0] == key.partition(".")[0] for one in self.said):
            return f"--set {key}={shown} (as a section without this key)"
        return f"{flag} {shown}" if flag else f"{key}={shown}"


def changes_of(service: Service, text: str, settings: Sequence[str]) -> Changes:
    """The changes that settings and flags make to a service.

    Parameters
    ----------
    service
        The service with all of them.
    text
        Its file.
    settings
        ``key.key=value`` each.
    """
    content, said = parse_yaml(text, "the service"), _applied(settings)
    after, before = _flat(service), _alone(service, content, said)
    changed = [key for key in dict.fromkeys((*before, *after)) if before.get(key) != after.get(key)]
    return Changes(
        before={key: before.get(key) for key in changed},
        after={key: after.get(key) for key in changed},
        said=_leaves(said),
    )


def said_by(settings: Sequence[str]) -> dict[str, Any]:
    """Every value that settings name, by key; a whole section is divided into its keys."""
    return _leaves(_applied(settings))


def _applied(settings: Sequence[str]) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for setting in settings:
        apply_setting(said, setting)
    return said


def _alone(service: Service, content: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a file alone; defaults in each section that a setting names, if the file alone is not valid."""
    filled = {name: service.model_dump(by_alias=True, exclude_unset=True)[name] for name in _REQUIRED}
    try:
        return _flat(Service.model_validate({**filled, **content, "folder": service.folder}))
    except ValidationError:
        fields = {name: Service.model_fields[name] for name in said if name in Service.model_fields}
        plain = {name: one.get_default() for name, one in fields.items() if not one.is_required()}
        return _flat(service.model_copy(update=plain))


def _flat(service: Service) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in Service.model_fields:
        value = getattr(service, name)
        if name == "classes":
            for label, section in value.items():
                found |= {f"classes.{label}.{key}": one for key, one in _values(section)}
        elif isinstance(value, BaseModel):
            found |= {f"{name}.{key}": one for key, one in _values(value)}
        else:
            found[name] = value
    return found


def _values(section: BaseModel) -> list[tuple[str, Any]]:
    return [(info.alias or name, getattr(section, name)) for name, info in type(section).model_fields.items()]


def _leaves(content: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = _leaves(value, f"{above}{key}.") if isinstance(value, dict) else {}
        found |= inner or {f"{above}{key}": value}
    return found


def in_yaml(value: Any) -> str:
    """A value as one line of YAML."""
    plain = value.model_dump(by_alias=True, exclude_unset=True) if isinstance(value, BaseModel) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=math.inf).partition("\n")[0]


def contradiction(label: str, place: str, held: str, hint: str) -> InputError:
    """An error for a value that contradicts a file; it says both."""
    return InputError(f"{label} contradicts {place}, which holds {held}", hint=hint)
