"""Every public field has one name, one unit and one definition in docs/glossary.md, and nothing else is in it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

Modules = Mapping[str, ast.Module]

GLOSSARY = Path(__file__).parents[1] / "docs" / "glossary.md"
ENERGY_UNITS = ("W", "kW", "kWh", "kg", "kg/h", "g/kWh", "USD/kg")
UNITS = ("-", "1", "0-1", "tokens", "s", "min", "years", "bytes", "bytes/s", "1/s", "USD", "USD/h", *ENERGY_UNITS)
COMBINED_UNITS = ("1/s per bucket", "USD/h per 1/s")
# What the end or the beginning of a name says of its unit; the first that fits counts.
UNIT_BY_FORM = {
    r"_bytes_per_s$": "bytes/s",
    r"_kwh_per_mtok$": "kWh",
    r"_kg_per_mtok$": "kg",
    r"_kg_per_h$": "kg/h",
    r"_price_per_kg$": "USD/kg",
    r"_g_per_kwh$": "g/kWh",
    r"_kw$": "kW",
    r"_w$": "W",
    r"_per_h$": "USD/h",
    r"_per_mtok$": "USD",
    r"_bytes$": "bytes",
    r"_s$": "s",
    r"_minutes$": "min",
    r"_years$": "years",
    r"_per_(week|month)$|_usd$": "USD",
    r"_tokens$": "tokens",
    r"(?<!^by)_rate$": "1/s",
    r"_fraction$": "0-1",
    r"^(is|has)_": "-",
}
# Time and money without a suffix: tables by metric, values that are now one thing, now another, a single price.
UNSUFFIXED = {"limits", "times", "bucket_times", "statistics", "at", "own", "cost_at", "Suggestion.cost"}
# Whole numbers that count nothing: places in a list, and where random choices start.
UNCOUNTED = {"seed", "replica"}


class Row(NamedTuple):
    """A line of the glossary."""

    term: str
    names: list[str]
    unit: str
    definition: str


@cache
def rows() -> tuple[Row, ...]:
    """The lines of the glossary's tables."""
    lines = [line.strip("|").split("|") for line in GLOSSARY.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line] for line in lines if line[0].strip() != "term"]
    assert all(len(line) == 5 for line in cells), [line for line in cells if len(line) != 5]
    return tuple(Row(term, re.findall(r"`([^`]+)`", names), unit, text) for term, names, unit, text, _ in cells)


@cache
def imported(tree: ast.Module) -> dict[str, tuple[str, str]]:
    """Where the names that a module takes from others of the package are defined, those for type checking included."""
    return {
        alias.asname or alias.name: (node.module.removeprefix("melange.").replace(".", "/") + ".py", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("melange.")
        for alias in node.names
    }


def definition(path: str, name: str, modules: Modules) -> tuple[str, ast.stmt] | None:
    """The module and the statement that define a name as another module sees it."""
    tree = modules.get(path)
    for node in tree.body if tree else ():
        targets = node.targets if isinstance(node, ast.Assign) else []
        if getattr(node, "name", None) == name or any(getattr(target, "id", None) == name for target in targets):
            return path, node
    return definition(*imported(tree)[name], modules) if tree and name in imported(tree) else None


def public_members(noun: ast.ClassDef) -> dict[str, str]:
    """Fields, properties and public attributes of a class, with what they are annotated as."""
    found = {}
    for node in noun.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found[node.target.id] = ast.unparse(node.annotation)
        elif isinstance(node, ast.FunctionDef) and any("property" in ast.unparse(one) for one in node.decorator_list):
            found[node.name] = ast.unparse(node.returns) if node.returns else ""
    for node in ast.walk(noun):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            found.setdefault(node.attr, "")
    return {name: annotation for name, annotation in found.items() if not name.startswith("_")}


def annotations(node: ast.stmt) -> Iterator[ast.expr]:
    """What a definition refers to by its types: parameters and results of functions, fields and results of classes."""
    if isinstance(node, ast.FunctionDef):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        yield from (one for one in (node.returns, *(each.annotation for each in arguments)) if one is not None)
    elif isinstance(node, ast.ClassDef):
        public = [one for one in node.body if not getattr(one, "name", "").startswith("_")]
        yield from (one.returns for one in public if isinstance(one, ast.FunctionDef) and one.returns is not None)
        yield from (one.annotation for one in node.body if isinstance(one, ast.AnnAssign))
        for one in node.body:
            if isinstance(one, ast.FunctionDef) and one.name == "__init__":
                yield from annotations(one)
    elif isinstance(node, ast.Assign):
        yield node.value


@pytest.fixture(scope="module")
def nouns(modules: Modules) -> list[ast.ClassDef]:
    """The values that the public names of the package lead to; exceptions and sections of files are none."""
    queue = [definition("__init__.py", name, modules) for name in imported(modules["__init__.py"])]
    found: dict[tuple[str, str], ast.ClassDef] = {}
    seen = set()
    while queue:
        if (place := queue.pop()) is None or place in seen:
            continue
        seen.add(place)
        path, node = place
        if isinstance(node, ast.ClassDef):
            if node.bases:
                continue
            found[path, node.name] = node
        names = {one.id for each in annotations(node) for one in ast.walk(each) if isinstance(one, ast.Name)}
        queue += [definition(path, name, modules) for name in names]
    return list(found.values())


def test_the_walk_finds_the_nouns(nouns: list[ast.ClassDef]) -> None:
    """Those that users hold in their hands, and those that are reached through them."""
    named = {noun.name for noun in nouns}
    assert {"Plan", "Profile", "Workload", "Buckets", "Question", "Options", "Report", "TypeReport"} <= named
    assert {"Certificate", "Baseline", "Explanation", "CheaperFleet", "Measurement", "Suggestion", "Engine"} <= named
    assert {"Offer", "Accelerator", "Model", "Slo", "ReplicaType", "Manifest", "Session", "Caution"} <= named
    assert sum(len(public_members(noun)) for noun in nouns) > 300


def test_every_public_field_is_in_the_glossary(nouns: list[ast.ClassDef]) -> None:
    """Under its name, or as ``Class.field`` where the same word means something else there."""
    known = {name for row in rows() for name in row.names}
    fields = {(noun.name, name) for noun in nouns for name in public_members(noun)}
    assert sorted((noun, name) for noun, name in fields if not {name, f"{noun}.{name}"} & known) == []


def test_every_name_in_the_glossary_exists(modules: Modules) -> None:
    """As a field, class, function or constant; ``Class.field`` as a member of that class."""
    nodes = [node for tree in modules.values() for node in ast.walk(tree)]
    defined = {node.name for node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    defined |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        if isinstance(node, ast.ClassDef):
            defined |= {f"{node.name}.{name}" for name in public_members(node)} | set(public_members(node))
    assert [name for row in rows() for name in row.names if name not in defined] == []


def test_a_name_stands_once() -> None:
    """One name, one unit, one definition."""
    count = Counter(name for row in rows() for name in row.names)
    assert [name for name, times in count.items() if times > 1] == []
    assert [
        row.term for row in rows() if not (row.term and row.definition and row.unit in UNITS + COMBINED_UNITS)
    ] == []


def test_units_are_those_that_names_end_in() -> None:
    """``_s`` is seconds, ``_per_h`` USD an hour; seconds, bytes and money have no other names."""
    for row in rows():
        is_of_a_class = any(name[0].isupper() and "." not in name for name in row.names)
        for name in row.names:
            form = next((form for form in UNIT_BY_FORM if re.search(form, name.rpartition(".")[2])), None)
            if form:
                assert row.unit.startswith(UNIT_BY_FORM[form]), name
            elif name not in UNSUFFIXED and not is_of_a_class:
                assert row.unit not in ("s", "min", "bytes", "bytes/s", "USD", "USD/h"), name


def test_units_fit_the_types_of_fields(nouns: list[ast.ClassDef]) -> None:
    """Words and truths have none; whole numbers count something or are tokens."""
    unit = {name: row.unit for row in rows() for name in row.names}
    for noun in nouns:
        for name, annotation in public_members(noun).items():
            found = unit.get(f"{noun.name}.{name}") or unit.get(name)
            assert found, f"{noun.name}.{name} has no row in docs/glossary.md"
            kind = annotation.removesuffix(" | None")
            if kind in ("str", "bool", "date"):
                assert found == "-", (noun.name, name)
            elif kind == "int" and name not in UNCOUNTED:
                assert found in ("1", "tokens"), (noun.name, name)
