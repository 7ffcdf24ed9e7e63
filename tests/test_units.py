"""Where units are converted, and that it is nowhere else."""

import ast
import operator
from collections.abc import Iterator
from pathlib import Path

import pytest

import melange
from melange.units import saved

SOURCE = Path(melange.__file__).parent
# What makes one unit of another: of time, of bytes by thousands and by 1,024, thousands and millions of something.
FACTORS = {1e-9, 1e-6, 1e-3, 60, 1e3, 2**10, 3_600, 86_400, 604_800, 1e6, 2**20, 1e9, 2**30, 1e12, 2**40}
BYTES = {2**10, 2**20, 2**30, 2**40}
UNITS = {"ns", "us", "ms", "m", "min", "h", "d", "w"}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
# What looks like a conversion and is none, and why.
ALLOWED = {
    ("present/figures/pictures.py", "60 * len(sweep.points)"): "pixels of a column",
}


def literal(node: ast.expr) -> float | None:
    """The value of an expression that holds nothing but numbers, such as ``2**30``."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = literal(node.left), literal(node.right)
        return None if left is None or right is None else ARITHMETIC[type(node.op)](left, right)
    return None


def is_factor(node: ast.expr) -> bool:
    """Whether an operand is a factor between units, or one of two that a condition chooses from."""
    if isinstance(node, ast.IfExp):
        return is_factor(node.body) or is_factor(node.orelse)
    return literal(node) in FACTORS


def scaled_by(node: ast.AST) -> list[ast.expr]:
    """What a node multiplies or divides by."""
    match node:
        case ast.BinOp(left=left, op=ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod(), right=right):
            return [left, right]
        case ast.AugAssign(op=ast.Mult() | ast.Div() | ast.FloorDiv() | ast.Mod(), value=value):
            return [value]
        case ast.Call(func=ast.Name(id="divmod"), args=[_, divisor]):
            return [divisor]
    return []


def named(node: ast.AST) -> list[ast.expr]:
    """What a node gives as the length of a unit that it names: ``{"ms": 1e-3}``, ``("h", 3600)``."""
    pairs: list[tuple[ast.expr | None, ast.expr]] = []
    if isinstance(node, ast.Dict):
        pairs = list(zip(node.keys, node.values, strict=True))
    elif isinstance(node, ast.Tuple) and len(node.elts) == 2:
        pairs = [(node.elts[0], node.elts[1])]
    return [
        value
        for key, value in pairs
        if isinstance(key, ast.Constant) and isinstance(key.value, str) and key.value.strip("_") in UNITS
    ]


def conversions(text: str) -> Iterator[str]:
    """Each place of a module that converts a unit by a literal factor, as it is written.

    A conversion multiplies or divides a quantity by a factor between units, or writes down how long a unit is. A
    tolerance is compared, added or has a name; 1,024 to a power is a number of bytes wherever it stands.
    """
    for node in ast.walk(ast.parse(text)):
        is_conversion = any(map(is_factor, [*scaled_by(node), *named(node)]))
        is_size = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and literal(node) in BYTES
        if is_conversion or is_size:
            yield ast.get_source_segment(text, node) or ""


def test_only_one_module_converts_units() -> None:
    """Wherever else a time, a size or a price is in another unit, a name of ``melange.units`` says which."""
    modules = [path for path in sorted(SOURCE.rglob("*.py")) if path != SOURCE / "units.py"]
    found = {
        (path.relative_to(SOURCE).as_posix(), place)
        for path in modules
        for place in conversions(path.read_text(encoding="utf-8"))
    }
    assert found == set(ALLOWED)


@pytest.mark.parametrize(
    "code",
    [
        "limit_s * 1e3",
        "1_000 * limit_s",
        "limit_ms / 1e3",
        "limit_ms *= 1e-3",
        "f'{time_s * 1e3:.1f} ms'",
        "memory_bytes / 2**30",
        "memory_bytes / 1024**3",
        "GIB = 2**30",
        "room_bytes = 0.5 * 2**30",
        "hours * 60 * 60",
        "cost_per_h / 3600.0",
        "tokens / 1e6",
        "divmod(time_s, 60)",
        "value * (1e-3 if unit == 'ms' else 1.0)",
        "{'s': 1.0, 'ms': 1e-3}",
        "(('h', 3600.0), ('min', 60.0))",
    ],
)
def test_a_conversion_is_recognized(code: str) -> None:
    """However it is written."""
    assert list(conversions(code))


@pytest.mark.parametrize(
    "code",
    [
        "ms(limit_s)",
        "limit_s * MS_PER_S",
        "gap < 1e-3",
        "max(rate, 1e-3)",
        "PULL = 1e-3",
        "100 * share",
        "UNLIMITED = 2**31 - 1",
        "LOOKUP_SIZES = 1_000_000",
        "{'d': 3, 'h': 1}",
    ],
)
def test_tolerances_counts_and_percentages_are_none(code: str) -> None:
    """They change no unit."""
    assert not list(conversions(code))


@pytest.mark.parametrize(("cost", "against", "part"), [(6, 8, 0.25), (8, 6, -1 / 3), (1, None, None), (1, 0, None)])
def test_what_is_saved_against_another_cost(cost: float, against: float | None, part: float | None) -> None:
    """Nothing where there is none to compare with, or none that a float can divide by."""
    assert saved(cost, against) == (None if part is None else pytest.approx(part))
    assert saved(1e9, 5e-324) is None
