"""Reads the catalogs of SkyPilot: ``catalogs/v8/aws/vms.csv``, ``aws.csv``, one file per cloud."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from melange.catalog.parts import find_part
from melange.catalog.price_list import Gathering, PriceList, positive, whole, whole_rows_of
from melange.errors import InputError
from melange.units import GIB, MIB

COLUMNS = {"instancetype", "acceleratorname", "acceleratorcount", "price", "region"}
# Google's catalog prices hosts and accelerators separately; a row of an accelerator names no host: these hosts fit.
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
_NAME = re.compile(r"'Name': '([^']*)'")
_MARKETS = (("price", "on-demand"), ("spotprice", "spot"))
# Providers whose rows give the total memory of all accelerators of the instance.
_MEMORY_OF_ALL = ("vast",)
# A memory "in MiB" below this is in GiB: RunPod and Shadeform write 80.
_LEAST_MIB = 1024


def read_skypilot(files: Mapping[str, Path], folder: Path) -> PriceList:
    """Offers of a SkyPilot catalog.

    On-demand and spot prices; an empty price, or a spot price of 0, means that there is none. Rows without an
    accelerator are left out, and so are accelerators priced without their machine, unless the file also has the host.
    Unusable rows (a fraction of an accelerator, a price of 0) are left out and counted.

    Parameters
    ----------
    files
        The file of each cloud.
    folder
        The folder of these files, for messages.

    Raises
    ------
    InputError
        No row can be used; the error lists the first faulty rows, each with file and line.
    """
    gathering = Gathering()
    for provider, path in files.items():
        rows = list(whole_rows_of(path, gathering.faults))
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
            except (ValueError, InputError) as error:
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
    info = row.get("gpuinfo", "")
    described = _described(info)
    memories = _memories_gib(info, provider, count)
    memory = next((one for one in memories if _is_known(provider, name, one, instance_type, described)), None)
    if memory is None and memories:
        memory = memories[0]
    accelerator = gathering.accelerator(provider, name, memory, instance_type, described)
    if accelerator is None:
        return
    for column, market in _MARKETS:
        if _is_absent(row.get(column), market) or (host and _is_absent(host.get(column), market)):
            continue
        price = positive(row[column], column)
        price += positive(host[column], column) if host else 0.0
        gathering.add(provider, region, (instance_type, accelerator, count), round(price, 6), market, source)


def _is_absent(cell: str | None, market: str) -> bool:
    """Whether a cell means that there is no such price: Vast writes 0.00 if it sells no spot."""
    return not cell or (market == "spot" and re.fullmatch(r"0+(\.0*)?", cell) is not None)


def _memories_gib(info: str, provider: str, count: int) -> tuple[float, ...]:
    """Possible memory sizes of one accelerator in a GpuInfo [GiB], the most likely first; empty if it has none."""
    found = _MEMORY.search(info)
    if found is None:
        return ()
    size = float(found[1]) if float(found[1]) < _LEAST_MIB else float(found[1]) * MIB / GIB
    if size <= 0:
        return ()
    return (size / count, size) if provider in _MEMORY_OF_ALL else (size, size / count)


@lru_cache(maxsize=1024)
def _is_known(provider: str, name: str, memory_gib: float, instance_type: str, described: str) -> bool:
    """Whether we have figures for an accelerator with this memory."""
    part = find_part(provider, name, memory_gib=memory_gib, instance_type=instance_type, described=described)
    return part.name is not None


def _described(described: str) -> str:
    """The name of the accelerator in a GpuInfo, which may be more exact than the column: ``A100 PCIe``."""
    found = _NAME.search(described)
    return found[1] if found else ("" if "{" in described else described)
