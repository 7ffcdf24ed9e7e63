"""The look of pictures: one theme, axes with units, escaped text."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Sequence
from typing import Any

from melange.present.figures.figure import Figure
from melange.present.terminal.layout import LEAST_SHOWN
from melange.units import significant

# Fonts that are installed on readers' machines: a page fetches nothing.
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_INK = "#1a1a1a"
GRID = "#e4e4e4"
# Longest line of a title [characters]. A letter is about 9 px wide (17 px font), and a picture 1,000 px: longer lines
# would be cut, shorter lines need more space.
_TITLE_CHARACTERS = 95
# Line heights [px] for the font sizes below. If smaller, lines touch; if larger, there is white space.
_TITLE_LINE, _LEGEND_LINE = 22, 19
# Legend symbol and letter widths [px]. Only the browser knows how many columns a legend has, so its height is estimated
# from these: if too wide, a gap opens below the title; if too narrow, the legend covers the title. 7 px is a wide
# letter of the 12 px font.
_LEGEND_WIDTH, _KEY_WIDTH, _LETTER_WIDTH = 860, 50, 7


def plain(text: object) -> str:
    """External text, escaped so that Plotly shows it literally and never as markup."""
    return html.escape(str(text), quote=False)


def new_figure(title: str, *, height: int, **layout: Any) -> Figure:
    """An empty figure in the common theme, with a wrapped title.

    Parameters
    ----------
    title
        The finding, plain text.
    height
        [px]
    """
    lines = textwrap.wrap(title, _TITLE_CHARACTERS, break_on_hyphens=False, break_long_words=False)
    figure = Figure()
    figure.update_layout(
        title={
            "text": "<br>".join(plain(line) for line in lines),
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "pad": {"l": 8},
            "yref": "container",
            "yanchor": "top",
            "font": {"size": 17},
        },
        font={"family": _FONT, "size": 13, "color": _INK},
        paper_bgcolor="#ffffff",
        plot_bgcolor="#ffffff",
        height=height,
        margin={"l": 8, "r": 16, "t": 12, "b": 8},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "font": {"size": 12},
            "itemclick": False,
            "itemdoubleclick": False,
        },
        hoverlabel={"bgcolor": "#ffffff", "font": {"color": _INK, "size": 12}, "align": "left"},
        **layout,
    )
    return figure


def with_title_room(figure: Figure) -> Figure:
    """The same figure with room for its title above the legend, for any number of lines."""
    names = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    longest = max((len(html.unescape(name)) for name in names), default=0)
    columns = max(1, int(_LEGEND_WIDTH / (_KEY_WIDTH + _LETTER_WIDTH * longest)))
    title, more = _title_height(figure), int(figure.layout.title.text.count("<br>"))
    legend = 12 + _LEGEND_LINE * -(-len(names) // columns)
    height = figure.layout.height + title
    # Plotly puts the first line of a title at y and the others below it, so y moves up by their height.
    figure.update_layout(height=height, margin={"t": title + legend}, title={"y": 1 - (12 + 18 * more) / height})
    return figure


def value_axis(title: str, **details: Any) -> dict[str, Any]:
    """A numeric axis; the title holds the unit in [brackets]."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": "#888888",
        "showline": True,
        "ticks": "outside",
        "tickcolor": "#888888",
        "fixedrange": True,
    } | details


def cell_axis(title: str, names: Sequence[str], **details: Any) -> dict[str, Any]:
    """An axis of buckets, one unit each: bucket k lies from k - 1/2 to k + 1/2."""
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 13}},
        "automargin": True,
        "showgrid": False,
        "zeroline": False,
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "range": [-0.5, len(names) - 0.5],
        "fixedrange": True,
    } | details


def finding_of(figure: Figure) -> str:
    """The title of a figure as plain text, in one line."""
    return html.unescape(str(figure.layout.title.text).replace("<br>", " "))


def _title_height(figure: Figure) -> int:
    return 16 + _TITLE_LINE * (1 + int(figure.layout.title.text.count("<br>")))


def untitled(figure: Figure) -> Figure:
    """The same figure for a page that shows the title as its own heading."""
    return figure.with_layout(title=None, margin={"t": 12}, height=figure.layout.height - _title_height(figure))


def short_amount(amount: float) -> str:
    """An amount for cells and axes.

    >>> short_amount(0.0943), short_amount(1234.5), short_amount(12.345)
    ('0.094', '1,234', '12.35')
    """
    if amount >= 1000:
        return f"{amount:,.0f}"
    return f"{amount:,.2f}" if amount >= 1 else significant(amount, 2)


def percent(fraction: float) -> str:
    """A fraction in percent, with one more digit if it is small.

    >>> percent(0.1234), percent(0.0042), percent(1.5)
    ('12%', '0.4%', '150%')
    """
    # A nonzero fraction is never shown as 0 %, nor less than 1 as 100 %; 1e-9 allows for rounding error in sums of
    # shares.
    if 0 < fraction < LEAST_SHOWN:
        return "<0.1%"
    if 1 - LEAST_SHOWN <= fraction < 1 - 1e-9:
        return ">99.9%"
    is_fine = LEAST_SHOWN <= abs(fraction) < 0.0995 or 0.995 <= fraction < 1 - LEAST_SHOWN
    return f"{fraction:.1%}" if is_fine else f"{fraction:.0%}"


def mark_own(figure: Figure, at: float) -> None:
    """A dotted line at the service's own value on the horizontal axis."""
    figure.add_vline(x=at, line={"color": "#777777", "width": 1, "dash": "dot"})
    figure.add_annotation(
        x=at,
        y=1,
        yref="paper",
        text="this service",
        showarrow=False,
        xanchor="right",
        yanchor="top",
        textangle=-90,
        font={"size": 11, "color": "#555555"},
    )
