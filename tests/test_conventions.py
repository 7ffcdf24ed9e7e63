"""Conventions of the code that can be checked cheaply; each exception says why it is one."""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

Modules = Mapping[str, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "tests", "bench", "docs", "examples")
FORBIDDEN = {"util", "utils", "common", "helper", "helpers", "base", "manager"}
MOST_LINES, MOST_PARAMETERS = 400, 10
LONG_FILES = {
    "src/melange/replica/simulated/batching.py": "one engine step, compiled by Numba as a whole; to be divided",
    "tests/plan/test_solve.py": "three lines over; to be divided by what is tested",
}
MANY_PARAMETERS = {
    "replica/simulated/batching.py: _first_token": "compiled by Numba, which takes the world's arrays one by one",
    "replica/simulated/cluster.py: play": "requests are columns side by side, in place of one value",
}


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """Every Python file of the repository, by its path from the root."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def test_no_module_has_a_name_that_says_nothing(files: Mapping[str, str]) -> None:
    """A file is named after a noun or after what it does."""
    assert [path for path in files if set(re.split(r"[/.]", path)) & FORBIDDEN] == []


def test_no_two_modules_share_a_name(modules: Modules) -> None:
    """Outside of the command line, which has one file a command, a file name says which file it is."""
    names = [path.rpartition("/")[2] for path in modules if not path.startswith("cli/")]
    shared = {name for name, count in Counter(names).items() if count > 1} - {"__init__.py"}
    assert shared == set()


def test_no_file_is_too_long(files: Mapping[str, str]) -> None:
    """A file past 400 lines is asking to be split by concept."""
    assert {path for path, text in files.items() if text.count("\n") > MOST_LINES} == set(LONG_FILES)


def functions(modules: Modules) -> Iterator[tuple[str, Function]]:
    """Every function and method of the package, with its place."""
    for path, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield f"{path}: {node.name}", node


def parameters(function: Function) -> list[str]:
    """What a function takes, but for the object that a method is of."""
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def test_no_function_takes_too_many_parameters(modules: Modules) -> None:
    """With more than ten of them, some belong together in a value."""
    many = {place for place, function in functions(modules) if len(parameters(function)) > MOST_PARAMETERS}
    assert many == set(MANY_PARAMETERS)


def public(body: list[ast.stmt]) -> Iterator[Function | ast.ClassDef]:
    """Public functions, classes and their public methods; overloads are documented by what they overload."""
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
            if not any(ast.unparse(one) == "overload" for one in node.decorator_list):
                yield node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body)


def test_every_public_class_and_function_is_documented(modules: Modules) -> None:
    """Methods and properties too."""
    nodes = [(path, node) for path, tree in modules.items() for node in public(tree.body)]
    assert len(nodes) > 900
    assert [(path, node.name) for path, node in nodes if not ast.get_docstring(node)] == []


def test_every_field_of_a_public_value_is_documented(modules: Modules) -> None:
    """By its name under "Parameters", or where it is a flag, by its help; and nothing else is named there."""
    wrong = []
    for path, tree in modules.items():
        for node in public(tree.body):
            if isinstance(node, ast.ClassDef) and is_value(node):
                fields = {name for name, annotation in fields_of(node).items() if "help=" not in annotation}
                if fields != documented(node):
                    wrong.append((path, node.name, sorted(fields ^ documented(node))))
    assert wrong == []


def is_value(node: ast.ClassDef) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    return any("dataclass" in ast.unparse(one) for one in node.decorator_list) or "NamedTuple" in map(
        ast.unparse, node.bases
    )


def fields_of(node: ast.ClassDef) -> dict[str, str]:
    """Public fields of a class, with their annotations."""
    named = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    fields = {ast.unparse(one.target): ast.unparse(one.annotation) for one in named}
    return {name: annotation for name, annotation in fields.items() if not name.startswith("_")}


def documented(node: ast.ClassDef) -> set[str]:
    """The names under "Parameters" of a class's docstring."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?:\n\n|\Z)", ast.get_docstring(node) or "", re.DOTALL | re.MULTILINE)
    lines = section[1].splitlines() if section else []
    return {name for line in lines if not line.startswith(" ") for name in line.split(", ")}


def test_every_test_says_in_one_sentence_what_it_shows(files: Mapping[str, str]) -> None:
    """One sentence, so that a list of tests can be read."""
    tests = [
        (path, node)
        for path, text in files.items()
        if path.startswith("tests/")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, Function) and node.name.startswith("test_")
    ]
    assert len(tests) > 700
    said = [(path, node.name, (ast.get_docstring(node) or "").split("\n\n")) for path, node in tests]
    assert [one[:2] for one in said if len(one[2]) > 1 or not is_sentence(one[2][0])] == []


def is_sentence(text: str) -> bool:
    """Whether a text is one sentence: it ends once, at its end."""
    return text.endswith((".", "?")) and not re.search(r"[.?!]\s+[A-Z]", text)
