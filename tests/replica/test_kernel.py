"""The shipped kernel: the same answer as Numba's, to the byte, and never used where it might not fit."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from simulated import engine, fleet

from melange.replica.policy import POLICIES
from melange.replica.simulated import compiling, kernel
from melange.replica.simulated.cluster import Event, play
from melange.replica.simulated.kernel import FILE, SOURCES, Kernel, sources_digest
from melange.replica.simulated.outcome import Outcome

HERE = Path(kernel.__file__).parent
PACKAGE = HERE.parents[1]
ENGINES = {
    "chunked": {},
    "whole prompts": {"is_chunked": False},
    "reserved": {"is_fully_reserved": True},
    "windows": {"full_layers": 2, "sliding_layers": 2, "window": 300},
    "little memory": {"kv_tokens": 4 * 1200.0, "block_tokens": 32},
}


def played(policy: int, count: int = 600, **settings: object) -> Outcome:
    """Requests on four replicas of two types, one of which is lost and comes back."""
    rng = np.random.default_rng(policy)
    arrival_s = np.cumsum(rng.exponential(0.03, count))
    events = [Event(at_s=2.0, replica=1, is_up=False), Event(at_s=5.0, replica=1, is_up=True)]
    return play(
        [engine(**settings)] * 4,
        fleet([0, 0, 1, 1]),
        policy,
        arrival_s,
        rng.integers(1, 900, count),
        rng.integers(1, 300, count),
        rng.integers(0, 200, count),
        rng.integers(300, 400, count),
        events=events,
        seed=3,
    )


def content(outcome: Outcome) -> dict[str, bytes]:
    """All that a simulation has seen."""
    return {field.name: np.asarray(getattr(outcome, field.name)).tobytes() for field in fields(Outcome)}


def test_the_shipped_kernel_is_made_from_the_sources_as_they_are() -> None:
    """Else all users wait for Numba: run make kernel, and commit the file with the change."""
    assert Kernel.from_bytes(FILE.read_bytes()).sources == sources_digest()


@pytest.mark.parametrize("kind", ENGINES)
@pytest.mark.parametrize("policy", range(len(POLICIES)), ids=POLICIES)
def test_the_shipped_kernel_answers_what_numba_does(policy: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte for byte, every request, replica and gap, in whatever state memory is."""
    assert kernel.shipped() is not None
    first, second = played(policy, **ENGINES[kind]), played(policy, **ENGINES[kind])
    monkeypatch.setattr(kernel, "shipped", lambda: None)
    assert content(first) == content(second) == content(played(policy, **ENGINES[kind]))


def in_a_copy(folder: Path, code: str, **environment: str) -> str:
    """What Python prints in a process of its own that imports the package from a folder."""
    variables = {key: value for key, value in os.environ.items() if key != "MELANGE_COMPILE"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables | {"PYTHONPATH": str(folder)} | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


IS_USED = "from melange.replica.simulated import kernel; print(kernel.shipped() is not None)"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder with a copy of the package, as in a fresh clone: with other times of files, and nothing compiled."""
    shutil.copytree(
        PACKAGE, tmp_path / "melange", ignore=shutil.ignore_patterns("__pycache__"), copy_function=shutil.copy
    )
    return tmp_path


def test_a_simulation_with_the_shipped_kernel_needs_no_numba(copy: Path) -> None:
    """Neither its import nor a folder that it can write to."""
    code = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import numpy as np
from simulated import engine, fleet
from melange.replica.simulated.cluster import play
one = np.ones(1, np.int64)
print(play([engine()], fleet([0]), 0, np.zeros(1), one, one).status, "numba" in sys.modules)
"""
    assert in_a_copy(copy, code) == "[0] False"
    assert not list(copy.rglob("*.nbi"))


@pytest.mark.heavy
@pytest.mark.parametrize("name", SOURCES)
def test_a_kernel_is_not_used_where_a_source_has_changed(name: str, copy: Path) -> None:
    """Not even for a comment: a digest knows nothing of what matters."""
    source = copy / "melange" / "replica" / "simulated" / name
    source.write_text(source.read_text() + "# changed\n")
    assert in_a_copy(copy, IS_USED) == "False"


def test_ends_of_lines_are_no_change(copy: Path) -> None:
    """Git writes them as Windows has them there."""
    for name in SOURCES:
        source = copy / "melange" / "replica" / "simulated" / name
        source.write_bytes(source.read_bytes().replace(b"\n", b"\r\n"))
    assert in_a_copy(copy, IS_USED) == "True"


def test_a_kernel_that_was_cut_off_or_is_absent_is_not_used(copy: Path) -> None:
    """Numba compiles then."""
    file = copy / "melange" / "replica" / "simulated" / FILE.name
    whole = file.read_bytes()
    for content in (whole[:1000], b"", b"kernel"):
        file.write_bytes(content)
        assert in_a_copy(copy, IS_USED) == "False"
    file.unlink()
    assert in_a_copy(copy, IS_USED) == "False"


def test_whoever_does_not_want_it_can_have_it_compiled(copy: Path) -> None:
    """``MELANGE_COMPILE=1``."""
    assert in_a_copy(copy, IS_USED, MELANGE_COMPILE="1") == "False"


def test_a_kernel_of_a_newer_llvm_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLVM reads what older versions wrote, and may take what newer ones wrote for something else."""
    made = Kernel.from_bytes(FILE.read_bytes())
    assert kernel.shipped.__wrapped__() is not None
    monkeypatch.setattr(llvm, "llvm_version_info", (made.llvm[0] - 1, 9, 9))
    assert kernel.shipped.__wrapped__() is None


def test_bitcode_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file of the right digest whose code cannot be read."""
    made = Kernel.from_bytes(FILE.read_bytes())
    assert Kernel.from_bytes(made.to_bytes()) == made
    monkeypatch.setattr(kernel, "FILE", tmp_path / "kernel.bin")
    kernel.FILE.write_bytes(replace(made, bitcode=made.bitcode[: len(made.bitcode) // 2]).to_bytes())
    assert kernel.shipped.__wrapped__() is None


def test_arrays_of_another_type_are_left_to_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is given addresses: it would read and write past what is smaller or laid out in another way."""
    expected = ((np.dtype(np.int64), 2), (int, 0), (float, 0))
    table = np.arange(6).reshape(2, 3)
    words = kernel.words_of(expected, ((table,), 7, 0.5))
    assert words is not None
    assert words[[2, 3, 5, 6, 7, 8, 9]].tolist() == [6, 8, 2, 3, 24, 8, 7]
    assert words[4:5].tolist() == [table.ctypes.data]
    assert words[10:].view(float).tolist() == [0.5]
    read_only = table.copy()
    read_only.flags.writeable = False
    for other in (table.astype(np.int32), table.astype(float), table.T, table[:, :2], table[0], read_only, 5):
        assert kernel.words_of(expected, (other, 7, 0.5)) is None
    assert kernel.words_of(expected, (table, 7)) is None


def test_a_fleet_of_another_type_is_simulated_all_the_same() -> None:
    """Whole numbers of 4 bytes in place of 8, as ``play`` may be given."""
    one = np.ones(5, np.int64) * 20
    usual = fleet([0, 0])
    small = fleet([0, 0])._replace(type_of=np.zeros(2, np.int32))
    outcomes = [play([engine()] * 2, state, 0, np.arange(5.0), one, one) for state in (usual, small)]
    assert content(outcomes[0]) == content(outcomes[1])


def test_all_that_the_kernel_is_compiled_from_counts_as_its_source() -> None:
    """What the compiled loop imports of the package, and what that imports: compiled files, or values given."""
    found, left, taken = set(), {HERE / "compiled_loop.py"}, set()
    while left:
        path = left.pop()
        found.add(path)
        for module, name in imported(path):
            inside, outside = path_of(f"{module}.{name}"), path_of(module)
            if (inside if inside.exists() else outside).resolve() in {(HERE / one).resolve() for one in SOURCES}:
                left |= {(inside if inside.exists() else outside).resolve()} - found
            else:
                taken.add(name)
    assert found == {(HERE / name).resolve() for name in SOURCES}
    assert taken - {"sources_digest"} == set(kernel.GIVEN)


def imported(path: Path) -> list[tuple[str, str]]:
    """Each module of the package that a file imports from, with what it imports."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    return [
        (str(node.module), one.name) for node in nodes if str(node.module).startswith("melange") for one in node.names
    ]


def path_of(module: str) -> Path:
    """Where a module of the package is, if it is one."""
    return PACKAGE.parent / (module.replace(".", "/") + ".py")


def test_a_kernel_is_not_used_where_a_constant_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it comes from."""
    monkeypatch.setitem(kernel.GIVEN, "GROWTH", 1.02)
    assert kernel.shipped.__wrapped__() is None


def test_what_numba_keeps_is_forgotten_when_a_source_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba itself looks at the one file of a function, and not at what is compiled into it."""

    def hits() -> int:
        again = compiling.compiled(doubled)
        assert again(2.0) == 4.0
        return sum(again.stats.cache_hits.values())

    hits()
    assert hits() == 1
    monkeypatch.setattr(compiling, "sources_digest", lambda: "another")
    assert hits() == 0
    assert hits() == 1


def test_whoever_waits_for_numba_is_told_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing where the shipped kernel is used."""
    said: list[str] = []
    with kernel.compilation_told(said.append):
        compiling.inner(doubled).compile("float64(float64)")
    assert said == []
    monkeypatch.setattr(kernel, "shipped", lambda: None)
    with kernel.compilation_told(said.append):
        compiling.inner(doubled).compile("float64(float64)")
    assert said == ["compiling once, 1 of about 80 functions"]


def doubled(value: float) -> float:
    """What the test above compiles."""
    return value * 2.0


def test_where_nothing_can_be_kept_functions_are_compiled_all_the_same() -> None:
    """Numba refuses to keep a function where no folder can be written to; here, one that is in no file."""
    space: dict[str, object] = {}
    exec("def tripled(value):\n    return value * 3.0\n", space)
    assert compiling.compiled(space["tripled"])(2.0) == 6.0  # type: ignore[arg-type]
