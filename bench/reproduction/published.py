"""The paper's published results, read from CSV files outside the repository, and the loads that its counts imply."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melange.catalog.offer import Offer
from melange.profile.formats.release import measured_profile
from melange.profile.profile import Profile, ReplicaType
from melange.workload.workload import Buckets
from reproduction.setting import BUCKETS, PRICES, offers

Array = npt.NDArray[np.float64]

TABLE = "paper/arena_120ms_allocations.csv"
FIGURE_3B = "paper/figure3b_a10g_vs_a100.csv"
MEASURED = "measured/saturation_llama2_7b_vllm027.csv"
FILES = (TABLE, FIGURE_3B, MEASURED)

COLUMN_BY_ACCELERATOR = {"L4": "L4", "A10G": "A10G", "A100-80GB": "A100", "H100-80GB": "H100"}
# Savings against one type [%], lowest and highest, by workload and limit [ms] (section 6.2).
SAVINGS = {
    ("Arena", 120): (15, 77),
    ("Arena", 40): (9, 68),
    ("PubMed", 120): (15, 33),
    ("PubMed", 40): (2, 22),
    ("mixed", 120): (13, 51),
    ("mixed", 40): (4, 51),
}
FIGURE_9 = {"A10G": 0.370, "A100-80GB": 2.0}  # requests/s of size [1000, 500] within 120 ms that reproduce it exactly


@dataclass(frozen=True)
class Published:
    """Table 3 by rate, Figure 3b by size, and the draft's saturation rates by accelerator."""

    counts: dict[str, dict[int, int]]
    mix: dict[int, dict[str, int]]
    mix_cost: dict[int, float]
    margin: dict[tuple[int, int], float]
    measured: dict[str, Array]


def missing(folder: Path) -> list[str]:
    """The missing files."""
    return [name for name in FILES if not (folder / name).is_file()]


def read_published(folder: Path) -> Published:
    """All published results for the comparison."""
    counts, mix, mix_cost = read_table(folder / TABLE)
    return Published(counts, mix, mix_cost, read_margins(folder / FIGURE_3B), read_measured(folder / MEASURED))


def read_table(path: Path) -> tuple[dict[str, dict[int, int]], dict[int, dict[str, int]], dict[int, float]]:
    """Single-type counts by accelerator and rate; the mix by rate; its cost by rate [USD/h]."""
    counts: dict[str, dict[int, int]] = {name: {} for name in COLUMN_BY_ACCELERATOR}
    mix, cost = {}, {}
    for row in rows_of(path):
        rate = int(row["rate"])
        fleet = {name: int(row[column]) for name, column in COLUMN_BY_ACCELERATOR.items()}
        if row["policy"] == "Melange":
            mix[rate], cost[rate] = fleet, float(row["printed_cost"])
        else:
            name = next(name for name, count in fleet.items() if count)
            counts[name][rate] = fleet[name]
    return counts, mix, cost


def read_margins(path: Path) -> dict[tuple[int, int], float]:
    """Tokens per dollar of A100 over A10G by size; the figure prints abs(that - 1)."""
    return {
        (int(row["input_tokens"]), int(row["output_tokens"])): 1
        + (1 if row["winner"] == "A100-80GB" else -1) * float(row["printed_pct"]) / 100
        for row in rows_of(path)
    }


def read_measured(path: Path) -> dict[str, Array]:
    """Saturation rates of the draft on the paper's grid by accelerator (I, O), 0 if not measured [1/s]."""
    tables: dict[str, Array] = {}
    for row in rows_of(path):
        table = tables.setdefault(row["accelerator"], np.zeros(BUCKETS.shape))
        i = BUCKETS.input_edges.index(int(row["input_tokens"]))
        o = BUCKETS.output_edges.index(int(row["output_tokens"]))
        table[i, o] = float(row["max_request_rate"])
    return {name: tables[name] for name in PRICES if name in tables}


def rows_of(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV by column name."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def profile_of(rate_by_accelerator: dict[str, Array], buckets: Buckets = BUCKETS) -> Profile:
    """A profile of given capacities at the paper's prices."""
    names = tuple(rate_by_accelerator)
    types = tuple(replica_type(offer) for offer in offers(names))
    return measured_profile(types, buckets, np.stack(list(rate_by_accelerator.values())))


def replica_type(offer: Offer) -> ReplicaType:
    """The replica type of one offer."""
    return ReplicaType(name=offer.name, offer=offer)


def implied_load(counts: dict[int, int]) -> tuple[float, float, list[int]]:
    """The interval of the load of 1 request/s that counts imply, and the rates that contradict the others.

    ``n = ceil(rate * load)`` limits the load to ((n - 1) / rate, n / rate]. Intervals are intersected from the highest
    rate down, which is the most precise one; a rate whose interval does not overlap with those above contradicts them.
    """
    low, high, broken = 0.0, float("inf"), []
    for rate in sorted(counts, reverse=True):
        over, upto = (counts[rate] - 1) / rate, counts[rate] / rate
        if max(low, over) >= min(high, upto):
            broken.append(rate)
        else:
            low, high = max(low, over), min(high, upto)
    return low, high, sorted(broken)
