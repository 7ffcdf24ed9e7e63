"""Reads the catalogs of SkyPilot: ``catalogs/v8/aws/vms.csv``, ``aws.csv``, one file a cloud."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from melange.catalog.price_list import Gathering, PriceList, positive, rows_of, whole
from melange.units import GIB, MIB

COLUMNS = {"instancetype", "acceleratorname", "acceleratorcount", "price", "region"}
# Google's catalog prices host and accelerators apart; an accelerator row names no host: these are the ones it fits.
_HOSTS: Mapping[tuple[str, int], str] = {
    **{("A100", count): f"a2-highgpu-{count}g" for count in (1, 2, 4, 8)},
    ("A100", 16): "a2-megagpu-16g",
    **{("A100-80GB", count): f"a2-ultragpu-{count}g" for count in (1, 2, 4, 8)},
    **{("H100", count): f"a3-highgpu-{count}g" for count in (1, 2, 4, 8)},
    ("H100-MEGA", 8): "a3-megagpu-8g",
    ("H100-MEGA-80GB", 8): "a3-megagpu-8g",
    ("H200", 8): "a3-ultragpu-8g",
    ("B200", 8): "a4-highgpu-8g",
    **dict(
        zip((("L4", 1), ("L4", 2), ("L4", 4), ("L4", 8)), [f"g2-standard-{n}" for n in (4, 24, 48, 96)], strict=True)
    ),
}
_MEMORY = re.compile(r"SizeInMiB\W+(\d+(?:\.\d+)?)")
_MARKETS = (("price", False), ("spotprice", True))


def read_skypilot(files: Mapping[str, Path], folder: Path) -> PriceList:
    """Offers of a SkyPilot catalog.

    On-demand and spot prices, an empty price meaning that there is none. Rows without accelerator are left out; so are
    accelerators priced without the machine that holds them, except where their host is in the file too.

    Parameters
    ----------
    files
        The file of each cloud.
    folder
        Where they lie, for messages.

    Raises
    ------
    InputError
        Prices that are not above zero and the like, several together, each with file and line.
    """
    gathering = Gathering()
    for provider, path in files.items():
        rows = list(rows_of(path))
        hosts = {
            (row["instancetype"], row.get("region", ""), row.get("availabilityzone", "")): row
            for _, row in rows
            if row.get("instancetype") and not row.get("acceleratorname")
        }
        for line, row in rows:
            if not row.get("acceleratorname"):
                continue
            try:
                _read_row(row, provider, hosts, gathering, f"SkyPilot catalog, {path.parent.name}/{path.name}")
            except ValueError as error:
                gathering.faults.add(f"{path}:{line}: {error}")
    return gathering.finish(folder)


def _read_row(
    row: Mapping[str, str],
    provider: str,
    hosts: Mapping[tuple[str, str, str], Mapping[str, str]],
    gathering: Gathering,
    source: str,
) -> None:
    """The one or two prices of a row."""
    name, region = row["acceleratorname"], row.get("region", "")
    count = whole(row.get("acceleratorcount") or "1", "AcceleratorCount")
    instance_type = row.get("instancetype") or _HOSTS.get((name, count), "")
    host = hosts.get((instance_type, region, row.get("availabilityzone", ""))) if not row.get("instancetype") else {}
    if host is None or not instance_type:
        gathering.skipped[f"{name} without its host"] += 1
        return
    memory = _MEMORY.search(row.get("gpuinfo", ""))
    accelerator = gathering.accelerator(name, float(memory[1]) * MIB / GIB if memory else None, instance_type)
    if accelerator is None:
        return
    for column, is_spot in _MARKETS:
        if not row.get(column) or (host and not host.get(column)):
            continue
        price = positive(row[column], column)
        price += positive(host[column], column) if host else 0.0
        gathering.add(provider, region, (instance_type, accelerator, count), round(price, 6), is_spot, source)
