"""Accelerators, offers and models, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from melange.catalog.catalog import Accelerator, Model, Offer
from melange.present.terminal.layout import add_column, table_of
from melange.units import FLOPS_PER_TFLOPS, GB, GIB, KB, PARAMETERS_PER_BILLION

# Narrower terminals show no sources, so that each row is a line [characters].
_WITH_SOURCES = 120
_NO_SOURCES = "Sources: --json, or a terminal of at least 120 columns."


def accelerators_page(accelerators: Iterable[Accelerator], width: int = _WITH_SOURCES) -> RenderableType:
    """Accelerators as a table, with links and sources if there is room."""
    is_wide = width >= _WITH_SOURCES
    table = table_of("Name", "Vendor", "Architecture")
    for heading in ("GiB", "GB/s", "bf16 TFLOPS", "fp8 TFLOPS"):
        add_column(table, heading, right=True)
    for heading in ("Link", "Source") if is_wide else ():
        add_column(table, heading)
    for a in accelerators:
        half = a.flops_by_dtype.get("bf16") or a.flops_by_dtype.get("fp16")
        table.add_row(
            a.name,
            a.vendor,
            a.architecture,
            f"{a.memory_bytes / GIB:.0f}",
            f"{a.bandwidth_bytes_per_s / GB:,.0f}",
            _tera(half),
            _tera(a.flops_by_dtype.get("fp8")),
            *((a.link, a.source) if is_wide else ()),
        )
    return table if is_wide else Group(table, Text(_NO_SOURCES, style="dim"))


def offers_page(offers: Sequence[Offer], width: int = _WITH_SOURCES) -> RenderableType:
    """Offers as a table, cheapest accelerator-hour first; with links and sources if there is room."""
    if width < _WITH_SOURCES:
        return Group(_short_offers(offers), Text(_NO_SOURCES, style="dim"))
    table = table_of("Provider", "Region", "Instance type", "Market", "Accelerators")
    for heading in ("USD/h", "USD/h each"):
        add_column(table, heading, right=True)
    for heading in ("Link", "Seen", "Source"):
        add_column(table, heading)
    for offer in sorted(offers, key=lambda o: o.cost_per_h / o.accelerators):
        table.add_row(
            offer.provider,
            offer.region,
            offer.instance_type,
            offer.market,
            f"{offer.accelerators} x {offer.accelerator}",
            f"{offer.cost_per_h:,.2f}",
            f"{offer.cost_per_h / offer.accelerators:,.2f}",
            offer.interconnect,
            offer.seen.isoformat() if offer.seen else "undated",
            offer.source,
        )
    return table


def _short_offers(offers: Sequence[Offer]) -> RenderableType:
    table = table_of("Offer", "Market", "Hardware")
    for heading in ("USD/h", "Each"):
        add_column(table, heading, right=True)
    add_column(table, "Seen")
    table.columns[0].no_wrap = True
    for offer in sorted(offers, key=lambda o: o.cost_per_h / o.accelerators):
        table.add_row(
            "/".join(one for one in (offer.provider, offer.region, offer.instance_type) if one),
            offer.market,
            f"{offer.accelerators} x {offer.accelerator}",
            f"{offer.cost_per_h:,.2f}",
            f"{offer.cost_per_h / offer.accelerators:,.2f}",
            offer.seen.isoformat() if offer.seen else "undated",
        )
    return table


def models_page(models: Iterable[Model]) -> RenderableType:
    """Models as a table."""
    table = table_of("Name")
    for heading in ("Parameters [10^9]", "Weights [GB]", "KV [kB/token]", "Context"):
        add_column(table, heading, right=True)
    table.add_column("Weights as")
    for m in models:
        table.add_row(
            m.name,
            f"{m.parameters() / PARAMETERS_PER_BILLION:.2f}",
            f"{m.weight_bytes() / GB:.1f}",
            f"{m.kv_bytes_per_token() / KB:.1f}",
            f"{m.max_context:,}",
            m.weight_dtype,
        )
    return table


def _tera(flops: float | None) -> str:
    return f"{flops / FLOPS_PER_TFLOPS:,.0f}" if flops else "-"
