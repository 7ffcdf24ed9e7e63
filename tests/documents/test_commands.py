"""Commands, flags and Python calls of the documents are taken by the code; nothing is run."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator

import pytest
import typer

import melange
from documents import WRITTEN, blocks, code, commands, everywhere, flags_of, page, spans

# Flags of other programs that the documents name.
OTHERS = {"--max-concurrency", "--save-result", "--restart-epoch"}


def command_lines(text: str) -> Iterator[list[str]]:
    """The ``melange`` commands of a page's blocks, each as words, up to a pipe or a file that it writes to."""
    for block in blocks(text, "sh", "text", ""):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:\$ )?melange (?=[a-z])", line):
                words = shlex.split(line[found.end() :], comments=True)
                yield words[: min((words.index(mark) for mark in ("|", ">") if mark in words), default=len(words))]


def test_every_command_line_parses() -> None:
    """Its command and options exist, options have their values, and no word is left over."""
    lines = everywhere(command_lines, WRITTEN)
    assert len(lines) > 25
    for at, (name, *words) in lines:
        command = commands()[name]
        _, rest, _ = command.make_parser(typer.Context(command)).parse_args(words)
        assert rest == [], f"{at}: melange {name} {words}"


def test_every_command_in_the_prose_takes_the_flags_that_it_is_shown_with() -> None:
    """``melange plan --report`` names a flag of that command, though its value is left out."""
    said = [(at, span.split()[1:]) for at, span in everywhere(spans) if re.match(r"melange [a-z]", span)]
    assert len(said) > 40
    for at, (name, *words) in said:
        assert {word for word in words if word.startswith("--")} <= flags_of(commands()[name]), f"{at}: {name} {words}"


def test_every_flag_that_a_document_names_exists() -> None:
    """In a command, in a script of the repository, or in another program that is listed above."""
    ours = {flag for command in commands().values() for flag in flags_of(command)}
    known = {"--help", "--version"} | OTHERS | ours | set(re.findall(r'"(--[a-z][\w-]*)"', code()))
    said = everywhere(lambda text: [*spans(text), *blocks(text, "sh")])
    flags = {(at, flag) for at, text in said for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text)}
    assert sorted((at, flag) for at, flag in flags if flag not in known) == []


IN_THE_FLAGS_UNIT = {"s": 1.0, "minutes": 60.0, "MiB": 1.0, "%": 0.01, "times": 1.0}
VALUE, FLAG = r"(?P<value>\d[\d.,]*) (?P<unit>s|minutes|MiB|%|times)", r"`(?P<flag>--[a-z-]+)`"


@pytest.mark.parametrize("form", [rf"{VALUE} \({FLAG}", rf"{FLAG}(?: \(|, ){VALUE}"])
def test_the_defaults_on_the_balancers_page_are_those_of_its_flags(form: str) -> None:
    """The number beside a flag is its default: ``--drain`` (30 s), 8 MiB (``--max-body-mib``)."""
    default = {flag: parameter.default for parameter in commands()["balance"].params for flag in parameter.opts}
    said = list(re.finditer(form, page("docs/balance.md")))
    assert len(said) >= 5
    for found in said:
        value = float(found["value"].replace(",", "")) * IN_THE_FLAGS_UNIT[found["unit"]]
        assert default[found["flag"]] == pytest.approx(value), found[0]


def test_python_in_the_documents_calls_what_exists() -> None:
    """Public names, with arguments that they take."""
    calls = [
        (at, node)
        for at, block in everywhere(lambda text: blocks(text, "python"))
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and re.fullmatch(r"melange\.\w+", ast.unparse(node.func))
    ]
    assert len(calls) > 8
    for _, call in calls:
        verb = getattr(melange, ast.unparse(call.func).removeprefix("melange."))
        inspect.signature(verb).bind_partial(*call.args, **{word.arg: None for word in call.keywords if word.arg})
