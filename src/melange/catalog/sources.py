"""Public price catalogs: their addresses, and how to fetch their files into a folder."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from melange.catalog.fetching import MOST_BYTES, UnreachableError, fetch
from melange.errors import InputError
from melange.units import MB

_Files = Iterator[tuple[str, Callable[[], bytes]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A public catalog.

    Parameters
    ----------
    base_url
        Common prefix of its addresses.
    directory_by_provider
        Its names of the providers that it has, by our own names; empty if one file holds all of them.
    files
        The paths of its files in the folder and how to fetch each, for a base URL and some of these directories.
    """

    base_url: str
    directory_by_provider: Mapping[str, str]
    files: Callable[[str, Collection[str]], _Files]


def _skypilot(base: str, directories: Collection[str]) -> _Files:
    """SkyPilot: a folder for each cloud."""
    for name in directories:
        yield f"{name}/vms.csv", lambda name=name: fetch(f"{base}/{name}/vms.csv")  # type: ignore[misc]


def _gpuhunt(base: str, directories: Collection[str]) -> _Files:
    """gpuhunt, version 3: for each provider the name of its latest version, and an archive with one table."""
    for name in directories:
        yield f"{name}.csv", lambda name=name: _gpuhunt_table(base, name)  # type: ignore[misc]


def _gpuhunt_table(base: str, provider: str) -> bytes:
    """The table in the latest archive of a provider."""
    url = f"{base}/{provider}/version"
    version = fetch(url).decode("utf-8", errors="replace").strip()
    if not re.fullmatch(r"[\w.-]{1,60}", version):
        raise InputError(f"{url}: must contain a version name, got {version[:40]!r}")
    url = f"{base}/{provider}/{version}/catalog.zip"
    tables = unpacked(fetch(url), url)
    found = tables.get(f"{provider}.csv")
    if found is None:
        raise InputError(f"{url}: no {provider}.csv in it; found {', '.join(tables) or 'no table'}")
    return found


# Paths of the initial prices of Karpenter's providers.
_KARPENTER = {
    "aws": "aws/karpenter-provider-aws/main/pkg/providers/pricing/zz_generated.pricing_aws.go",
    "azure": "Azure/karpenter-provider-azure/main/pkg/providers/pricing/zz_generated.pricing.go",
    "gcp": "cloudpilot-ai/karpenter-provider-gcp/main/pkg/providers/pricing/initial-prices.json",
}


def _karpenter(base: str, directories: Collection[str]) -> _Files:
    """Karpenter's providers: a generated file for each."""
    for name in directories:
        path = _KARPENTER[name]
        yield f"{name}/{PurePosixPath(path).name}", lambda path=path: fetch(f"{base}/{path}")  # type: ignore[misc]


def _gpurentalprices(base: str, directories: Collection[str]) -> _Files:
    """gpurentalprices.com: one file for all providers."""
    del directories
    yield "latest.json", lambda: fetch(f"{base}/latest.json")


SOURCES: Mapping[str, Source] = {
    "skypilot": Source(
        base_url="https://raw.githubusercontent.com/skypilot-org/skypilot-catalog/master/catalogs/v8",
        directory_by_provider={
            name: name
            for name in (
                *("aws", "azure", "gcp", "lambda", "runpod", "verda", "hyperstack", "nebius", "oci", "vast"),
                *("mithril", "seeweb", "shadeform", "scaleway", "paperspace", "cudo", "primeintellect", "hyperbolic"),
            )
        }
        | {"digitalocean": "do", "ovh": "ovhcloud"},
        files=_skypilot,
    ),
    "gpuhunt": Source(
        base_url="https://dstack-gpu-pricing.s3.eu-west-1.amazonaws.com/v3",
        directory_by_provider={name: name for name in ("aws", "azure", "verda", "gcp", "nebius", "oci", "runpod")}
        | {"lambda": "lambdalabs", "cloudrift": "cloudrift"},
        files=_gpuhunt,
    ),
    "karpenter": Source(
        base_url="https://raw.githubusercontent.com",
        directory_by_provider={name: name for name in _KARPENTER},
        files=_karpenter,
    ),
    "gpurentalprices": Source(
        base_url="https://gpurentalprices.com/api", directory_by_provider={}, files=_gpurentalprices
    ),
}


def download(
    source: str, folder: Path, *, mirror: str | None = None, providers: Collection[str] = ()
) -> tuple[list[Path], list[str]]:
    """Fetch the files of a source into a folder.

    Parameters
    ----------
    source
        One of :data:`SOURCES`, or a URL.
    folder
        An empty folder.
    mirror
        Another base URL for the same files.
    providers
        The providers to fetch, by our own names; a source with one file for all is fetched whole.

    Returns
    -------
    tuple
        The files that were fetched, and one sentence for each that was not.
    """
    if source not in SOURCES:
        files: _Files = iter(_files_of_url(source).items())
    else:
        found = SOURCES[source]
        directories = [name for provider, name in found.directory_by_provider.items() if provider in providers]
        files = found.files((mirror or found.base_url).rstrip("/"), directories)
    paths: list[Path] = []
    faults: list[str] = []
    for place, get in files:
        try:
            content = get()
        except InputError as error:
            faults.append(str(error))
            if isinstance(error, UnreachableError) and not paths:
                break  # without a network, every further file would run into the timeout
            continue
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        paths.append(path)
    return paths, faults


def _files_of_url(url: str) -> dict[str, Callable[[], bytes]]:
    """The file at a URL, or the tables of an archive, with file names that include the provider."""
    try:
        content = fetch(url)
    except InputError as error:
        return {"failed": _raising(error)}
    if content.startswith(b"PK"):
        try:
            return {name: _returning(table) for name, table in unpacked(content, url).items()}
        except InputError as error:
            return {"failed": _raising(error)}
    parts = PurePosixPath(urlsplit(url).path).parts
    name = parts[-1].removesuffix(".gz") if len(parts) > 1 else "prices"
    # ec2.shop answers for one region, which the content does not name.
    if region := parse_qs(urlsplit(url).query).get("region"):
        parts, name = ("/",), re.sub(r"[^\w-]", "", region[0])
    suffix = _suffix(content)
    stem = name if name.endswith(suffix) else f"{name}{suffix}"
    # The provider of vms.csv is the name of its folder.
    return {"/".join([*parts[-2:-1], stem] if len(parts) > 2 else [stem]): _returning(content)}


def _returning(content: bytes) -> Callable[[], bytes]:
    return lambda: content


def _raising(error: InputError) -> Callable[[], bytes]:
    def get() -> bytes:
        raise error

    return get


def _suffix(content: bytes) -> str:
    """The suffix of a file, judged by its content."""
    start = content.lstrip()[:2000]
    if start[:1] in (b"{", b"["):
        return ".json"
    return ".go" if b"package pricing" in start else ".csv"


def unpacked(content: bytes, place: str) -> dict[str, bytes]:
    """The CSV files of an archive by name, without their folders.

    Raises
    ------
    InputError
        The archive is damaged, or expands to more than 64 MB.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [one for one in archive.infolist() if one.filename.endswith(".csv")]
            if sum(one.file_size for one in members) > MOST_BYTES:
                raise InputError(f"{place}: unpacks to more than {MOST_BYTES / MB:g} MB, too large for a price list")
            return {PurePosixPath(one.filename).name: archive.read(one) for one in members}
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{place}: a damaged archive: {error}") from error
