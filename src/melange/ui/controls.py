"""The controls of the page as an HTML form, each with the service's own value and the chosen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melange.present.pages.html import escape
from melange.slo import DEFAULT_ATTAINMENT, METRICS
from melange.ui.choices import MIXTURE, NONE, OWN, PERCENT, Choices
from melange.ui.form_parts import Names, Number, choice, group

if TYPE_CHECKING:
    from melange.catalog.catalog import Catalog
    from melange.catalog.offer import Offer
    from melange.service.schema import Service

# Names of limits, and the ends of their sliders [ms].
_LIMITS = {
    "ttft": ("Time to first token, TTFT [ms]", (50.0, 20_000.0)),
    "tpot": ("Time per output token, TPOT [ms]", (5.0, 500.0)),
    "ntpot": ("Latency per output token [ms]", (5.0, 1_000.0)),
    "latency": ("Latency [ms]", (100.0, 600_000.0)),
}
_STATISTICS = {
    "requests": "of each request",
    "mean": "of the mean",
    "p50": "of the median",
    "p90": "of the 90th percentile",
    "p95": "of the 95th percentile",
    "p99": "of the 99th percentile",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rentable:
    """The distinct values in offers, each list sorted.

    Parameters
    ----------
    gpus, providers, regions, markets
        The distinct names.
    """

    gpus: tuple[str, ...]
    providers: tuple[str, ...]
    regions: tuple[str, ...]
    markets: tuple[str, ...]

    @classmethod
    def of(cls, offers: Iterable[Offer]) -> Rentable:
        """The distinct values in some offers."""
        found = list(offers)
        return cls(
            gpus=tuple(sorted({one.accelerator for one in found})),
            providers=tuple(sorted({one.provider for one in found} - {""})),
            regions=tuple(sorted({one.region for one in found} - {""})),
            markets=tuple(sorted({one.market for one in found})),
        )


def rentable_of(service: Service, catalog: Catalog) -> Rentable:
    """All offers without restrictions: from the service's own price list, or all bundled offers."""
    from melange.catalog.readers import read_price_list

    if service.offers.file is not None:
        return Rentable.of(read_price_list(service.path(service.offers.file)).offers)
    return Rentable.of(catalog.offers)


def controls_html(service: Service, choices: Choices, catalog: Catalog, logs: Sequence[str]) -> str:
    """The whole form.

    Parameters
    ----------
    service, choices
        The service as its file describes it, and the choices.
    catalog
        For the names of accelerators, and for the offers.
    logs
        Names of logs that can be chosen.
    """
    return "".join(
        (
            group("Traffic", _traffic(service, choices, logs)),
            group("SLO", _slo(service, choices)),
            group("What may be rented", _rented(service, choices, catalog)),
            group("Redundancy", _redundancy(service, choices)),
        )
    )


def _traffic(service: Service, choices: Choices, logs: Sequence[str]) -> str:
    kind, value = service.workload.source
    rate = service.workload.rate
    own = rate if isinstance(rate, int | float) else None
    # The address of a table may contain credentials.
    words = "" if kind == "table" else value if isinstance(value, str) else ", ".join(value)
    named = {OWN: f"As in the file: {kind} {words}".rstrip(), MIXTURE: "A mixture of data sets"}
    named |= {name: f"Log {name}" for name in logs}
    if choices.traffic not in named:
        named[choices.traffic] = f"Upload {choices.traffic.rpartition('/')[2]}"
    about = "" if own else f"As in the file: {rate or 'the rate of the traffic'}"
    return "".join(
        (
            Number(
                key="rate",
                label="Requests per second",
                value=choices.rate or own,
                own=own,
                least=0.001,
                drag=(0.1, 1000),
                placeholder="as in the file",
                about=about,
            ).html(),
            Number(
                key="growth", label="Growth [%]", value=choices.growth, own=0, least=-99, drag=(-90, 400), is_log=False
            ).html(),
            choice("traffic", "Request sizes", named, choices.traffic, OWN),
            _mixture(service, choices),
            '<div class="row"><label for="upload">Upload a log (CSV, JSONL, Parquet)</label>'
            '<input type="file" id="upload" accept=".csv,.jsonl,.json,.parquet,.gz,.zst"></div>'
            '<p class="hint" id="upload-state" role="status"></p>',
        )
    )


def _mixture(service: Service, choices: Choices) -> str:
    """A share for each bundled data set."""
    from melange.workload.datasets import datasets

    own = service.workload.dataset
    shares: Mapping[str, float] = {own: 1.0} if isinstance(own, str) else own or {}
    shown = (
        choices.mix or {name: PERCENT * share for name, share in shares.items()} or {next(iter(datasets())): PERCENT}
    )
    rows = "".join(
        Number(key=name, label=name, value=shown.get(name), own=None, drag=(0, 100), is_log=False, part="mix").html()
        for name in datasets()
    )
    hidden = "" if choices.traffic == MIXTURE else " hidden"
    return (
        f'<div id="mixture"{hidden} role="group" aria-label="Shares of the data sets">'
        f'<p class="hint">Shares in any unit: they are scaled to 100 %.</p>{rows}</div>'
    )


def _slo(service: Service, choices: Choices) -> str:
    parts = []
    for metric in METRICS:
        label, drag = _LIMITS[metric]
        own, chosen = getattr(service.slo, f"{metric}_ms"), getattr(choices, f"{metric}_ms")
        shown = own if chosen is None else None if chosen == NONE else chosen
        number = Number(
            key=f"{metric}_ms", label=label, value=shown, own=own, least=0.001, drag=drag, placeholder="no limit",
            empty=NONE,
        )  # fmt: skip
        parts.append(number.html())
    share = service.slo.attainment
    own_percent = PERCENT * (DEFAULT_ATTAINMENT if share is None else share)
    parts.append(
        Number(
            key="attainment",
            label="Requests within the limits [%]",
            value=own_percent if choices.attainment is None else choices.attainment,
            own=own_percent,
            least=0.001,
            most=100,
            drag=(80, 99.9),
            is_log=False,
        ).html()
    )
    own_statistic = service.slo.statistic
    named = _STATISTICS | ({} if own_statistic in _STATISTICS else {own_statistic: f"of the {own_statistic}"})
    parts.append(choice("statistic", "Limits are", named, choices.statistic or own_statistic, own_statistic))
    return "".join(parts)


def _rented(service: Service, choices: Choices, catalog: Catalog) -> str:
    def ours(name: str) -> str:
        return catalog.find_accelerator(name) or name

    offers, rentable = service.offers, rentable_of(service, catalog)
    limits = {ours(name): count for name, count in offers.max.items()}
    counts = limits if choices.max is None else choices.max
    gpus = [ours(name) for name in offers.gpus] if offers.gpus else None
    known = list(dict.fromkeys([*rentable.gpus, *(gpus or ())]))
    others = [name for name in dict.fromkeys((*limits, *counts)) if name not in known]
    lists = (
        Names(key="market", label="Markets", known=rentable.markets, own=offers.market, chosen=choices.market),
        Names(
            key="providers", label="Providers", known=rentable.providers, own=offers.providers, chosen=choices.providers
        ),
        Names(key="regions", label="Regions", known=rentable.regions, own=offers.regions, chosen=choices.regions),
    )
    own_limits = ",".join(f"{name}:{limits[name]}" for name in (*known, *others) if name in limits)
    cards = Names(key="gpus", label="GPUs, and how many there are", known=known, own=gpus, chosen=choices.gpus)
    rows = "".join(
        Number(key=name, label=f"{name}, at most", value=counts.get(name), own=None, is_whole=True, part="max").html()
        for name in others
    )
    return (
        "".join(one.html() for one in lists if one.known)
        + f'<div id="limits" data-own="{escape(own_limits)}">{cards.html(counts)}{rows}</div>'
    )


def _redundancy(service: Service, choices: Choices) -> str:
    plan, parts = service.plan, []
    for key, label in (
        ("spare_replicas", "Spare replicas of each type"),
        ("spare_total_replicas", "Spare replicas in total"),
        ("min_total_replicas", "Replicas at least"),
    ):
        own, chosen = getattr(plan, key), getattr(choices, key)
        number = own if isinstance(own, int) else None
        about = "" if number is not None else "As in the file: by type"
        value = number if chosen is None else chosen
        parts.append(
            Number(
                key=key, label=label, value=value, own=number, drag=(0, 8), is_log=False, is_whole=True, about=about
            ).html()
        )
    types = plan.max_types if choices.max_types is None else choices.max_types
    parts.append(
        Number(
            key="max_types",
            label="Replica types at most",
            value=types if isinstance(types, int) else None,
            own=plan.max_types,
            least=1,
            is_whole=True,
            placeholder="no limit",
            empty=NONE,
        ).html()
    )
    headroom = PERCENT * plan.headroom
    parts.append(
        Number(
            key="headroom",
            label="Headroom of the closed form [%]",
            value=headroom if choices.headroom is None else choices.headroom,
            own=headroom,
            most=90,
            drag=(0, 50),
            is_log=False,
        ).html()
    )
    return "".join(parts)
