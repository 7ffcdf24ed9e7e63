"""Tables on narrow terminals: whole words, names that stay apart, nothing cut off, no line too long."""

import io
import random
import re

import pytest
from rich.console import Console
from rich.table import Table

from melange.present.terminal.layout import add_column, table_of

NAMES = [
    "aws/us-east-1/g6e.12xlarge tp1",
    "aws/us-east-1/g6e.12xlarge tp2",
    "massedcompute/8x-A100-80GB tp8",
    "gcp/us-central1/a3-highgpu-8g fp8 tp8",
    "verda/1x-B300",
]
REASON = (
    "serves 99.93% for 4.78 USD/h; cannot serve 12,001-16,000 in: a single request waits 2.43 s for its first token"
)


def printed(table: Table, width: int) -> list[str]:
    """Its lines on a terminal of that width."""
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False, markup=False).print(table)
    return stream.getvalue().rstrip("\n").split("\n")


def drawn(seed: int) -> tuple[Table, list[list[str]]]:
    """A table like a plan's, with some columns, and its cells."""
    draw = random.Random(seed)
    figures = draw.randint(0, 5)
    table = table_of("Replica type")
    for i in range(figures):
        add_column(table, f"Figure {i} [requests/s]", right=True)
    if remarks := draw.random() < 0.7:
        add_column(table, draw.choice(["", "Why infeasible"]))
    rows = []
    for name in draw.sample(NAMES, draw.randint(1, len(NAMES))):
        row = [name, *(f"{draw.uniform(0, 99):.2f}" for _ in range(figures))]
        rows.append(row + ([draw.choice(["", REASON])] if remarks else []))
        table.add_row(*rows[-1])
    return table, rows


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_no_word_is_cut_and_no_line_is_too_long(width: int) -> None:
    """Of 60 random tables; each word of a cell is somewhere, whole, in its row's order."""
    for seed in range(60):
        table, rows = drawn(seed)
        lines = printed(table, width)
        assert max(map(len, map(str.rstrip, lines))) <= width, seed
        text = " ".join(lines)
        words = text.replace("|", " ").split()
        for row in rows:
            for cell in row[1:]:
                assert set(cell.split()) <= set(words), (seed, cell)
            assert all(piece in text for piece in re.split("[/ ]", row[0])), (seed, row[0])


def test_two_names_never_become_the_same_text() -> None:
    """What tells them apart is at their end, and stays."""
    table = table_of("Replica type", "Serves")
    for name in NAMES[:2]:
        table.add_row(name, REASON)
    for width in (20, 40, 80):
        text = "".join(line.strip() for line in printed(table, width))
        assert "tp1" in text
        assert "tp2" in text


def test_remarks_go_below_their_row() -> None:
    """Where they would become a column of single words."""
    table = table_of("Replica type", "USD/h", "")
    table.add_row(NAMES[0], "1.00", REASON)
    table.add_row(NAMES[4], "2.00", "")
    lines = [line.rstrip() for line in printed(table, 60)]
    assert lines[1].split() == [*NAMES[0].split(), "1.00"]
    assert lines[2].startswith("    serves 99.93%")
    assert lines[-1].split() == [NAMES[4], "2.00"]


def test_with_little_room_each_row_is_a_paragraph() -> None:
    """What it is called, then each heading with its value."""
    table = table_of("Route", "Replica type", "Accelerators", "Replicas", "USD/h")
    table.add_row("A", NAMES[4], "1 x B300", "1", "7.50")
    lines = [line.rstrip() for line in printed(table, 30)]
    assert lines == [NAMES[4], "    Route A | Accelerators 1 x", "    B300 | Replicas 1 | USD/h", "    7.50"]


def test_wide_tables_are_as_ever() -> None:
    """Where all fits, a row is a line."""
    table, rows = drawn(1)
    assert len(printed(table, 400)) == len(rows) + 1
