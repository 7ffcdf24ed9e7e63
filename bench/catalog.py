"""Derives the bundled tables of accelerators and offers from the project's collected data.

Usage: python bench/catalog.py [folder with accelerators.csv and offers.csv]

The collected data are not part of the repository; without them this says so and stops. Every rule of curation is
below, in the order in which it is applied, and the run prints what each of them dropped.
"""

from __future__ import annotations

import csv
import io
import statistics
import sys
from collections import Counter
from pathlib import Path

from melange.catalog.bundled import read_accelerators
from melange.catalog.interconnect import interconnect
from melange.files import write_text

HERE = Path(__file__).resolve().parent
COLLECTED = HERE.parent.parent / "shared" / "data" / "prices"
TABLES = HERE.parent / "src" / "melange" / "catalog" / "data"
CHECKED = "2026-11-23"

# ---- Accelerators ---------------------------------------------------------------------------------------------------

LEFT_OUT = {
    "RTXPRO4500": "no compute figures in the source",
    "MI250X": "two devices of 64 GB to every engine, one in the source",
}
# Memory as nvidia-smi reports it [MiB], error correction taken off; the others: nominal GiB.
REPORTED_MIB = {
    "T4": 15360, "A10": 23028, "A10G": 23028, "A30": 24576, "A40": 46068, "RTXA6000": 49140, "RTX3090": 24576,
    "A100-40GB": 40960, "A100-80GB": 81920, "A100-PCIe-80GB": 81920, "L4": 23034, "L40": 46068, "L40S": 46068,
    "RTX6000Ada": 49140, "RTX4090": 24564, "RTX5090": 32607, "RTXPRO6000": 97887, "H100-80GB": 81559,
    "H100-PCIe-80GB": 81559, "H100-NVL-94GB": 95830, "GH200-96GB": 97871, "H200": 143771, "H200-NVL": 143771,
    "B200": 183359, "B300": 275040, "GB200": 189471, "GB300": 284208,
}  # fmt: skip
# Figures of the source that are replaced, with the reason; None: left out.
CORRECTIONS: dict[str, dict[str, float | None]] = {
    "RTXPRO6000": {"memory_bandwidth_gb_s": 1597},
    "B300": {"fp4_dense_tflops": 13125, "int8_dense_tops": None},
    "GB300": {"int8_dense_tops": None},
    "Gaudi3": {"fp16_dense_tflops": None},
}
REASONS = {
    "RTXPRO6000": "clouds rent the Server Edition: 1597 GB/s (NVIDIA datasheet), not the workstation card's 1792",
    "B300": "dense FP4: sources give 13.1 to 14 PFLOPS, the lowest is used; INT8: sources disagree, left out",
    "GB300": "INT8: sources disagree, left out",
    "Gaudi3": "FP16 rate differs from BF16 and was not found, left out",
}
UNCHECKED_LINK = {"Inferentia2", "Trainium1", "Trainium2", "TPUv5p", "TPU7x", "Gaudi2", "Gaudi3"}
ALIASES = {
    "V100-16GB": "V100;V100-SXM2;V100-SXM2-16GB",
    "V100-32GB": "V100;V100-SXM2-32GB",
    "A100-40GB": "A100;A100-SXM4-40GB;A100-SXM-40GB",
    "A100-80GB": "A100;A100-SXM4-80GB;A100-SXM-80GB;A100-80GB-SXM;A100-80GB-NVLink",
    "A100-PCIe-40GB": "A100-40GB-PCIe",
    "A100-PCIe-80GB": "A100-80GB-PCIe",
    "RTXA6000": "A6000",
    "RTX6000Ada": "RTX6000-Ada;6000Ada",
    "RTXPRO6000": "RTXPRO6000-Blackwell;RTXPRO6000-Server;RTXPRO6000-Blackwell-Server-Edition",
    "H100-80GB": "H100;H100-SXM;H100-SXM5;H100-SXM-80GB;H100-80GB-HBM3;H100-HGX;H100-MEGA;H100-MEGA-80GB",
    "H100-PCIe-80GB": "H100-PCIe",
    "H100-NVL-94GB": "H100-NVL",
    "GH200-96GB": "GH200;GH200-480GB",
    "H200": "H200-SXM;H200-SXM5;H200-141GB;H200-SXM-141GB",
    "B200": "B200-SXM;B200-SXM6;B200-180GB",
    "B300": "B300-SXM;B300-SXM6",
    "MI300X": "MI300X-OAM",
    "Gaudi2": "Gaudi-HL-225H",
    "TPUv5e": "tpu-v5-lite;v5litepod;tpu-v5e",
    "TPUv5p": "tpu-v5p",
    "TPUv6e": "tpu-v6e",
}
# One part that offers name and the source lacks.
ADDED = {
    "gpu": "A100-PCIe-40GB", "vendor": "nvidia", "architecture": "Ampere", "memory_gib": "40",
    "memory_bandwidth_gb_s": "1555", "bf16_dense_tflops": "312", "fp16_dense_tflops": "312", "int8_dense_tops": "624",
    "scaleup_link": "PCIe (NVLink bridge optional)", "scaleup_bandwidth_gb_s_per_direction": "32",
    "pcie_bandwidth_gb_s_per_direction": "32", "source": "NVIDIA A100 datasheet (PCIe 40 GB card)",
}  # fmt: skip
DTYPES = {
    "bf16": "bf16_dense_tflops", "fp16": "fp16_dense_tflops", "fp8": "fp8_dense_tflops", "int8": "int8_dense_tops",
    "fp4": "fp4_dense_tflops",
}  # fmt: skip


def accelerator_rows(collected: list[dict[str, str]]) -> list[dict[str, object]]:
    """The bundled table: facts we stand behind, dense throughput only."""
    rows = []
    for row in [*collected, ADDED]:
        name = row["gpu"]
        if name in LEFT_OUT:
            continue
        fixed = {**row, **{key: value or "" for key, value in CORRECTIONS.get(name, {}).items()}}
        notes = [row.get("notes", ""), REASONS.get(name, "")]
        if name in UNCHECKED_LINK:
            notes.append("link bandwidth not checked")
        if row.get("verified") == "partly":
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
                "aliases": ALIASES.get(name, ""),
                "checked": CHECKED,
                "source": row["source"],
                "notes": "; ".join(filter(None, notes)),
            }
        )
    return rows


# ---- Offers ---------------------------------------------------------------------------------------------------------

REGIONS = {
    "aws": ("us-east-1", "us-west-2", "eu-central-1", "ap-northeast-1"),
    "gcp": ("us-central1", "europe-west4", "asia-southeast1", ""),
    "azure": ("eastus", "westeurope", "japaneast", ""),
}
# Rented whole although priced by the accelerator: these prices are of no region.
WHOLE = {
    ("gcp", "h200"): ("a3-ultragpu-8g", 8),
    ("gcp", "b200"): ("a4-highgpu-8g", 8),
    ("azure", "a100-sxm-40"): ("Standard_ND96asr_v4", 8),
    ("azure", "a100-sxm-80"): ("Standard_ND96amsr_A100_v4", 8),
    ("azure", "a100-pcie-80"): ("Standard_NC24ads_A100_v4", 1),
    ("azure", "h100-sxm"): ("Standard_ND96isr_H100_v5", 8),
    ("azure", "h100-nvl"): ("Standard_NC40ads_H100_v5", 1),
}
# What a provider that prices by the accelerator rents out: counts by its own name of the accelerator.
BY_ONE = (1, 2, 4, 8)
SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "lambda": {
        "a10": (1,), "a100-sxm-80": (8,), "a100-pcie-40": (1,), "b200": (8,), "gh200": (1,), "h100-sxm": (8,),
        "h100-pcie": (1,), "rtx-a6000": (1, 2, 4), "v100": (8,), "NVIDIA H100 SXM": (1,), "NVIDIA B200 SXM6": (1,),
        "NVIDIA A100 SXM 40": (8,),
    },
    "runpod": dict.fromkeys(
        ("a100-sxm-80", "a100-pcie-80", "a40", "b200", "b300", "h100-sxm", "h100-nvl", "h100-pcie", "h200", "l4",
         "l40", "l40s", "mi300x", "rtx-3090", "rtx-4090", "rtx-5090", "rtx-6000-ada", "rtx-a6000",
         "rtx-pro-6000-server"), BY_ONE),
    "coreweave": dict.fromkeys(("a100", "b200", "h100", "h200", "l40", "l40s", "rtx-pro-6000-server"), (8,))
    | {"gh200": (1,)},
    "crusoe": {"a100-sxm-80": BY_ONE, "a100-pcie-80": BY_ONE, "l40s": BY_ONE, "h100": (8,), "h200": (8,),
               "mi300x": (8,)},
    "nebius": {"h100": (1, 8), "h200": (1, 8), "b200": (8,), "b300": (8,), "l40s": (1,), "rtx-pro-6000": (1,)},
    "verda": dict.fromkeys(
        ("a100-sxm-40", "a100-sxm-80", "b200", "b300", "h100-sxm", "h200", "l40s", "rtx-6000-ada", "rtx-a6000",
         "rtx-pro-6000", "v100", "NVIDIA A100 SXM4", "NVIDIA A100 SXM4 80GB", "B200 SXM6", "B300 SXM6",
         "NVIDIA H100 SXM5", "NVIDIA H200 SXM5", "NVIDIA L40S", "RTX 6000 Ada", "NVIDIA RTX A6000", "RTX PRO 6000",
         "Tesla V100"), BY_ONE),
    "vultr": {"a100": (1,), "a40": (1,), "l40s": (1,), "b200": (8,), "h100": (8,), "mi325x": (8,), "mi355x": (8,),
              "NVIDIA GH200": (1,)},
    "hyperstack": {"a100": BY_ONE, "a100-sxm-80": (8,), "h100": BY_ONE, "h100-sxm": (8,), "h200": (8,), "b200": (8,),
                   "b300": (8,), "l40": BY_ONE, "rtx-a6000": BY_ONE, "rtx-pro-6000": BY_ONE},
    "digitalocean": {"h100": (1, 8), "h200": (1, 8), "mi300x": (1, 8), "mi325x": (8,), "mi350x": (8,), "b300": (8,),
                     "l40s": (1,), "rtx-6000-ada": (1,)},
    "scaleway": {"h100": (1, 2), "h100-sxm": (2, 4, 8), "l4": BY_ONE, "l40s": BY_ONE, "b300": (8,)},
    "ovh": {"l4": (1, 2, 4), "l40s": (1, 2, 4), "h100": (1, 2, 4), "a100": (1, 2, 4), "a10": (1, 2, 4), "h200": (8,)},
    "together": {"h100": (8,), "h200": (8,), "b200": (8,)},
    "massedcompute": {"a100-sxm-80": (8,), "h100-sxm": (8,), "h100-nvl": (2,), "l40": BY_ONE, "l40s": BY_ONE,
                      "rtx-6000-ada": BY_ONE, "rtx-a6000": BY_ONE, "a30": BY_ONE},
    "gmicloud": {"h100": (8,), "h200": (8,), "b200": (8,)},
}  # fmt: skip
# The source calls these by a family's name; the shape or the provider's listing tells which part it is.
PARTS = {
    ("azure", "Standard_NC24ads_A100_v4"): "A100-PCIe-80GB",
    ("azure", "Standard_NC48ads_A100_v4"): "A100-PCIe-80GB",
    ("azure", "Standard_NC96ads_A100_v4"): "A100-PCIe-80GB",
    ("hyperstack", "a100"): "A100-PCIe-80GB",
    ("hyperstack", "h100"): "H100-PCIe-80GB",
    ("vultr", "a100"): "A100-PCIe-80GB",
    ("scaleway", "h100"): "H100-PCIe-80GB",
    ("ovh", "a100"): "A100-PCIe-80GB",
    ("ovh", "h100"): "H100-PCIe-80GB",
}
RETIRED = ("Standard_NC6s_v3", "Standard_NC12s_v3", "Standard_NC24s_v3", "Standard_ND40rs_v2", "Standard_NCC")
SPOT_ONLY = ("a3-highgpu-1g", "a3-highgpu-2g", "a3-highgpu-4g")
# Accelerators whose engines the performance model does not cover; their facts are bundled, their offers are not.
OTHER_ENGINES = ("Inferentia", "Trainium", "TPU", "Gaudi")
BAND = 6.0


def offer_rows(collected: list[dict[str, str]]) -> list[dict[str, object]]:
    """The bundled table: whole instances of main regions, one per provider, region, accelerator, count and market."""
    facts = read_accelerators((TABLES / "accelerators.csv").read_text(encoding="utf-8"))
    dropped: Counter[str] = Counter()
    rows: list[dict[str, object]] = []
    for row in collected:
        reason = unfit(row)
        accelerator = PARTS.get((row["provider"], part_name(row)), row["gpu"])
        if not reason and accelerator not in facts:
            reason = "accelerator without facts"
        if not reason and not shapes(row):
            reason = "provider or shape not taken"
        if reason:
            dropped[reason] += 1
            continue
        for instance_type, count in shapes(row):
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
    kept = plausible(cheapest(newest(rows, dropped), dropped), dropped)
    for reason, count in dropped.most_common():
        print(f"  dropped {count:5} {reason}")
    return sorted(kept, key=order)


def unfit(row: dict[str, str]) -> str:
    """Why a row cannot stand in the table at all; empty where it can."""
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
    """The instances that a row stands for: itself, or 1, 2, 4, 8 of an accelerator that is priced singly."""
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
    return [(f"{count}x-{row['gpu']}", count) for count in counts if count >= least]


def source(row: dict[str, str]) -> str:
    """Where the price was seen; rows under CC BY name their licence."""
    return row["source"] + (" (CC BY 4.0)" if row["licence"] == "CC-BY-4.0" else "")


def key(row: dict[str, object]) -> tuple[object, ...]:
    """What a buyer cannot tell apart but for the price."""
    return tuple(row[column] for column in ("provider", "region", "accelerator", "accelerators", "market"))


def order(row: dict[str, object]) -> tuple[object, ...]:
    """Provider, accelerator, region, market, count."""
    return tuple(row[column] for column in ("provider", "accelerator", "region", "market", "accelerators"))


def newest(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Of two prices of the same thing, the later one."""
    latest: dict[tuple[object, ...], str] = {}
    for row in rows:
        latest[key(row)] = max(latest.get(key(row), ""), str(row["seen"]))
    kept = [row for row in rows if row["seen"] == latest[key(row)]]
    dropped["an older price of the same thing"] += len(rows) - len(kept)
    return kept


def cheapest(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Of shapes that differ in processors and memory only, the cheapest."""
    best: dict[tuple[object, ...], dict[str, object]] = {}
    for row in rows:
        if key(row) not in best or float(str(row["cost_per_h"])) < float(str(best[key(row)]["cost_per_h"])):
            best[key(row)] = row
    dropped["a dearer variant of the same accelerators"] += len(rows) - len(best)
    return list(best.values())


def plausible(rows: list[dict[str, object]], dropped: Counter[str]) -> list[dict[str, object]]:
    """Prices within a factor of the median of their accelerator and market, and spot below on-demand."""
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
            dropped["spot dearer than on-demand"] += 1
        else:
            kept.append(row)
    return kept


def price(row: dict[str, object]) -> float:
    """Price of one accelerator [USD/h]."""
    return float(str(row["cost_per_h"])) / int(str(row["accelerators"]))


# ---- Both -----------------------------------------------------------------------------------------------------------


def write_table(name: str, rows: list[dict[str, object]]) -> None:
    """One table as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(TABLES / name, stream.getvalue())
    print(f"{name}: {len(rows)} rows")


def main() -> int:
    """Read the collected data, write the tables."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else COLLECTED
    if not (folder / "offers.csv").is_file():
        print(f"skipped: {folder} holds no offers.csv; the collected data are not part of the repository")
        return 0
    collected = {
        name: list(csv.DictReader((folder / f"{name}.csv").read_text(encoding="utf-8").splitlines()))
        for name in ("accelerators", "offers")
    }
    write_table("accelerators.csv", accelerator_rows(collected["accelerators"]))
    write_table("offers.csv", offer_rows(collected["offers"]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
