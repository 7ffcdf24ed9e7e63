"""The heading of all generated files: the source plan, and how to start its servers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from datetime import date

from melange.errors import Caution
from melange.plan.plan import Plan
from melange.plan.schedule.schedule import Schedule
from melange.plan.server import servers_of

# A text, which is wrapped, or lines that stay unchanged.
Block = str | tuple[str, ...]
# Width of comments, without their mark.
_WIDTH = 116


def heading_of(plan: Plan, written: date, cautions: Iterable[Caution] = ()) -> tuple[Block, ...]:
    """The source plan: fingerprint, model, SLO, cost, replicas and traffic; one line per server type; cautions."""
    replicas = ", ".join(f"{count} x {name}" for name, count in plan.replicas.items() if count)
    facts = [
        f"Written by melange deploy on {written.isoformat()} from the plan with fingerprint {plan.fingerprint}.",
        f"Model {plan.model or 'not named'}; SLO {plan.slo or 'not named'}; {plan.workload.total_rate:g} requests/s; "
        f"{plan.cost_per_h:.2f} USD/h ({plan.kind}) for {replicas}.",
    ]
    servers = tuple(one_line(str(server)) for server in servers_of(plan))
    warnings = [f"CAUTION: {caution}" for caution in cautions]
    return (*map(one_line, facts), servers, *map(one_line, warnings))


def heading_of_schedule(schedule: Schedule, written: date, cautions: Iterable[Caution], *facts: str) -> list[str]:
    """The source schedule: model, SLO, cost, start-up, traffic; further facts; cautions."""
    source = (
        f"Written by melange deploy on {written.isoformat()} from a schedule over a {schedule.over}.",
        f"Model {schedule.model or 'not named'}; SLO {schedule.slo or 'not named'}; {schedule.cost_per_week:,.0f} "
        f"USD/week; start-up {schedule.options.start_up_s:g} s; traffic: {schedule.source or 'not named'}.",
    )
    return [one_line(text) for text in (*source, *facts, *(f"CAUTION: {caution}" for caution in cautions))]


def comments(blocks: Iterable[Block]) -> str:
    """Lines that start with ``#``, with an empty one between blocks.

    >>> print(comments(["A text.", ("a  b", "1  2")]))
    # A text.
    #
    # a  b
    # 1  2
    """
    lines = [line for block in blocks for line in ["", *(_wrapped(block) if isinstance(block, str) else block)]][1:]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def paragraphs(text: str) -> list[str]:
    r"""The paragraphs of a text, which are separated by an empty line, each in one line.

    >>> paragraphs("A text\nin two lines.\n\nAnother one.\n")
    ['A text in two lines.', 'Another one.']
    """
    return [" ".join(part.split()) for part in text.strip().split("\n\n")]


def one_line(text: str) -> str:
    """A line without control characters: text from a plan must not become a directive of the file."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_on_hyphens=False) or [""]
