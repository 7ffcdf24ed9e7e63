"""The cost of uncertainty, and what to measure, for the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from melange.plan.load_points import RESULTS, load_points
from melange.plan.plan import Plan
from melange.plan.suggest import LEAST_REQUESTS, START_MINUTES, TURNS, Suggestion
from melange.present.terminal.layout import add_column, command_text, table_of, titled, usd
from melange.units import significant

# Continuation of a command on the next line, and the assumed least width of a terminal.
_CONTINUED, _COLUMNS = " \\\n  ", 80


def uncertainty_part(plan: Plan) -> RenderableType | None:
    """Cost of the plan at each end of the replicas' capacity intervals; None if not asked for."""
    if not plan.cost_at:
        return None
    words = {
        "low": "if every replica is slow (low end of the 80% interval)",
        "mid": "as estimated",
        "high": "if every replica is fast (high end)",
    }
    costs = ", ".join(
        f"{usd(cost)}/h {words[end]}" if (cost := plan.cost_at[end]) is not None else f"no plan {words[end]}"
        for end in ("low", "mid", "high")
    )
    confidence = plan.options.confidence
    planned = "" if confidence is None else f" This plan has {confidence:.0%} confidence."
    lines = [f"The cheapest closed-form plan costs {costs}.{planned}"]
    lines += [f"Measure next: {plan.next_measurement}"] if plan.next_measurement else []
    return titled("The cost of uncertainty", Group(*(Text(line) for line in lines)))


def load_points_part(plan: Plan, service: str) -> RenderableType | None:
    """The load points to run before renting, as commands; None if every used type was measured."""
    points = load_points(plan)
    if not points:
        return None
    kinds = "type in this plan uses" if len(points) == 1 else "types in this plan use"
    what = (
        f"{len(points)} {kinds} estimated step times. Start one replica with the plan's settings (melange deploy), run "
        "its load point, and plan again:"
    )
    commands = [command_text(f"# on {one.replica_type}\n{_within_terminal(one.command(service))}") for one in points]
    again = command_text(f"melange plan {shlex.quote(service)} --anchor {RESULTS}/")
    others = Text("Commands for aiperf, guidellm and melange measure: see load_points in --json.", style="dim")
    return titled("Measure before renting", Group(Text(what), *commands, again, others))


def _within_terminal(command: str) -> str:
    """A command in lines of at most 80 columns, if its words fit; printed commands can be copied."""
    lines: list[str] = []
    for part in command.split(_CONTINUED):
        indent = "  " if lines else ""
        line = ""
        for word in part.replace(" --", "\0--").split("\0"):  # an option stays with its value
            joined = f"{line} {word}" if line else word
            if line and len(indent) + len(joined) + len(" \\") > _COLUMNS:
                lines.append(line)
                indent, joined = "  ", word
            line = joined
        lines.append(line)
    return _CONTINUED.join(lines)


def suggestions_page(suggestions: Sequence[Suggestion]) -> RenderableType:
    """What to measure, most valuable first."""
    title = "Suggested measurements, with the expected savings of a cautious plan by closed form"
    if not suggestions:
        return titled(title, Text("None: no measurement would change the cost of a plan."))
    found = table_of("Accelerators", "Replica type")
    numbers = ("Tokens in", "Tokens out", "Concurrency", "Requests/s", "Saves [USD/h]", "GPU-minutes", "Costs [USD]")
    for heading in numbers:
        add_column(found, heading, right=True)
    for one in suggestions:
        shards = f"{one.tensor_parallel} x " if one.tensor_parallel > 1 else ""
        found.add_row(
            f"{shards}{one.accelerator}",
            one.replica_type,
            f"{one.input_tokens:,}",
            f"{one.output_tokens:,}",
            f"{one.concurrency}" if one.concurrency else "-",
            significant(one.request_rate),
            f"{one.saves_per_h:.2f}",
            f"{one.gpu_minutes:.0f}",
            f"{one.cost:.2f}",
        )
    how = (
        f"Send requests of this size at the given concurrency: one warm-up round, then {TURNS} rounds (at least "
        f"{LEAST_REQUESTS} requests). The times include {START_MINUTES:g} minutes to start a replica. Then: --anchor "
        "'NAME=results.json'"
    )
    return titled(title, Group(found, Text(how, style="dim")))
