"""What a target declares, and how what is given is held against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import pytest
from deploy_cases import two_types

from melange.deploy.manifest import Manifest
from melange.deploy.render import TARGETS, render
from melange.deploy.target import Target, option
from melange.errors import InputError
from melange.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """One option of every kind."""

    namespace: str = option("default", "Where it lives.")
    port: int = option(8000, "Port that servers listen on.")
    headroom: float | None = option(None, "Room that is kept free.")
    is_spot: bool = option(False, "Whether nodes may go away.")
    scaler: Literal["hpa", "keda"] = option("hpa", "What scales it.")
    zones: Sequence[str] = option((), "Where nodes may be.")
    labels: Mapping[str, str] | None = option(None, "Of everything.")

    def __post_init__(self) -> None:
        if not 0 < self.port < 2**16:
            raise InputError(f"port must be from 1 to 65535, got {self.port}")


def stack(plan: Plan, options: StackOptions, written: date) -> Manifest:
    """Two files in a folder."""
    files = {"base/stack.yaml": f"{plan.model} {options.port}\n", "day": written.isoformat()}
    return Manifest(target="stack", files=files)


STACK = Target(name="stack", about="A stack.", options=StackOptions, render=stack)


def test_options_have_names_kinds_defaults_and_help() -> None:
    """In words, for people and as JSON."""
    assert [(one.name, one.kind, one.default) for one in STACK.declared] == [
        ("namespace", "text", "default"),
        ("port", "a whole number", 8000),
        ("headroom", "a number or null", None),
        ("is_spot", "true or false", False),
        ("scaler", "hpa or keda", "hpa"),
        ("zones", "a list", ()),
        ("labels", "a mapping or null", None),
    ]
    assert STACK.to_json()["options"][1] == {
        "name": "port",
        "kind": "a whole number",
        "default": 8000,
        "about": "Port that servers listen on.",
    }


def test_what_is_not_given_has_its_default() -> None:
    """Also with nothing given at all; a whole number will do for a number."""
    assert STACK.chosen({}) == StackOptions()
    assert STACK.chosen({"headroom": 1, "zones": ["a"]}) == StackOptions(headroom=1.0, zones=["a"])


def test_an_option_that_is_not_declared_is_an_error() -> None:
    """With the nearest one, and all that the target has."""
    with pytest.raises(InputError, match="stack: unknown option 'name_space'; did you mean 'namespace'") as caught:
        STACK.chosen({"name_space": "a"})
    assert caught.value.hint == "stack has namespace, port, headroom, is_spot, scaler, zones, labels"


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("namespace", 7, "text"),
        ("port", "8000", "a whole number"),
        ("port", True, "a whole number"),
        ("port", 8000.0, "a whole number"),
        ("port", None, "a whole number"),
        ("headroom", "much", "a number or null"),
        ("is_spot", 1, "true or false"),
        ("scaler", "knative", "hpa or keda"),
        ("zones", "a", "a list"),
        ("labels", {"a": 1}, "a mapping or null"),
    ],
)
def test_a_value_of_another_kind_is_an_error(name: str, value: object, kind: str) -> None:
    """Nothing is turned into something else."""
    with pytest.raises(InputError, match=f"^stack: option {name} must be {kind}, got "):
        STACK.chosen({name: value})


def test_all_values_of_other_kinds_are_said_at_once() -> None:
    """And what the options themselves check afterwards."""
    with pytest.raises(InputError, match=r"option port must .*\n.*option is_spot must"):
        STACK.chosen({"port": "a", "is_spot": "b", "scaler": "hpa"})
    with pytest.raises(InputError, match="port must be from 1 to 65535"):
        STACK.chosen({"port": 0})


def test_texts_are_read_by_what_is_declared() -> None:
    """YAML scalars; where text is wanted, numbers and what YAML makes of words stay text."""
    pairs = ["namespace=1.10", "port=8080", "headroom=null", "is_spot=true", "scaler=keda", "zones=[a, b]"]
    assert STACK.read([*pairs, "labels={a: x=y}"]) == {
        "namespace": "1.10",
        "port": 8080,
        "headroom": None,
        "is_spot": True,
        "scaler": "keda",
        "zones": ["a", "b"],
        "labels": {"a": "x=y"},
    }
    for text in ("no", "", "2026-01-01", "[::1]:80", "a: b", "'quoted'"):
        value = STACK.read([f"namespace={text}"])["namespace"]
        assert value == text.strip("'")
    assert STACK.read(["port=many"]) == {"port": "many"}


def test_texts_of_another_shape_are_errors() -> None:
    """No equals sign, no name, a name twice."""
    for pairs in (["port"], ["=8000"], [""]):
        with pytest.raises(InputError, match="--option must be KEY=VALUE"):
            STACK.read(pairs)
    with pytest.raises(InputError, match="port is given twice"):
        STACK.read(["port=1", "port=2"])


def test_a_target_may_write_folders() -> None:
    """From plan, options and date; the seam asks nothing else of it."""
    manifest = STACK.render(two_types(), STACK.chosen({"port": 1}), date(2026, 3, 1))
    assert dict(manifest.files) == {"base/stack.yaml": "meta-llama/Llama-3.1-8B-Instruct 1\n", "day": "2026-03-01"}


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_complete(name: str) -> None:
    """A sentence, help for each option, options that nobody has to give, and the same files each time."""
    target = TARGETS[name]
    assert target.name == name
    assert target.about.endswith(".")
    assert all(one.about.endswith(".") for one in target.declared)
    assert "written" not in {one.name for one in target.declared}
    manifest, again = (render(two_types(), name, written=date(2026, 3, 1)) for _ in range(2))
    assert manifest.target == name
    assert all(manifest.files.values())
    assert manifest.to_json() == again.to_json()
