"""Everything that can be rented or served. Facts (accelerators, models) and prices (offers) are separate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

from melange.catalog.accelerator import Accelerator
from melange.catalog.bundled import accelerators, models
from melange.catalog.current import current_offers
from melange.catalog.model import Model
from melange.catalog.names import find_accelerator
from melange.catalog.offer import INTERCONNECTS, MARKETS, STALE_AFTER_DAYS, Offer, stale_prices
from melange.errors import InputError, unknown
from melange.files import Json

# Accelerators in the hint about an unknown one: those with the most offers. Chosen by judgment.
_USUAL = 8

__all__ = [
    "INTERCONNECTS",
    "MARKETS",
    "STALE_AFTER_DAYS",
    "Accelerator",
    "Catalog",
    "Model",
    "Offer",
    "load_catalog",
    "stale_prices",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Everything that can be rented or served.

    Parameters
    ----------
    accelerators
        Facts by accelerator name.
    offers
        Everything that can be rented, in the order of the file.
    models
        Shapes by model name.
    """

    accelerators: Mapping[str, Accelerator]
    offers: tuple[Offer, ...]
    models: Mapping[str, Model] = field(default_factory=dict)

    def find_accelerator(self, name: str) -> str | None:
        """Our name of an accelerator, from any of its aliases; None if unknown.

        >>> load_catalog().find_accelerator("h100")
        'H100-80GB'
        """
        return find_accelerator(name, self.accelerators)

    def select(
        self,
        *,
        gpus: Iterable[str] | None = None,
        providers: Iterable[str] | None = None,
        markets: Iterable[str] | None = None,
        regions: Iterable[str] | None = None,
    ) -> Catalog:
        """The same catalog with only the selected offers and accelerators; None or empty: no restriction.

        Accelerators match by name or alias, in any case (``H100`` is ``H100-80GB``, the SXM part); if the members of a
        family differ in memory (``A100``), the full name is required. Offers without a region (a price that holds
        everywhere) pass every filter on regions.

        Raises
        ------
        InputError
            A name is not in the catalog; the message gives the nearest names.

        >>> [offer.instance_type for offer in load_catalog().select(gpus=["a10g"], regions=["us-east-1"]).offers]
        ['g5.xlarge', 'g5.12xlarge', 'g5.48xlarge']
        """
        wanted = {
            "accelerator": self._named(gpus),
            "provider": _known("provider", providers, {offer.provider for offer in self.offers}),
            "market": _known("market", markets, MARKETS),
            "region": _known("region", regions, {offer.region for offer in self.offers} - {""}),
        }
        if wanted["region"]:
            wanted["region"] |= {""}
        chosen = tuple(
            offer
            for offer in self.offers
            if all(not names or getattr(offer, column) in names for column, names in wanted.items())
        )
        return replace(
            self,
            offers=chosen,
            accelerators={
                name: facts
                for name, facts in self.accelerators.items()
                if not wanted["accelerator"] or name in wanted["accelerator"]
            },
        )

    def _named(self, gpus: Iterable[str] | None) -> set[str]:
        """Our own names of these accelerators; names that occur only in offers are accepted too."""
        others = {offer.accelerator.casefold(): offer.accelerator for offer in self.offers}
        names = set()
        for gpu in gpus or ():
            name = self.find_accelerator(gpu) or others.get(gpu.casefold())
            if name is None:
                family = [known for known in self.accelerators if known.casefold().startswith(f"{gpu.casefold()}-")]
                if family:
                    raise InputError(f"gpu {gpu!r} may be {' or '.join(family)}", hint="name one of them, or both")
                raise self._unknown_gpu(gpu, others.values())
            names.add(name)
        return names

    def own_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Names of accelerators in any case, or as other tools spell them, as ours; other names unchanged.

        >>> load_catalog().own_names(["l40s", "aws/us-east-1/g6.xlarge"])
        ('L40S', 'aws/us-east-1/g6.xlarge')
        """
        return tuple(self.find_accelerator(name) or name for name in names)

    def _unknown_gpu(self, gpu: str, others: Iterable[str]) -> InputError:
        """An error for an unknown accelerator: an instance type, or a name with the nearest or the usual ones."""
        if held := [one for one in self.offers if one.instance_type.casefold() == gpu.casefold()]:
            first = held[0]
            said = f"gpu {gpu!r} is an instance type ({first.accelerators} x {first.accelerator})"
            return InputError(said, hint=f"name its accelerator: {first.accelerator}")
        aliases = {alias for facts in self.accelerators.values() for alias in facts.aliases}
        error = unknown("gpu", gpu, {*self.accelerators, *others, *aliases})
        if error.hint:  # nothing is like it
            usual = [name for name, _ in Counter(one.accelerator for one in self.offers).most_common(_USUAL)]
            error.hint = f"known: {', '.join(usual)}, ...; melange catalog accelerators lists all"
        return error

    def to_json(self) -> Json:
        """As a JSON object: three lists."""
        return {
            "accelerators": [accelerator.to_json() for accelerator in self.accelerators.values()],
            "offers": [offer.to_json() for offer in self.offers],
            "models": [asdict(model) for model in self.models.values()],
        }


def _known(what: str, names: Iterable[str] | None, known: Collection[str]) -> set[str]:
    """These names as spelled in the catalog."""
    by_folded = {name.casefold(): name for name in known}
    found = set()
    for name in names or ():
        if name.casefold() not in by_folded:
            raise unknown(what, name, known)
        found.add(by_folded[name.casefold()])
    return found


def load_catalog() -> Catalog:
    """The bundled catalog: accelerators, offers with source and date, models; newer fetched prices replace its own.

    ``melange catalog update`` fetches prices into the user's data folder.

    >>> catalog = load_catalog()
    >>> catalog.accelerators["A100-80GB"].bandwidth_bytes_per_s / 1e9
    2039.0
    """
    return Catalog(accelerators=accelerators(), offers=current_offers(), models=models())
