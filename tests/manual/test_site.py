"""The site builds without warnings, has every page in its navigation, no broken link, and nothing from elsewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from page_runs import ROOT

SITE = ROOT / "build" / "site"
# Elements that a browser loads by itself, and the attribute that says from where.
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links to, loads and can be linked by."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Sort an element's addresses."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in LOADED and LOADED[tag] in values and values.get("rel") != "canonical":
            self.loads.append(values[LOADED[tag]])


@pytest.fixture(scope="module")
def pages() -> dict[Path, Page]:
    """The pages of a fresh build."""
    subprocess.run([sys.executable, "docs/make_site.py"], cwd=ROOT, check=True)
    return {path: Page(path.read_text()) for path in sorted(SITE.rglob("*.html"))}


def test_every_page_is_there_and_can_be_reached(pages: dict[Path, Page]) -> None:
    """From the start page, by its navigation."""
    found = {
        (SITE / unquote(urlsplit(link).path)).resolve() for link in pages[SITE / "index.html"].links if ":" not in link
    }
    sources = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert {SITE / path for path in sources} <= set(pages)
    assert set(pages) - {SITE / "404.html"} <= found


def test_links_lead_to_pages_and_headings_that_are_there(pages: dict[Path, Page]) -> None:
    """All links within the site, from every page."""
    broken, checked = [], 0
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            checked += 1
            if not target.exists() or (target in pages and unquote(parts.fragment) not in pages[target].anchors):
                broken.append(f"{path.relative_to(SITE)}: {link}")
    assert checked > 2000
    assert broken == []


def test_nothing_is_loaded_from_elsewhere(pages: dict[Path, Page]) -> None:
    """Fonts, scripts and styles come with the site."""
    elsewhere = {address for page in pages.values() for address in page.loads if urlsplit(address).netloc}
    styles = [path.read_text() for path in SITE.rglob("*.css")]
    elsewhere |= {address for style in styles for address in re.findall(r"url\([\"']?((?:https?:)?//[^)]+)\)", style)}
    assert elsewhere == set()


def test_the_python_reference_has_every_public_name(pages: dict[Path, Page]) -> None:
    """With a heading of its own."""
    import melange

    anchors = {anchor.rpartition(".")[2] for anchor in pages[SITE / "python.html"].anchors}
    assert set(melange.__all__) <= anchors
