"""Read prices by instance type from Karpenter's providers, ec2.shop and gpurentalprices.com.

None of these sources says which accelerators an instance holds, or how many: the bundled offers do, by instance type,
and prices of other machines are left out. gpurentalprices.com prices one accelerator; the instances of a provider come
from the bundled offers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from melange.catalog.bundled import offers
from melange.catalog.parts import provider_named
from melange.catalog.price_list import Gathering, PriceList, positive, whole
from melange.errors import InputError
from melange.files import read_text
from melange.parsing import parse_json

# Generated Go code: a region opens a block, followed by prices by instance type.
_GO = re.compile(
    r'"(?P<name>[^"\n]+)"(?:\s*:\s*(?P<price>\d+(?:\.\d*)?(?:[eE][-+]?\d+)?)|(?P<opens>\s*:\s*\{|\]\s*=\s*map))'
)
_GENERATED = re.compile(r"generated at (\d{4}-\d{2}-\d{2})")
# Kinds of gpurentalprices.com. The others are not permanent machines (serverless) or have no liable seller (community).
_MARKET_BY_KIND = {"on-demand": "on-demand", "secure": "on-demand", "spot": "spot", "reserved": "reserved"}
# Prices of ec2.shop by market. A reserved instance is reserved for one year, without convertible terms.
_EC2_SHOP = {"Cost": "on-demand", "SpotPrice": "spot", "Reserved1yPrice": "reserved"}


def is_generated(path: Path) -> bool:
    """Whether a file is one of these, by its suffix."""
    return path.suffix in {".go", ".json"}


def read_generated(path: Path) -> PriceList:
    """Offers of one of these files.

    Raises
    ------
    InputError
        The file is none of these, or holds no price of an instance in the bundled offers.
    """
    text = read_text(path)
    gathering = Gathering()
    if path.suffix == ".go":
        _read_go(text, path, gathering)
        return gathering.finish(path)
    content = parse_json(text, f"{path}")
    readers = {"prices": _read_karpenter_gcp, "Prices": _read_ec2_shop, "offers": _read_gpurentalprices}
    for key, read in readers.items():
        if isinstance(content, dict) and isinstance(content.get(key), dict | list):
            read(content, path, gathering)
            return gathering.finish(path)
    raise InputError(
        f"{path}: unknown price list: none of the keys {', '.join(readers)}",
        hint="supported: files of Karpenter's providers, ec2.shop and gpurentalprices.com",
    )


@cache
def _shapes(provider: str) -> dict[str, tuple[str, int]]:
    """Accelerator and count by instance type, for one provider."""
    return {o.instance_type: (o.accelerator, o.accelerators) for o in offers() if o.provider == provider}


def _read_go(text: str, path: Path, gathering: Gathering) -> None:
    """Karpenter's providers for AWS and Azure: on-demand prices by region and instance type."""
    provider = "azure" if "Microsoft" in text[:2000] else "aws"
    seen = _generated_on(text)
    shapes, region = _shapes(provider), ""
    for found in _GO.finditer(text):
        if found["opens"]:
            region = found["name"]
        elif found["name"] in shapes and region:
            _add(
                gathering, provider, region, found["name"], found["price"], "on-demand", f"Karpenter, {path.name}", seen
            )


def _generated_on(text: str) -> date | None:
    """The date that a generated file states for itself."""
    found = _GENERATED.search(text)
    try:
        return date.fromisoformat(found[1]) if found else None
    except ValueError:
        return None


def _read_karpenter_gcp(content: Mapping[str, Any], path: Path, gathering: Gathering) -> None:
    """Karpenter's provider for Google: on-demand and spot, by region."""
    prices = content["prices"]
    shapes = _shapes("gcp")
    for region, by_market in prices.items() if isinstance(prices, dict) else ():
        for key, market in (("on_demand", "on-demand"), ("spot", "spot")):
            listed = by_market.get(key) if isinstance(by_market, dict) else None
            for instance_type, price in listed.items() if isinstance(listed, dict) else ():
                if instance_type in shapes:
                    _add(gathering, "gcp", region, instance_type, price, market, f"Karpenter, {path.name}", None)


def _read_ec2_shop(content: Mapping[str, Any], path: Path, gathering: Gathering) -> None:
    """ec2.shop: one AWS region, named by the file: on-demand, spot and reserved for a year."""
    region, shapes = path.stem, _shapes("aws")
    for row in content["Prices"] if isinstance(content["Prices"], list) else ():
        instance_type = str(row.get("InstanceType")) if isinstance(row, dict) else ""
        for key, market in _EC2_SHOP.items() if instance_type in shapes else ():
            if row.get(key) not in (None, "", "NA", 0):
                term = " for one year" if market == "reserved" else ""
                _add(gathering, "aws", region, instance_type, row[key], market, f"ec2.shop{term}", None)


def _read_gpurentalprices(content: Mapping[str, Any], path: Path, gathering: Gathering) -> None:
    """gpurentalprices.com: each row is the price of one accelerator, from any provider."""
    counts: dict[tuple[str, str], set[int]] = {}
    for offer in offers():
        counts.setdefault((offer.provider, offer.accelerator), set()).add(offer.accelerators)
    for index, row in enumerate(content["offers"] if isinstance(content["offers"], list) else ()):
        if not isinstance(row, dict):
            gathering.faults.add(f"{path}: offers[{index}] must be an object")
            continue
        market = _MARKET_BY_KIND.get(str(row.get("kind", "")))
        if market is None:
            gathering.flagged[f"{row.get('kind') or 'no kind'}"] += 1
            continue
        try:
            price = positive(str(row.get("usd_hr")), "usd_hr")
            provider = provider_named(str(row.get("provider") or ""))
            memory = positive(str(row["vram_gb"]), "vram_gb") if row.get("vram_gb") else None
            least = whole(str(row.get("min_gpus") or 1), "min_gpus")
        except ValueError as error:
            gathering.faults.add(f"{path}: offers[{index}]: {error}")
            continue
        accelerator = gathering.accelerator(provider, str(row.get("gpu") or ""), memory, "")
        if accelerator is None:
            continue
        source = f"gpurentalprices.com; {row.get('source_url') or ''} (CC BY 4.0)"
        rented = counts.get((provider, accelerator)) or {least}
        for count in sorted(one for one in rented if one >= least):
            shape = (f"{count}x-{accelerator}", accelerator, count)
            seen = _day(row.get("fetched_at")) or _day(content.get("date"))
            gathering.add(provider, "", shape, round(price * count, 6), market, source, seen)


def _day(text: object) -> date | None:
    """The day of a point in time given as text."""
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None


def _add(
    gathering: Gathering,
    provider: str,
    region: str,
    instance_type: str,
    price: object,
    market: str,
    source: str,
    seen: date | None,
) -> None:
    """Add one price, if the bundled offers list the machine."""
    accelerator, count = _shapes(provider)[instance_type]
    try:
        cost = positive(str(price), "price")
        gathering.add(provider, region, (instance_type, accelerator, count), cost, market, source, seen)
    except (ValueError, InputError) as error:
        gathering.faults.add(f"{source}: {region}, {instance_type}: {error}")
