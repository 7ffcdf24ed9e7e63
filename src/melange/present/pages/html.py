"""One self-contained HTML page: sections, tables, pictures. Nothing is fetched, and every text is escaped.

Without JavaScript, the text and all tables remain, including the numbers of each picture.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import TYPE_CHECKING

from melange.present.figures.theme import untitled
from melange.present.pages.packing import library, packed
from melange.units import count_of

if TYPE_CHECKING:
    from melange.present.figures.picture import Picture

# Only the page's own scripts and styles; no network access.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'"
)
# Longest cell that stays on one line [characters]. Longer cells wrap, because reasons would make a table much wider
# than the page; a smaller limit would break figures and dates. Chosen by judgment.
_SHORT_CELL = 24
# Rows of a table before the rest is folded. With more, the next section is below the screen; the rest is one click
# away, even without JavaScript. Chosen by judgment.
_LONG_TABLE = 12


def escape(text: object) -> str:
    """Text escaped for HTML.

    >>> escape('<b onclick="x">')
    '&lt;b onclick=&quot;x&quot;&gt;'
    """
    return html.escape(str(text), quote=True)


def document(title: str, parts: Iterable[str], pictures: Sequence[Picture]) -> str:
    """The whole document.

    Parameters
    ----------
    title
        Title of the browser tab, plain text.
    parts
        HTML of the body, in order.
    pictures
        All pictures in the parts.
    """
    style = (resources.files("melange.present") / "page.css").read_text(encoding="utf-8")
    script = (resources.files("melange.present") / "page.js").read_text(encoding="utf-8")
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">',
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        *parts,
        f'<script type="text/plain" id="plotly">{library()}</script>' if pictures else "",
        f'<script type="text/plain" id="figures">{packed(figures(pictures))}</script>' if pictures else "",
        f"<script>{script}</script>" if pictures else "",
        "</body>",
        "</html>",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def figures(pictures: Sequence[Picture]) -> str:
    """All figures as JSON: for each picture's name, a list of views with their findings."""
    content = {
        picture.name: [
            {
                "figure": untitled(variant.figure).to_dict(),
                "finding": variant.finding,
            }
            for variant in picture.variants
        ]
        for picture in pictures
    }
    return json.dumps(content)


def section(heading: str, *parts: str) -> str:
    """A part of the page under a heading."""
    return f"<section><h2>{escape(heading)}</h2>{''.join(parts)}</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f"<p{f' class={kind}' if kind else ''}>{escape(text)}</p>"


def bullets(items: Iterable[str], kind: str = "") -> str:
    """A list of plain texts."""
    lines = "".join(f"<li>{escape(item)}</li>" for item in items)
    return f"<ul{f' class={kind}' if kind else ''}>{lines}</ul>" if lines else ""


def folding_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, chips: Sequence[str] = ()
) -> str:
    """A table of plain texts; a long table shows its first rows and folds the rest.

    Parameters
    ----------
    header, rows
        The first cell of a row names the row.
    caption
        What the table holds, for screen readers.
    chips
        A color per row, shown before its name; none if empty.
    """
    head = f"<thead><tr>{''.join(f'<th scope=col>{escape(cell)}</th>' for cell in header)}</tr></thead>"
    body = [_row(row, chips[k] if k < len(chips) else "") for k, row in enumerate(rows)]
    label = f"<caption>{escape(caption)}</caption>"
    shown = _scrolling(f"<table>{label}{head}<tbody>{''.join(body[:_LONG_TABLE])}</tbody></table>")
    if len(body) <= _LONG_TABLE:
        return shown
    rest = _scrolling(f"<table>{head}<tbody>{''.join(body[_LONG_TABLE:])}</tbody></table>")
    return f"{shown}<details><summary>{count_of(len(body) - _LONG_TABLE, 'more row')}</summary>{rest}</details>"


def _row(row: Sequence[str], chip: str) -> str:
    mark = f'<span class="chip" style="background:{escape(chip)}"></span>' if chip else ""
    cells = [f"<th scope=row>{mark}{escape(row[0])}</th>"]
    cells += [f"<td{_kind(cell)}>{escape(cell)}</td>" for cell in row[1:]]
    return f"<tr>{''.join(cells)}</tr>"


def _kind(cell: str) -> str:
    """Style of a cell: numbers right-aligned, short words on one line."""
    if _is_number(cell):
        return " class=number"
    return " class=short" if len(cell) <= _SHORT_CELL else ""


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.strip("+-%x$").replace(",", "").replace(".", "", 1).isdigit()


def _scrolling(content: str) -> str:
    return f'<div class="scroll" tabindex="0">{content}</div>'


def figure(picture: Picture) -> str:
    """A picture: its finding as a heading, the drawing, a caption, and its numbers."""
    name, finding = escape(picture.name), picture.variants[0].finding
    height = max(untitled(variant.figure).layout.height for variant in picture.variants)
    width = f"min-width:{picture.min_width}px;" if picture.min_width else ""
    parts = [
        f'<figure id="{name}"><p class="about">{escape(picture.about)}</p>',
        f'<h3 id="{name}-finding" aria-live="polite">{escape(finding)}</h3>',
        _choice(picture) if len(picture.variants) > 1 else "",
        f'<div class="scroll" tabindex="0"><div class="plot" id="{name}-plot" role="img" '
        f'aria-labelledby="{name}-finding {name}-caption" style="height:{height}px;{width}"></div></div>',
        "<noscript><p>This picture needs JavaScript; the numbers below do not.</p></noscript>",
        f'<figcaption id="{name}-caption">{escape(picture.caption)}</figcaption>',
    ]
    if picture.rows:
        numbers = _scrolling(_plain_table(picture.header, picture.rows))
        parts.append(f"<details><summary>The numbers</summary>{numbers}</details>")
    return "".join(parts) + "</figure>"


def _choice(picture: Picture) -> str:
    options = "".join(f'<option value="{k}">{escape(v.label)}</option>' for k, v in enumerate(picture.variants))
    name = escape(picture.name)
    return (
        f'<p class="choice"><label for="{name}-choice">{escape(picture.choice)}</label> '
        f'<select id="{name}-choice" data-picture="{name}" autocomplete="off">{options}</select></p>'
    )


def _plain_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in header)
    body = "".join(_row(row, "") for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
