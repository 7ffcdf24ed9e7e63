"""``melange`` as a process of its own, forked from one that has imported everything: it takes a third of the time."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path

# What commands import when they need it, and together takes most of a short one's time.
_IMPORTED = (
    *("melange.cli", "numpy", "typer", "rich.console", "yaml", "pydantic", "duckdb", "ibis", "highspy"),
    *("melange.service.session", "melange.plan.solve", "melange.validate.certify.certify", "melange.deploy.render"),
    *("melange.present.terminal.plan_tables", "melange.present.terminal.validation", "melange.profile.estimate"),
)


@cache
def _server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(_IMPORTED))
    return context


def command(
    *arguments: str | Path, cwd: Path, environment: Mapping[str, str] | None = None, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run ``melange`` with some arguments in a folder, under an environment (None: this one's)."""
    words = ["melange", *map(str, arguments)]
    variables = dict(os.environ if environment is None else environment)
    with tempfile.TemporaryDirectory() as name:
        out, err = Path(name) / "out", Path(name) / "err"
        process = _server().Process(target=_run, args=(words, cwd, variables, out, err))
        process.start()
        process.join(timeout_s)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, timeout_s)
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())


def _run(words: Sequence[str], cwd: Path, variables: Mapping[str, str], out: Path, err: Path) -> None:
    """Become the command: its arguments, folder, environment and output."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = list(words)
    for number, path in ((0, Path(os.devnull)), (1, out), (2, err)):
        flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags), number)
    for name, number in (("stdout", 1), ("stderr", 2)):
        setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    from melange.cli import main

    main()
