"""Flags that messages, hints and help texts name: each is one of the command line, or of another program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.main import get_command

import melange
from melange.cli.app import app

SOURCE = Path(melange.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# Places that write command lines of other programs, or style sheets: engines, load generators, clouds.
OF_OTHERS = (
    "deploy/command_lines.py",
    "deploy/launch.py",
    "deploy/targets/",
    "plan/load_points.py",
    "present/page.css",
    "ui/answer_parts.py",
)
# Flags of other programs that a text may name, by place.
NAMED = {
    "deploy/group.py": {"--head", "--address", "--distributed-executor-backend"},
    "deploy/live/discover.py": {"--every"},
    "deploy/operate/drivers/files_driver.py": {
        "--is-inside-work-tree",
        "--quiet",
        "--allow-empty",
        "--message",
        "--all",
    },
    "deploy/scaling_rule.py": {"--horizontal-pod-autoscaler-tolerance"},
    "deploy/timetable.py": {"--horizontal-pod-autoscaler-tolerance"},
    "processes.py": {"--head"},
    "profile/formats/aiperf.py": {"--concurrency", "--request-rate"},
    "replica/engine_defaults.py": {"--disable-radix-cache"},
    "replica/simulated/make_kernel.py": {"--check"},
    "service/caution_words.py": {"--processor"},
    "workload/scrapes.py": {"--collect-tokens-histogram", "--enable-metrics"},
}


@cache
def flags_by_command() -> dict[str, set[str]]:
    """The flags of each command, as its parser has them."""
    commands = get_command(app).commands
    return {
        name: {"--help", *(flag for one in command.params for flag in (*one.opts, *one.secondary_opts))}
        for name, command in commands.items()
    }


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a file with their lines, without docstrings; values in f-strings become an ellipsis."""
    tree = ast.parse(path.read_text())
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if id(node) in bare or id(node) in inside:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            parts = [one.value if isinstance(one, ast.Constant) else "..." for one in node.values]
            yield node.lineno, "".join(map(str, parts))


def wrong_flags(text: str, flags: dict[str, set[str]]) -> list[str]:
    """Flags after ``melange COMMAND`` that the command does not have, up to the end of the clause."""
    wrong = []
    for found in re.finditer(r"\bmelange (?=([a-z][a-z-]*))", text):
        command = found[1]
        if command not in flags:
            continue
        rest = re.split(r"[;)\n]|, |\bmelange\b", text[found.end() :])[0]
        wrong += [f"melange {command} {flag}" for flag in FLAG.findall(rest) if flag not in flags[command]]
    return wrong


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_flags_in_texts_exist(path: Path) -> None:
    """A flag is one of some command, and one of its command where the text names it."""
    flags, place = flags_by_command(), path.relative_to(SOURCE).as_posix()
    every = {"--version", *NAMED.get(place, ()), *(flag for some in flags.values() for flag in some)}
    faults = []
    for line, text in texts(path):
        faults += [f"{place}:{line}: {one}" for one in wrong_flags(text, flags)]
        if not place.startswith(OF_OTHERS):
            faults += [f"{place}:{line}: {flag}" for flag in FLAG.findall(text) if flag not in every]
    assert faults == []


def test_a_flag_of_another_command_is_found() -> None:
    """Only those that follow the command are looked at."""
    flags = {"deploy": {"--to", "--replica"}, "balance": {"--replicas"}}
    assert wrong_flags("melange deploy --to haproxy --replicas, or", flags) == ["melange deploy --replicas"]
    assert wrong_flags("melange deploy --to haproxy; melange balance --replicas FILE", flags) == []
