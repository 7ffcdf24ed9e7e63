"""Update prices from a public catalog: report changes, and hold back implausible prices."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from melange.catalog.bundled import offers
from melange.catalog.current import FILE, Kind, data_folder, fetched_offers, kind_of, merged, save
from melange.catalog.offer import Offer
from melange.catalog.parts import provider_named
from melange.catalog.plausible import implausible
from melange.catalog.readers import read_catalog
from melange.catalog.sources import SOURCES, download
from melange.errors import Caution, InputError, some_of
from melange.files import Json

# A price that more than doubles or halves is usually a mistake: the largest real price cut we know of is AWS's for its
# H100 in 2025, by 44 %. Chosen by judgment.
_JUMP = 2.0
# If more than this share of the comparable prices jumps, the file holds something else (another currency, prices per
# accelerator). Chosen by judgment.
_MOST_JUMPS = 0.5
_FEW = 4  # fewest comparable prices for this check


# Machines that catalogs list and the bundled table leaves out: community machines (nobody guarantees that they stay),
# retired Azure machines, and Azure's confidential machines.
_LEFT_OUT = re.compile(r"COMMUNITY|^Standard_(NC(6|12|24)r?s_v3|ND40rs_v2|NCC)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceChange:
    """One price before and after an update.

    Parameters
    ----------
    new
        The price from the source.
    old
        The price known before; None if there was none.
    reason
        Why the new price was rejected; empty if it was accepted.
    """

    new: Offer
    old: Offer | None = None
    reason: str = ""

    @property
    def change(self) -> float:
        """Relative change of the price; nan without an old price."""
        return self.new.cost_per_h / self.old.cost_per_h - 1 if self.old else float("nan")

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "offer": self.new.to_json(),
            "old_cost_per_h": self.old.cost_per_h if self.old else None,
            "new_cost_per_h": self.new.cost_per_h,
            "change": self.change if self.old else None,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceUpdate:
    """The result of an update.

    Parameters
    ----------
    source
        The source of the prices.
    file, kept
        The file written, and the file with the previous prices; None if nothing was written.
    moved, added, held
        Prices that changed, prices of new offers, and prices that were rejected.
    unchanged
        Number of unchanged prices.
    missing
        Known prices of the same providers and markets that the source does not have; they stay unchanged.
    elsewhere
        Number of offers of other providers and regions in the source, which were not requested.
    cautions
        Files that could not be fetched, rows that were left out.
    """

    source: str
    moved: tuple[PriceChange, ...] = ()
    added: tuple[PriceChange, ...] = ()
    held: tuple[PriceChange, ...] = ()
    unchanged: int = 0
    missing: int = 0
    elsewhere: int = 0
    file: Path | None = None
    kept: Path | None = None
    cautions: tuple[Caution, ...] = ()

    def to_json(self) -> Json:
        """As a JSON object."""
        return {
            "source": self.source,
            "moved": [one.to_json() for one in self.moved],
            "added": [one.to_json() for one in self.added],
            "held": [one.to_json() for one in self.held],
            "unchanged": self.unchanged,
            "missing": self.missing,
            "elsewhere": self.elsewhere,
            "file": str(self.file) if self.file else None,
            "kept": str(self.kept) if self.kept else None,
            "cautions": [one.to_json() for one in self.cautions],
        }


def update_prices(
    source: str = "skypilot",
    *,
    providers: Collection[str] = (),
    regions: Collection[str] = (),
    accept_jumps: bool = False,
    mirror: str | None = None,
    folder: Path | None = None,
    now: datetime | None = None,
) -> PriceUpdate:
    """Fetch current prices into the user's data folder, which all plans read.

    For each provider, region, accelerator, count and market, the cheapest offer is kept, as in the bundled table.

    Parameters
    ----------
    source
        ``skypilot``, ``gpuhunt``, ``karpenter``, ``gpurentalprices``, or the URL of a file in one of these formats or
        of an ``offers.csv``.
    providers
        Only these providers; empty: the providers already in the catalog.
    regions
        Only these regions; empty: for each provider the regions already in the catalog, and all regions of a new
        provider.
    accept_jumps
        Also accept prices that changed by more than a factor of two, and prices far below known ones.
    mirror
        Another base URL for the files of a named source.
    folder
        The folder for the prices; None: :func:`~melange.catalog.current.data_folder`.
    now
        The current time; None: now. Its day is the date of prices whose source gives none.

    Raises
    ------
    InputError
        Nothing could be fetched or read, or most prices jumped; in both cases nothing was written.
    """
    folder = folder or data_folder()
    now = now or datetime.now(UTC)
    stored = fetched_offers(folder / FILE)
    known = merged(offers(), stored)
    wanted = {provider_named(name) for name in providers}
    listed, cautions = _listed(source, mirror, wanted or {offer.provider for offer in known}, known)
    dated = [replace(one, seen=one.seen or now.date(), provider=provider_named(one.provider)) for one in listed]
    chosen = _chosen(dated, known, wanted, set(regions))
    if not chosen:
        raise InputError(
            f"{source}: no price for the requested providers and regions; it has "
            f"{some_of(sorted({one.provider for one in dated}))}",
            hint="choose others with --provider and --region",
        )
    update = _compared(source, chosen, known, accept_jumps)
    taken = [one.new for one in (*update.moved, *update.added)] + _same(chosen, known)
    update = replace(update, elsewhere=len({kind_of(one) for one in dated} - {kind_of(one) for one in chosen}))
    update = replace(update, cautions=(*cautions, *update.cautions))
    if not taken:
        return update
    return replace(update, file=folder / FILE, kept=save(merged(stored, taken), folder, now))


def _listed(
    source: str, mirror: str | None, providers: Collection[str], known: Sequence[Offer]
) -> tuple[list[Offer], list[Caution]]:
    """All offers of the source, and the problems met while reading it."""
    if source not in SOURCES and not source.startswith(("http://", "https://")):
        raise InputError(
            f"--from {source}: must be {', '.join(SOURCES)} or a URL",
            hint="to use your own file, set offers.file in service.yaml",
        )
    if mirror is not None and source not in SOURCES:
        raise InputError("--mirror needs a named source", hint=f"use --from {mirror} to fetch from a URL")
    listed: list[Offer] = []
    cautions: list[Caution] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        paths, faults = download(source, root, mirror=mirror, providers=providers)
        for path in paths:
            try:
                found = read_catalog(path)
            except InputError as error:
                faults.append(str(error).replace(f"{root}/", ""))
                continue
            listed += found.offers
            cautions += [
                replace(one, message=one.message.replace(f"{root}/", ""))
                for one in found.cautions
                if one.kind != "unknown-accelerator"  # every catalog has old accelerators such as the K80
            ]
    if not listed:
        day = max((one.seen for one in known if one.seen), default=None)
        raise InputError(
            "no price was fetched; the current prices stay"
            + (f" (latest: {day})" if day else "")
            + "".join(f"\n  {fault}" for fault in faults or [f"{source}: has none of the requested providers"]),
            hint="without a network: download a catalog elsewhere and set offers.file in service.yaml",
        )
    return listed, [Caution("not-fetched", fault) for fault in faults] + cautions


def _chosen(
    listed: Iterable[Offer], known: Sequence[Offer], providers: Collection[str], regions: Collection[str]
) -> list[Offer]:
    """The cheapest offer of each kind, for the selected providers and regions, with the region in our spelling."""
    regions_by_provider: dict[str, set[str]] = {}
    for offer in known:
        regions_by_provider.setdefault(offer.provider, set()).add(offer.region)
    spot_only = _spot_only(known)
    type_by_kind = {kind_of(offer): offer.instance_type for offer in known}
    cheapest: dict[Kind, Offer] = {}
    for offer in listed:
        ours = regions_by_provider.get(offer.provider)
        if _LEFT_OUT.search(offer.instance_type) or (ours is None and offer.provider not in providers):
            continue
        if offer.market == "on-demand" and (offer.provider, offer.instance_type) in spot_only:
            continue
        if providers and offer.provider not in providers:
            continue
        if regions:
            if offer.region and offer.region not in regions:
                continue
        elif ours == {""}:
            offer = replace(offer, region="")
        elif ours is not None and offer.region not in ours:
            continue
        kind = kind_of(offer)
        if kind in cheapest and cheapest[kind].cost_per_h <= offer.cost_per_h:
            continue
        # Our own names are kept: a service file may use them.
        own = f"{offer.accelerators}x-{offer.accelerator}"
        cheapest[kind] = replace(offer, instance_type=own) if type_by_kind.get(kind) == own else offer
    return list(cheapest.values())


def _spot_only(known: Sequence[Offer]) -> set[tuple[str, str]]:
    """Machines that are rented only on spot, whatever price a catalog lists: Google's small H100 machines."""
    markets: dict[tuple[str, str], set[str]] = {}
    for offer in known:
        if not offer.instance_type.startswith(f"{offer.accelerators}x-"):
            markets.setdefault((offer.provider, offer.instance_type), set()).add(offer.market)
    return {machine for machine, found in markets.items() if found == {"spot"}}


def _compared(source: str, chosen: Sequence[Offer], known: Sequence[Offer], accept_jumps: bool) -> PriceUpdate:
    """Changes from the known prices; jumps are rejected unless accepted explicitly."""
    known_by_kind = {kind_of(offer): offer for offer in known}
    unlikely = implausible(chosen, known)
    moved, added, held, unchanged = [], [], [], 0
    compared = jumps = 0
    for offer in chosen:
        old = known_by_kind.get(kind_of(offer))
        reason = _reason(offer, old, unlikely.get(offer, ""))
        if old is not None and not reason.startswith("older"):
            compared += 1
            jumps += bool(reason)
        if reason and (not accept_jumps or reason.startswith("older")):
            held.append(PriceChange(new=offer, old=old, reason=reason))
        elif old is None:
            added.append(PriceChange(new=offer))
        elif _is_same(offer, old):
            unchanged += 1
        else:
            moved.append(PriceChange(new=offer, old=old))
    if not accept_jumps and compared >= _FEW and jumps > _MOST_JUMPS * compared:
        raise InputError(
            f"{source}: {jumps} of {compared} prices changed by more than a factor of {_JUMP:g}: "
            f"no price was accepted; the first: {held[0].new.name}, {held[0].reason}",
            hint="check that these are prices of whole instances in USD per hour; --accept-jumps accepts them",
        )
    covered = {(one.provider, one.market) for one in chosen}
    kinds = {kind_of(one) for one in chosen}
    missing = sum((one.provider, one.market) in covered and kind_of(one) not in kinds for one in known)
    return PriceUpdate(
        source=source,
        moved=tuple(sorted(moved, key=lambda one: -abs(one.change))),
        added=tuple(added),
        held=tuple(held),
        unchanged=unchanged,
        missing=missing,
    )


def _reason(offer: Offer, old: Offer | None, unlikely: str) -> str:
    """Why a price is rejected; empty if it is accepted."""
    if old is not None and old.seen and offer.seen and offer.seen < old.seen and not _is_same(offer, old):
        return f"older than the known price: {offer.seen}, {old.seen}"
    if old is not None:
        ratio = offer.cost_per_h / old.cost_per_h
        if not 1 / _JUMP <= ratio <= _JUMP:
            return f"{old.cost_per_h:g} USD/h before, {offer.cost_per_h:g} now"
    return unlikely


def _is_same(offer: Offer, old: Offer) -> bool:
    """Whether a price is unchanged, to a tenth of a per mille: sources round differently."""
    return abs(offer.cost_per_h / old.cost_per_h - 1) < 1e-4


def _same(chosen: Sequence[Offer], known: Sequence[Offer]) -> list[Offer]:
    """Unchanged prices: only their date is new."""
    known_by_kind = {kind_of(offer): offer for offer in known}
    return [one for one in chosen if (old := known_by_kind.get(kind_of(one))) is not None and _is_same(one, old)]
