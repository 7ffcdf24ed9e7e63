"""Create the bundled tables of accelerators and offers from the project's collected data.

Usage: python bench/catalog.py [folder with accelerators.csv and offers.csv [folder to write to]]

The collected data are not part of the repository; without them the script prints a message and stops. The curation
rules are in catalog_rules.py and are applied in the order of offer_rows; the script prints the number of rows that each
rule dropped.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from catalog_rules import (
    ADDED,
    ALIASES,
    BAND,
    CHECKED,
    CONFIRMED,
    CORRECTIONS,
    LEFT_OUT,
    OTHER_ENGINES,
    PARTS,
    REASONS,
    REGIONS,
    REPORTED_MIB,
    RETIRED,
    SHAPES,
    SPOT_ONLY,
    UNCHECKED_LINK,
    WHOLE,
)
from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import read_accelerators
from melange.catalog.shapes import interconnect, part_of
from melange.files import write_text

HERE = Path(__file__).resolve().parent
COLLECTED = HERE.parent.parent / "shared" / "data" / "prices"
TABLES = HERE.parent / "src" / "melange" / "catalog" / "data"
# ---- Accelerators ---------------------------------------------------------------------------------------------------

DTYPES = {
    "bf16": "bf16_dense_tflops", "fp16": "fp16_dense_tflops", "fp8": "fp8_dense_tflops", "int8": "int8_dense_tops",
    "fp4": "fp4_dense_tflops",
}  # fmt: skip


def accelerator_rows(collected: list[dict[str, str]]) -> list[dict[str, object]]:
    """The bundled table of accelerators: checked or marked facts, with dense throughput only."""
    rows: list[dict[str, object]] = []
    for row in [*collected, ADDED]:
        name = row["gpu"]
        if name in LEFT_OUT:
            continue
        fixed = {**row, **{key: value or "" for key, value in CORRECTIONS.get(name, {}).items()}}
        notes = [row.get("notes", "").replace("from memory", "not verified"), REASONS.get(name, "")]
        if name in UNCHECKED_LINK:
            notes.append("link bandwidth not checked")
        is_checked = row.get("verified") != "partly" or name in CONFIRMED
        if not is_checked:
            notes.append("partly checked")
        rows.append(
            {
                "name": name,
                "vendor": row["vendor"],
                "architecture": row["architecture"],
                "memory_mib": REPORTED_MIB.get(name, round(float(row["memory_gib"]) * 1024)),
                "bandwidth_gb_per_s": fixed["memory_bandwidth_gb_s"],
                **{f"{dtype}_tflops": fixed.get(column, "") for dtype, column in DTYPES.items()},
                "link": row["scaleup_link"],
                "link_gb_per_s": row["scaleup_bandwidth_gb_s_per_direction"],
                "pcie_gb_per_s": row["pcie_bandwidth_gb_s_per_direction"],
                "tdp_w": row["tdp_w"],
                "aliases": ALIASES.get(name, ""),
                "checked": CHECKED if is_checked else "",
                "source": CONFIRMED.get(name) or row["source"].replace("from memory", "not verified"),
                "notes": "; ".join(filter(None, notes)),
            }
        )
    return rows


# ---- Offers ---------------------------------------------------------------------------------------------------------


def offer_rows(collected: list[dict[str, str]], facts: Mapping[str, Accelerator]) -> list[dict[str, object]]:
    """The bundled table of offers: whole instances of main regions, one row for each combination in :func:`key`."""
    dropped: Counter[str] = Counter()
    rows: list[dict[str, object]] = []
    for row in collected:
        reason = unfit(row)
        accelerator = part_of(row["instance_type"]) or PARTS.get((row["provider"], part_name(row)), row["gpu"])
        if not reason and accelerator not in facts:
            reason = "accelerator without facts"
        if not reason and not shapes(row):
            reason = "provider or shape not taken"
        if reason:
            dropped[reason] += 1
            continue
        for instance_type, count in shapes(row):
            if row["price_basis"] == "per_accelerator" and (row["provider"], row["source_gpu_name"]) not in WHOLE:
                instance_type = f"{count}x-{accelerator}"
            per = count if row["price_basis"] == "per_accelerator" else 1
            for market, column in (("on-demand", "on_demand_usd_per_hour"), ("spot", "spot_usd_per_hour")):
                if row[column] and not (market == "on-demand" and instance_type in SPOT_ONLY):
                    rows.append(
                        {
                            "provider": row["provider"],
                            "region": row["region"],
                            "instance_type": instance_type,
                            "accelerator": accelerator,
                            "accelerators": count,
                            "cost_per_h": round(float(row[column]) * per, 6),
                            "market": market,
                            "interconnect": interconnect(instance_type, facts[accelerator], count),
                            "seen": row["date"],
                            "source": source(row),
                        }
                    )
    for rule in (outdated_spot, newest, cheapest, same_shape, plausible):
        rows = rule(rows, dropped)
    for reason, count in dropped.most_common():
        print(f"  dropped {count:5} {reason}")
    return sorted(rows, key=order)


def unfit(row: dict[str, str]) -> str:
    """The reason why a row cannot be in the table; empty if it can."""
    if row["provider"] in REGIONS and row["region"] not in REGIONS[row["provider"]]:
        return "region not taken"
    if row["gpu"].startswith(OTHER_ENGINES):
        return "accelerator of other engines"
    if "STALE" in row["source"]:
        return "the source itself says that the price has fallen since"
    if row["instance_type"].startswith(RETIRED):
        return "shape is retired or confidential"
    if row["tier"] in {"serverless", "community", "marketplace", "prototyping", "production"}:
        return "serverless, community or marketplace price"
    return ""


def part_name(row: dict[str, str]) -> str:
    """The provider's own name of the shape or accelerator."""
    return row["instance_type"] if row["price_basis"] == "instance" else row["source_gpu_name"]


def shapes(row: dict[str, str]) -> list[tuple[str, int]]:
    """The instances for a row: its own, or 1, 2, 4, 8 of an accelerator that is priced individually."""
    if row["price_basis"] == "instance":
        return [(row["instance_type"], int(row["gpu_count"]))] if row["provider"] in REGIONS else []
    whole = WHOLE.get((row["provider"], row["source_gpu_name"]))
    if whole:
        return [whole]
    name = row["source_gpu_name"]
    if f"{name} {row['gpu_memory_gib']}" in SHAPES.get(row["provider"], {}):
        name = f"{name} {row['gpu_memory_gib']}"
    counts = SHAPES.get(row["provider"], {}).get(name, ())
    least = int(row["min_gpus"] or 1)
    return [(f"{count}x", count) for count in counts if count >= least]


def source(row: dict[str, str]) -> str:
    """The source of the price, with the license if it is CC BY."""
    return row["source"] + (" (CC BY 4.0)" if row["licence"] == "CC-BY-4.0" else "")


def key(row: dict[str, object]) -> tuple[object, ...]:
    """The key of offers that differ only in price for a buyer."""
    return tuple(row[column] for column in ("provider", "region", "accelerator", "accelerators", "market"))


def order(row: dict[str, object]) -> tuple[object, ...]:
    """The sort key: provider, accelerator, region, market, count."""
    return tuple(row[column] for column in ("provider", "accelerator", "region", "market", "accelerators"))


def outdated_spot(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Drop spot prices from before the last change of the corresponding on-demand price."""
    on_demand: dict[tuple[object, ...], dict[str, float]] = {}
    for row in rows:
        if row["market"] == "on-demand":
            on_demand.setdefault(key(row)[:4], {})[str(row["seen"])] = price(row)
    kept = []
    for row in rows:
        prices = on_demand.get(key(row)[:4], {})
        changed = prices and prices.get(str(row["seen"]), prices[max(prices)]) != prices[max(prices)]
        if row["market"] == "spot" and changed:
            dropped["a spot price from before the on-demand price changed"] += 1
        else:
            kept.append(row)
    return kept


def same_shape(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Drop other shapes than the cheapest one in the first region: if that is missing, the next looks overpriced."""
    home = {
        (row["provider"], row["accelerator"], row["accelerators"]): row["instance_type"]
        for row in rows
        if row["region"] == REGIONS.get(str(row["provider"]), ("",))[0]
    }
    kept = [
        row
        for row in rows
        if home.get((row["provider"], row["accelerator"], row["accelerators"]), row["instance_type"])
        == row["instance_type"]
    ]
    dropped["a shape that is not the cheapest in the provider's first region"] += len(rows) - len(kept)
    return kept


def newest(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Keep the latest price of each key."""
    latest: dict[tuple[object, ...], str] = {}
    for row in rows:
        latest[key(row)] = max(latest.get(key(row), ""), str(row["seen"]))
    kept = [row for row in rows if row["seen"] == latest[key(row)]]
    dropped["an older price of the same thing"] += len(rows) - len(kept)
    return kept


def cheapest(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Keep the cheapest of the shapes that differ only in processors and memory."""
    best: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        if key(row) not in best or float(str(row["cost_per_h"])) < float(str(best[key(row)]["cost_per_h"])):
            best[key(row)] = row
    dropped["a more expensive variant of the same accelerators"] += len(rows) - len(best)
    return list(best.values())


def plausible(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Keep prices within a factor of the median of their accelerator and market, and spot prices below on-demand."""
    single: dict[tuple[object, object], list[float]] = {}
    for row in rows:
        single.setdefault((row["accelerator"], row["market"]), []).append(price(row))
    medians = {group: statistics.median(prices) for group, prices in single.items()}
    on_demand = {key(row)[:4]: price(row) for row in rows if row["market"] == "on-demand"}
    kept = []
    for row in rows:
        ratio = price(row) / medians[row["accelerator"], row["market"]]
        if not 1 / BAND <= ratio <= BAND:
            print(f"  {ratio:5.2f} times the median: {order(row)} {row['cost_per_h']}")
            dropped[f"a price over {BAND:g} times off the median"] += 1
        elif row["market"] == "spot" and price(row) > on_demand.get(key(row)[:4], float("inf")):
            dropped["spot more expensive than on-demand"] += 1
        else:
            kept.append(row)
    return kept


def price(row: dict[str, object]) -> float:
    """Price of one accelerator [USD/h]."""
    return float(str(row["cost_per_h"])) / int(str(row["accelerators"]))


# ---- Both -----------------------------------------------------------------------------------------------------------


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    """Write one table as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, stream.getvalue())
    print(f"{path.name}: {len(rows)} rows")


def main() -> int:
    """Read the collected data, write the tables."""
    folder, tables = (*map(Path, sys.argv[1:]), *(COLLECTED, TABLES)[len(sys.argv) - 1 :])
    if not (folder / "offers.csv").is_file():
        print(f"skipped: no offers.csv in {folder}; the collected data are not part of the repository")
        return 0
    collected = {
        name: list(csv.DictReader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        for name in ("accelerators", "offers")
    }
    write_table(tables / "accelerators.csv", accelerator_rows(collected["accelerators"]))
    facts = read_accelerators((tables / "accelerators.csv").read_text(encoding="utf-8"))
    write_table(tables / "offers.csv", offer_rows(collected["offers"], facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
