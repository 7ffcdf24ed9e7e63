"""Figures that the documents take from the code are those of the code."""

import re
from collections.abc import Iterator
from dataclasses import asdict, fields

from documents import page
from melange.replica.era import Constants, find_era

IN_SECONDS = {"ms": 1e-3, "us": 1e-6}


def table() -> tuple[list[str], list[list[str]]]:
    """The eras of the performance model's table of constants, and its rows."""
    text = page("docs/performance-model.md").partition("| | vllm-0.2")[1:]
    lines = [line.strip("| ").split(" | ") for line in "".join(text).partition("\n\n")[0].splitlines()]
    return lines[0], lines[2:]


def named(label: str) -> Iterator[tuple[str, float]]:
    """The constants that a row's label names, and the size of the unit that it gives them in."""
    unit = re.findall(r"\[(\w+)\]", label)
    known = {field.name for field in fields(Constants)}
    for part in label.split(", "):
        own = re.findall(r"\[(\w+)\]", part) or unit
        name = part.partition(" [")[0].replace(" ", "_").replace("efficiency", "link_efficiency")
        yield (name, 1.0) if name in known else (f"{name}_s", IN_SECONDS[own[0]])


def test_the_constants_of_the_performance_model_are_those_of_their_files() -> None:
    """Cell by cell, to the digits that are shown; "not fitted" says nothing."""
    eras, rows = table()
    compared = 0
    for label, *cells in rows[:-2]:
        for era, cell in zip(eras, cells, strict=True):
            constants = asdict(find_era(era).constants)
            for (name, unit), shown in zip(named(label), cell.split(", "), strict=False):
                if shown != "not fitted":
                    half = 0.5 * 10.0 ** -len(shown.partition(".")[2])
                    assert abs(constants[name] / unit - float(shown)) <= half * 1.001, f"{era}: {name}"
                    compared += 1
    assert compared > 80


def test_what_eras_do_with_prompts_and_memory_is_as_in_the_table() -> None:
    """Its last two rows: where KV cache is reserved, and how prompts are read."""
    eras, (*_, reserved, prompts) = table()
    for era, kv, reading in zip(eras, reserved[1:], prompts[1:], strict=True):
        settings = find_era(era).settings
        assert kv == ("full length" if settings.is_fully_reserved else "prompt"), era
        assert reading == ("chunks" if settings.is_chunked else "own step"), era


def test_intervals_elsewhere_and_the_number_of_constants_are_as_said() -> None:
    """The interval on an accelerator that no era was fitted on stands on two pages."""
    elsewhere = find_era("vllm").residuals_elsewhere
    assert elsewhere is not None
    low, high = f"{elsewhere.low:.2f}", f"{elsewhere.high:.2f}"
    assert f"{low}-{high}" in page("docs/performance-model.md")
    assert f"{low} to {high}" in page("docs/design.md")
    assert f"{len(fields(Constants))} an era" in page("docs/design.md")
