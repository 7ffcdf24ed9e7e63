"""Read the catalogs of gpuhunt (dstack), versions 2 and 3: one CSV file per provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from melange.catalog.price_list import Gathering, PriceList, positive, whole, whole_rows_of
from melange.errors import InputError

COLUMNS = {"instance_name", "location", "price", "gpu_count", "gpu_name"}


def read_gpuhunt(files: Mapping[str, Path], folder: Path) -> PriceList:
    """Offers of a gpuhunt catalog.

    A price is for the whole instance; ``gpu_memory`` [GB] identifies the member of a family. One ``instance_name`` may
    hold different accelerators, or different numbers of them: each is an offer. Rows with ``flags`` have prices that
    are not available to everyone (a calendar, a cluster) and are left out, as are unusable rows. Both are counted.

    Parameters
    ----------
    files
        The file of each provider.
    folder
        The folder of these files, for messages.

    Raises
    ------
    InputError
        No row can be used; the error lists the first faulty rows, each with file and line.
    """
    gathering = Gathering()
    for provider, path in files.items():
        for line, row in whole_rows_of(path, gathering.faults):
            if not row.get("gpu_name") or row.get("gpu_count") in {"", "0", None}:
                continue
            if flags := row.get("flags", ""):
                gathering.flagged[flags] += 1
                continue
            if "edgegpu" in row.get("instance_name", ""):  # Google's appliances for customers' own sites
                gathering.flagged["edge appliance"] += 1
                continue
            try:
                _read_row(row, provider, gathering, f"gpuhunt catalog, {path.name}")
            except (ValueError, InputError) as error:
                gathering.faults.add(f"{path}:{line}: {error}")
    return gathering.finish(folder)


def _read_row(row: Mapping[str, str], provider: str, gathering: Gathering, source: str) -> None:
    """The price of a row."""
    name, instance_type = row["gpu_name"], row.get("instance_name", "")
    memory = positive(row["gpu_memory"], "gpu_memory") if row.get("gpu_memory") else None
    accelerator = gathering.accelerator(provider, name, memory, instance_type)
    if accelerator is None or not row.get("price"):
        return
    count = whole(row["gpu_count"], "gpu_count")
    is_spot = row.get("spot", "").casefold() == "true"
    gathering.add(
        provider,
        _region(provider, row.get("location", "")),
        (instance_type or f"{count}x-{accelerator}", accelerator, count),
        positive(row["price"], "price"),
        "spot" if is_spot else "on-demand",
        source,
    )


def _region(provider: str, location: str) -> str:
    """The region of a location: Google's are zones, ``us-central1-b``."""
    return re.sub(r"(?<=\d)-[a-z]$", "", location) if provider == "gcp" else location
