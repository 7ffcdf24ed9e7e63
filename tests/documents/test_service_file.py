"""Keys, values and defaults of a service.yaml are as the documents and the template say."""

import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import yaml

from documents import PACKAGE, everywhere, spans
from melange.plan.options import Options
from melange.service.schema import PlanSection, Service

SMALLEST: dict[str, Any] = {"model": "m", "slo": {"tpot_ms": 60}, "workload": {"dataset": "arena", "rate": 1}}
LINE = re.compile(r"(?P<indent> *)(?:# )?(?P<key>[a-z_]+):(?: (?P<value>.*?))?(?:\s+# (?P<comment>.*))?$")


def field_of(keys: list[str]) -> Any:
    """The schema's field at a key; None where it has none. Below a mapping of names everything may stand."""
    section: Any = Service
    found = None
    for key in keys:
        by_key = {field.alias or name: field for name, field in section.model_fields.items()}
        if key not in by_key:
            return None
        found = by_key[key]
        if not hasattr(found.annotation, "model_fields"):
            return found
        section = found.annotation
    return found


def pieces(text: str) -> list[str]:
    """Pieces of a service.yaml in the prose of a page: ``profile: {simulate: true}``."""
    sections = "|".join(Service.model_fields)
    return [span for span in spans(text) if re.match(rf"(?:{sections}): ", span)]


def test_pieces_of_a_service_in_the_documents_are_valid() -> None:
    """Their keys exist and take such values; dots stand for a value that is left out."""
    found = everywhere(pieces)
    assert len(found) > 12
    for at, piece in found:
        for name, value in yaml.safe_load(piece).items():
            if "..." in piece:
                assert all(field_of([name, key]) for key in value), f"{at}: {piece}"
            else:
                whole = SMALLEST.get(name, {}) | value if isinstance(value, dict) else value
                Service.model_validate(SMALLEST | {name: whole})


def test_every_key_that_the_documents_set_on_the_command_line_exists() -> None:
    """``--set workload.rate=32`` reaches a key."""
    keys = everywhere(lambda text: re.findall(r"--set ([a-z_.]+)=", text))
    assert len(keys) > 4
    assert [(at, key) for at, key in keys if field_of(key.split(".")) is None] == []


def template() -> Iterator[tuple[list[str], str]]:
    """Each key of the template, those in comments too, with the comment behind it."""
    section: list[str] = []
    for line in (PACKAGE / "service.template.yaml").read_text().splitlines():
        found = LINE.match(line)
        if found is None or (not found["indent"] and found["key"] not in Service.model_fields):
            continue
        section = [*(section[:1] if found["indent"] else []), found["key"]]
        value, comment = found["value"] or "", found["comment"] or ""
        inner = yaml.safe_load(value) if len(section) == 1 and value.startswith("{") else {}
        yield section, "" if inner else comment
        yield from (([*section, key], comment) for key in inner)


def test_every_key_of_the_template_exists() -> None:
    """Those in comments too: taking the mark away is all that it takes."""
    keys = [keys for keys, _ in template()]
    assert len(keys) > 35
    assert [one for one in keys if field_of(one) is None] == []


def test_defaults_that_the_template_states_are_those_of_the_schema() -> None:
    """A value after ``default:`` is the schema's; where words stand there, the schema has nothing set."""
    stated = [(keys, found[1]) for keys, comment in template() if (found := re.search(r"[Dd]efault: (\w+)", comment))]
    assert len(stated) >= 4
    for keys, word in stated:
        default = field_of(keys).get_default(call_default_factory=True)
        value = default[0] if isinstance(default, list) and default else default
        assert str(value) == word or value in (None, []), keys


def test_a_plan_has_the_same_defaults_in_a_file_and_in_python() -> None:
    """Leaving a setting out gives the same plan either way."""
    in_file, in_python = PlanSection().to_options({}, {}), Options()
    assert all(getattr(in_file, field.name) == getattr(in_python, field.name) for field in fields(Options))
