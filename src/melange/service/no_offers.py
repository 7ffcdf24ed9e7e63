"""The error for filters of offers that leave none: which of them exclude everything."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from operator import attrgetter
from typing import Any

from melange.catalog.catalog import Catalog
from melange.errors import InputError, some_of
from melange.service.schema import OffersSection

# The filters of ``offers``, with their names in :meth:`melange.catalog.catalog.Catalog.select`, and an offer's field.
_ARGUMENT = {"gpus": "gpus", "providers": "providers", "regions": "regions", "market": "markets"}
_FIELD = {"gpus": "accelerator", "providers": "provider", "regions": "region", "market": "market"}


def no_offers(section: OffersSection, catalog: Catalog) -> InputError:
    """The error, which names the fewest filters that exclude every offer together, and what passes the others.

    Parameters
    ----------
    section
        The filters.
    catalog
        All offers, or those of the service's price list.
    """
    given: dict[str, list[str]] = {key: getattr(section, key) for key in _FIELD if getattr(section, key)}

    def left(keys: Iterable[str]) -> Catalog:
        chosen: dict[str, Any] = {_ARGUMENT[key]: given[key] for key in keys}
        return catalog.select(**chosen)

    some = [keys for count in range(len(given) + 1) for keys in combinations(given, count)]
    guilty = next(keys for keys in some if not left(keys).offers)
    where = f"in {section.file}" if section.file else "in the catalog"
    if not guilty:
        return InputError(f"offers: there is no offer {where}", hint="melange catalog offers shows what there is")
    words = " and ".join(f"offers.{key}: [{', '.join(given[key])}]" for key in guilty)
    verb = "excludes" if len(guilty) == 1 else "together exclude"
    parts = []
    for key in guilty:
        offers = left(one for one in given if one != key).offers
        if names := sorted({attrgetter(_FIELD[key])(one) for one in offers} - {""}):
            parts.append(f"offers.{key} may be {some_of(names)}")
    shown = "melange catalog offers shows what there is"
    hint = "; ".join(filter(None, (" or ".join(parts), shown)))
    return InputError(f"offers: no offer matches: {words} {verb} every offer {where}", hint=hint)
