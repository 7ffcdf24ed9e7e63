"""The tables that come with the package: accelerators, offers, models. Each is read once."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType

from melange.catalog.accelerator import Accelerator
from melange.catalog.huggingface import read_model
from melange.catalog.model import Model
from melange.catalog.offer import Offer
from melange.errors import InputError, unknown
from melange.files import path_in
from melange.units import FLOPS_PER_TFLOPS, GB, MIB


def table(name: str) -> str:
    """Text of one of the bundled tables."""
    return files("melange.catalog").joinpath("data", name).read_text(encoding="utf-8")


@cache
def accelerators() -> Mapping[str, Accelerator]:
    """Facts of every known accelerator, by our own name for it.

    >>> accelerators()["L4"].flops_by_dtype["bf16"] / 1e12
    121.0
    """
    return MappingProxyType(read_accelerators(table("accelerators.csv")))


def read_accelerators(text: str) -> dict[str, Accelerator]:
    """Accelerators from the text of our own table: MiB, GB/s and TFLOPS become bytes, bytes/s and 1/s."""
    dtypes = ("bf16", "fp16", "fp8", "int8", "fp4")
    return {
        row["name"]: Accelerator(
            name=row["name"],
            vendor=row["vendor"],
            architecture=row["architecture"],
            memory_bytes=float(row["memory_mib"]) * MIB,
            bandwidth_bytes_per_s=float(row["bandwidth_gb_per_s"]) * GB,
            flops_by_dtype=MappingProxyType(
                {dtype: float(row[f"{dtype}_tflops"]) * FLOPS_PER_TFLOPS for dtype in dtypes if row[f"{dtype}_tflops"]}
            ),
            link=row["link"],
            link_bandwidth_bytes_per_s=float(row["link_gb_per_s"]) * GB,
            pcie_bandwidth_bytes_per_s=float(row["pcie_gb_per_s"] or 0) * GB,
            tdp_w=float(row.get("tdp_w") or 0),
            source=row["source"],
            notes=row["notes"],
            aliases=tuple(filter(None, row["aliases"].split(";"))),
            checked=date.fromisoformat(row["checked"]) if row["checked"] else None,
        )
        for row in csv.DictReader(io.StringIO(text, newline=""))
    }


@cache
def offers() -> tuple[Offer, ...]:
    """Offers of the main clouds and GPU clouds: whole instances, on-demand and spot, with source and date.

    >>> min(offers(), key=lambda offer: offer.cost_per_h if offer.accelerator == "L4" else 99).accelerators
    1
    """
    return tuple(
        Offer(
            provider=row["provider"],
            region=row["region"],
            instance_type=row["instance_type"],
            accelerator=row["accelerator"],
            accelerators=int(row["accelerators"]),
            cost_per_h=float(row["cost_per_h"]),
            market=row["market"],
            interconnect=row["interconnect"],
            source=row["source"],
            seen=date.fromisoformat(row["seen"]),
        )
        for row in csv.DictReader(io.StringIO(table("offers.csv"), newline=""))
    )


@cache
def models() -> Mapping[str, Model]:
    """Shapes of common open models by their name on the Hugging Face Hub.

    >>> models()["meta-llama/Llama-3.1-8B-Instruct"].layers
    32
    """
    content = json.loads(table("models.json"))
    by_name: dict[str, Model] = {}
    for entry in content["models"]:
        shape = {key: value for key, value in entry.items() if key not in {"names", "variants", "published_parameters"}}
        for variant in ({"names": entry["names"]}, *entry.get("variants", ())):
            fields = shape | {key: value for key, value in variant.items() if key != "names"}
            for name in variant["names"]:
                by_name[name] = Model(name=name, source=content["source"].format(name=name), **fields)
    return MappingProxyType(by_name)


@cache
def hub_name_by_alias() -> Mapping[str, str]:
    """Hub names by alias, in lower case: the full name, without the organization, or without ``-hf``."""
    by_alias: dict[str, str] = {}
    for name in models():
        bare = name.rpartition("/")[2].casefold()
        for alias in (name.casefold(), bare, bare.removesuffix("-hf"), bare.removeprefix("meta-")):
            by_alias.setdefault(alias, name)
    return MappingProxyType(by_alias)


def is_local(name: str) -> bool:
    """Whether a model with this name was read from a local folder, which gave the name: no name on the hub is like it.

    >>> is_local("mistral-7b"), is_local("org/mistral-7b"), is_local("meta-llama/Llama-3.1-8B")
    (True, False, False)
    """
    return bool(name) and "/" not in name and name not in models()


def find_model(name_or_path: str | Path) -> Model:
    """The model with that name, or in that folder or file.

    Parameters
    ----------
    name_or_path
        A bundled name, in any case and with or without its organization; a folder that holds a ``config.json`` in
        Hugging Face form; or that file. A folder takes precedence over a bundled name, as in the engines.

    Raises
    ------
    InputError
        Neither is found (the error gives the nearest names), or the file cannot be used.

    >>> find_model("llama-3.1-8b").name
    'meta-llama/Llama-3.1-8B'
    """
    place = path_in(Path(), str(name_or_path))
    if place.is_file() or (place / "config.json").is_file():
        return read_model(place)
    name = str(name_or_path)
    hub_name = hub_name_by_alias().get(name.casefold())
    if hub_name is not None:
        return models()[hub_name]
    if place.is_dir():
        raise InputError(f"{place}: no config.json in this folder", hint="give a model folder in Hugging Face format")
    if place.suffix == ".json" or name.startswith((".", "/", "~")):
        raise InputError(f"{place}: no such file or folder", hint="give a folder with a config.json, or that file")
    error = unknown("model", name, models())
    raise InputError(str(error), hint=error.hint or "for any other model, give the folder that holds its config.json")
