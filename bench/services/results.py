"""Results of planners on services: stored lines, the best known plans, and summaries."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from melange.replica.era import eras, find_era

OUT = Path(__file__).parents[1] / "out"
BEST_KNOWN = Path(__file__).parent / "best_known.json"


@dataclass(frozen=True)
class Line:
    """Result of one planner on one service; costs in USD/h, shares 0-1; ``text``: :func:`hash_of`."""

    service: str
    text: str
    planner: str
    target: float
    cpu_s: float
    claims: bool
    reason: str = ""
    cost_per_h: float | None = None
    fleet: dict[str, int] = field(default_factory=dict)
    attainment: float = 0.0
    low: float = 0.0
    high: float = 0.0
    requests: int = 0
    stress: dict[str, float] = field(default_factory=dict)

    @property
    def is_found(self) -> bool:
        """Whether there is a plan."""
        return self.cost_per_h is not None

    @property
    def holds(self) -> bool:
        """Whether the attainment on fresh requests reaches the target."""
        return self.is_found and self.attainment >= self.target


@dataclass(frozen=True)
class Best:
    """The cheapest known plan of a service that clearly holds, and the planner that found it."""

    text: str
    cost_per_h: float
    fleet: dict[str, int]
    attainment: float
    planner: str


@dataclass(frozen=True)
class Summary:
    """Summary of one planner over all its services.

    ``cost``: costs of plans that hold over the best known plan; ``stress``: mean attainment of these plans by slowdown.
    """

    planner: str
    services: int
    found: int
    claimed: int
    held: int
    cost: tuple[float, ...]
    cpu_s: tuple[float, ...]
    stress: Mapping[str, float]


@cache
def _eras() -> bytes:
    """The constants and engine settings of all eras."""
    found = [find_era(name) for name in eras()]
    return repr(
        [
            (
                one.name,
                one.constants,
                one.settings,
                sorted((name, sorted(on.constants.items()), on.slowdown) for name, on in one.on_class.items()),
            )
            for one in found
        ]
    ).encode()


def hash_of(text: str) -> str:
    """Hash of a service's file, the constants of step times and the engine settings.

    Results of another draw, another catalog or other step times are not compared with it.
    """
    return hashlib.sha256(text.encode() + _eras()).hexdigest()[:12]


def file_of(seed: int) -> Path:
    """The file with the results of a seed."""
    return OUT / f"services-{seed}.jsonl"


def read_lines(path: Path) -> list[Line]:
    """The results in a file, with the last one for each planner and service."""
    if not path.exists():
        return []
    lines = [Line(**json.loads(row)) for row in path.read_text(encoding="utf-8").splitlines()]
    return list({(one.service, one.text, one.planner): one for one in lines}.values())


def append(path: Path, line: Line) -> None:
    """Store a result."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(line)) + "\n")


def read_best() -> dict[str, Best]:
    """The best known plans, by service."""
    if not BEST_KNOWN.exists():
        return {}
    return {name: Best(**entry) for name, entry in json.loads(BEST_KNOWN.read_text(encoding="utf-8")).items()}


def with_best(best: Mapping[str, Best], lines: Iterable[Line]) -> dict[str, Best]:
    """The best known plans, updated with cheaper plans that hold with their whole interval."""
    known = dict(best)
    for line in lines:
        if line.cost_per_h is None or line.low < line.target:
            continue
        before = known.get(line.service)
        if before is None or before.text != line.text or line.cost_per_h < before.cost_per_h - 1e-9:
            known[line.service] = Best(line.text, line.cost_per_h, line.fleet, line.attainment, line.planner)
    return dict(sorted(known.items()))


def save_best(best: Mapping[str, Best]) -> None:
    """Write the best known plans."""
    text = json.dumps({name: asdict(entry) for name, entry in best.items()}, indent=1)
    BEST_KNOWN.write_text(text + "\n", encoding="utf-8")


def relative_cost(line: Line, best: Mapping[str, Best]) -> float | None:
    """Cost over that of the best known plan; None if there is none."""
    known = best.get(line.service)
    if known is None or known.text != line.text or line.cost_per_h is None:
        return None
    return line.cost_per_h / known.cost_per_h


def summary(planner: str, lines: Sequence[Line], best: Mapping[str, Best]) -> Summary:
    """The summary of a planner's results."""
    held = [one for one in lines if one.claims and one.holds]
    stress = {name: float(np.mean([one.stress[name] for one in held])) for name in (held[0].stress if held else {})}
    return Summary(
        planner=planner,
        services=len(lines),
        found=sum(one.is_found for one in lines),
        claimed=sum(one.claims for one in lines),
        held=len(held),
        cost=tuple(cost for one in held if (cost := relative_cost(one, best)) is not None),
        cpu_s=tuple(one.cpu_s for one in lines),
        stress=stress,
    )


def table(summaries: Sequence[Summary]) -> str:
    """The table of summaries for 80 columns."""
    head = f"{'':17}{'':>7}{'':>8}  {'cost/best':^13}{'CPU s':^15}  % met, steps x"
    heads = f"{'planner':17}{'found':>7}{'holds':>8}{'median':>8}{'90 %':>7}{'median':>8}{'max':>7}"
    rows = [head, heads + "".join(f"{name:>6}" for name in next((one.stress for one in summaries if one.stress), ()))]
    for one in summaries:
        cost = f"{np.median(one.cost):8.2f}{np.quantile(one.cost, 0.9):7.2f}" if one.cost else f"{'-':>8}{'-':>7}"
        rows.append(
            f"{one.planner:17}{f'{one.found}/{one.services}':>7}{f'{one.held}/{one.claimed}':>8}{cost}"
            f"{np.median(one.cpu_s):8.1f}{max(one.cpu_s):7.1f}"
            + "".join(f"{100 * share:6.1f}" for share in one.stress.values())
        )
    return "\n".join(rows)
