"""Whole numbers on the command line have a least and a most: one of 10^30 is refused, not allocated."""

from __future__ import annotations

import inspect
import typing

import pytest

from documents import commands
from melange.errors import InputError
from melange.workload.arrivals import MOST_DRAWN, draw
from melange.workload.datasets import dataset

WHOLE = [
    (name, parameter.name, parameter.annotation)
    for name, command in commands().items()
    for parameter in inspect.signature(command.callback, eval_str=True).parameters.values()
    if typing.get_origin(parameter.annotation) is typing.Annotated
    and typing.get_args(parameter.annotation)[0] in (int, int | None)
]


@pytest.mark.parametrize(("command", "flag", "kind"), WHOLE, ids=[f"{command}-{flag}" for command, flag, _ in WHOLE])
def test_a_whole_number_has_a_least_and_a_most(command: str, flag: str, kind: object) -> None:
    """Whatever command takes it."""
    options = [one for one in typing.get_args(kind)[1:] if hasattr(one, "max")]
    assert [one.min is not None and one.max is not None for one in options] == [True], (command, flag)


def test_whole_number_flags_are_found() -> None:
    """Those of several commands, so that the test above tests something."""
    assert len({command for command, _, _ in WHOLE}) >= 5


@pytest.mark.parametrize("requests", [0, MOST_DRAWN + 1, 10**30])
def test_no_more_requests_are_drawn_than_fit_into_memory(requests: int) -> None:
    """Said with the number and the limit."""
    with pytest.raises(InputError, match=rf"1 to 20,000,000, got {requests:,}"):
        draw(dataset("azure-conversation", request_rate=1.0), requests, seed=0)
