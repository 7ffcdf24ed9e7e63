"""What goes wrong around a command: bugs, full disks, homes that are not there, processes that are killed."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytestmark = pytest.mark.heavy

SERVICE = """\
model: meta-llama/Llama-3.1-8B
slo: {tpot_ms: 120}
workload: {dataset: arena, rate: 8}
offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}
"""
Run = Callable[..., subprocess.CompletedProcess[str]]
# Runs the command after some lines of Python, which stand for what happens to the process.
_PROGRAM = (
    "import os, signal, sys\n{before}\nfrom melange.cli import main\nsys.argv = ['melange', *sys.argv[1:]]\nmain()\n"
)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``melange`` in an empty folder, with what happens to it in Python, and changes of the environment."""
    (tmp_path / "service.yaml").write_text(SERVICE)

    def run(
        *arguments: str, before: str = "", limit: int | None = None, **environment: str | None
    ) -> subprocess.CompletedProcess[str]:
        changed = {**os.environ, **{name: value for name, value in environment.items() if value is not None}}
        for name in ("COLUMNS", *(name for name, value in environment.items() if value is None)):
            changed.pop(name, None)

        def limited() -> None:
            if limit is not None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(before=before), *arguments],
            cwd=tmp_path, env=changed, capture_output=True, text=True, timeout=120, preexec_fn=limited,
        )  # fmt: skip

    return run


def _raising(error: str) -> str:
    """Let planning raise something."""
    return f"import melange.service.session as s\ndef boom(*a, **k): raise {error}\ns.Session.plan = boom"


def test_a_bug_is_one_line_and_exit_code_70(run: Run) -> None:
    """With a request to report it; the traceback for those who ask for it."""
    broken = _raising("ZeroDivisionError('at \\x1b[2J')")
    done = run("plan", "service.yaml", "--quick", "--out", "plan.json", before=broken)
    assert (done.returncode, done.stdout) == (70, "")
    assert done.stderr.startswith("error: this is a bug in melange: please report it")
    assert done.stderr.count("\n") == 1
    assert "ZeroDivisionError: at \\x1b[2J" in done.stderr
    debugged = run("plan", "service.yaml", "--quick", before=broken, MELANGE_DEBUG="1")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_errors_are_wrapped_on_a_terminal_only(run: Run) -> None:
    """Between words: a path stays whole, and lines of a log are as long as they are."""
    path = "/".join(["folder"] * 10)
    broken = _raising(f"s.InputError('{'word ' * 30}{path}', hint='{'next ' * 20}')")
    whole = run("plan", "service.yaml", "--quick", before=broken).stderr
    assert whole.count("\n") == 2
    terminal = "os.environ['COLUMNS'] = '60'\nsys.stderr.isatty = lambda: True\n"
    wrapped = run("plan", "service.yaml", "--quick", before=terminal + broken).stderr
    assert wrapped.split() == whole.split()
    assert [len(line) > 60 for line in wrapped.splitlines()] == [path in line for line in wrapped.splitlines()]
    assert wrapped.count("\n") > 4


def test_an_error_of_the_system_is_no_bug(run: Run) -> None:
    """It names the file and the reason, and ends with exit code 2."""
    refused = _raising("PermissionError(13, 'Permission denied', 'x.db')")
    done = run("plan", "service.yaml", "--quick", before=refused)
    assert (done.returncode, done.stderr) == (2, "error: x.db: Permission denied\n")


def test_a_worker_that_is_killed_is_no_bug(run: Run) -> None:
    """It ends with exit code 2, and says what probably killed it."""
    killed = (
        "import melange.service.session as s\nfrom melange.processes import each_of\n"
        "s.Session.plan = lambda *a, **k: list(each_of(os._exit, [9, 9], 2, 2))"
    )
    done = run("plan", "service.yaml", "--quick", before=killed)
    assert done.returncode == 2
    assert done.stderr.startswith("error: one of 2 worker processes was killed, probably because ")


# Ctrl-C as it reaches a process in the foreground of a terminal, with the handler that Python sets there.
_INTERRUPTIBLE = "signal.signal(signal.SIGINT, signal.default_int_handler)\n"


@pytest.mark.parametrize("module", ["melange.errors", "typer", "numpy", "melange.plan.solve"])
def test_an_interrupt_while_modules_are_imported_is_silent(run: Run, module: str) -> None:
    """Before the command begins, and in it."""
    interrupted = (
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.meta_path.insert(0, Finder())"
    )
    done = run("plan", "service.yaml", "--quick", before=_INTERRUPTIBLE + interrupted)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize("job", ["time.sleep", "functools.partial(os.killpg, 0)"], ids=["while starting", "at work"])
def test_an_interrupt_of_parallel_work_is_silent(run: Run, job: str) -> None:
    """Each process of the group gets it, as from a terminal; none prints a traceback."""
    work = (
        "import functools, multiprocessing, threading, time\n"
        "import melange.service.session as s\nfrom melange.processes import each_of\n"
        "os.setpgrp()\n"
        "def press():\n"
        "    while len(multiprocessing.active_children()) < 2: time.sleep(0.001)\n"
        "    time.sleep(0.05)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        f"if {job == 'time.sleep'}: threading.Thread(target=press).start()\n"
        f"s.Session.plan = lambda *a, **k: list(each_of({job}, [int(signal.SIGINT)] * 3, 2, 2))"
    )
    done = run("plan", "service.yaml", "--quick", before=_INTERRUPTIBLE + work)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told(run: Run, tmp_path: Path) -> None:
    """Of the file, of which the old content stays and no draft; and of the standard output."""
    (tmp_path / "workload.json").write_text("old")
    done = run("workload", "--dataset", "arena", "--rate", "8", "--out", "workload.json", limit=500)
    assert done.returncode == 2
    assert "error: workload.json: cannot be written: File too large" in done.stderr
    assert (tmp_path / "workload.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["service.yaml", "workload.json"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM.format(before=""), "catalog"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [("stdout",), ("stdin", "stdout", "stderr")])
def test_streams_that_the_caller_closed_lead_nowhere(run: Run, tmp_path: Path, closed: tuple[str, ...]) -> None:
    """As with ``>&-`` or from some schedulers: the plan is written, and it alone is in its file."""
    before = "".join(f"sys.{name} = None\n" for name in closed)
    done = run("plan", "service.yaml", "--quick", "--out", "plan.json", before=before)
    assert (done.returncode, done.stdout) == (0, "")
    assert json.loads((tmp_path / "plan.json").read_text())["melange"] == "plan/1"
    assert run("plan", "absent.yaml", before=before).returncode == 2


def test_a_folder_is_refused_before_the_work(run: Run) -> None:
    """Where a file is to be written, nothing is planned first."""
    done = run("plan", "service.yaml", "--out", "", before=_raising("AssertionError('planned')"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: .: cannot be written: is a folder (was the name empty?)\nhint: ")


def test_a_device_is_written_to_and_not_replaced(run: Run) -> None:
    """--out /dev/stdout prints; the device is still one."""
    done = run("workload", "--dataset", "arena", "--rate", "8", "--out", "/dev/stdout")
    assert done.returncode == 0
    assert '{"melange": "workload/1"' in done.stdout
    assert not Path("/dev/stdout").is_file() or Path("/dev/stdout").is_symlink()


@pytest.mark.parametrize("kind", ["none", "not a folder", "unwritable", "corrupted"])
def test_a_cache_that_cannot_be_used_is_done_without(run: Run, tmp_path: Path, kind: str) -> None:
    """No home at all, a file in the place of a folder, one that cannot be written to, and one that holds anything."""
    cache = tmp_path / "cache"
    environment: dict[str, str | None] = {"MELANGE_CACHE": str(cache / "melange")}
    before = ""
    if kind == "none":
        environment = {"MELANGE_CACHE": None, "XDG_CACHE_HOME": None, "HOME": None, "TMPDIR": str(tmp_path)}
        before = "import pathlib\ndef no(*a): raise RuntimeError('no home directory')\npathlib.Path.home = no"
    elif kind == "not a folder":
        cache.write_text("")
    elif kind == "unwritable":
        cache.mkdir(mode=0o500)
    else:
        (cache / "melange").mkdir(parents=True)
        (cache / "melange" / "rates.json").write_text('{"a": [NaN, [[]]]')
    slo = "slo={tpot_ms: 120, statistic: p95}"
    small = "workload.buckets={input: [16000], output: [2000]}"
    done = run("profile", "service.yaml", "--set", slo, "--set", small, "--set", "offers.gpus=[L4]",
               "--set", "profile.tensor_parallel=[1]", before=before, **environment)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "aws/us-east-1/g6.xlarge" in done.stdout


# Killed as the draft is written, before it takes the file's place.
_KILLED = "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (("workload", "service.yaml", "--out", "w.json"), "w.json"),
        (("profile", "service.yaml", "--out", "p.json"), "p.json"),
        (("plan", "service.yaml", "--quick", "--out", "plan.json"), "plan.json"),
        (("plan", "service.yaml", "--quick", "--report", "plan.html"), "plan.html"),
    ],
)
def test_a_killed_run_leaves_the_old_file_and_the_next_run_its_own(
    run: Run, tmp_path: Path, command: tuple[str, ...], name: str
) -> None:
    """Signal 9 in the midst of writing; the draft that is left behind goes with the next run."""
    (tmp_path / name).write_text("old")
    done = run(*command, before=_KILLED)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / name).read_text() == "old"
    assert len([path for path in tmp_path.iterdir() if path.name.startswith(f".{name}.")]) == 1
    assert run(*command).returncode == 0
    assert (tmp_path / name).read_text() != "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "service.yaml"])


def test_a_killed_run_leaves_the_cache_as_it_was(run: Run, tmp_path: Path) -> None:
    """Rates that were found are kept whole or not at all, and found again."""
    cache = tmp_path / "cache"
    slo = "slo={tpot_ms: 120, statistic: p95}"
    small = "workload.buckets={input: [16000], output: [2000]}"
    command = ("profile", "service.yaml", "--set", slo, "--set", small, "--set", "offers.gpus=[L4]",
               "--set", "profile.tensor_parallel=[1]", "--json")  # fmt: skip
    done = run(*command, before=_KILLED, MELANGE_CACHE=str(cache))
    assert done.returncode == -signal.SIGKILL
    assert not (cache / "rates.json").exists()
    first = run(*command, MELANGE_CACHE=str(cache))
    assert [path.name for path in cache.iterdir()] == ["rates.json"]
    assert json.loads((cache / "rates.json").read_text())
    assert run(*command, MELANGE_CACHE=str(cache)).stdout == first.stdout
