"""Reports in Chromium: what a reader sees of a page that is one file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from melange.present.pages import html

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = Path("/usr/bin/chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason="Debian's chromium is not installed")
# The last table of a schedule's page where requests may wait.
HEADER = "Window, Load, Met the SLO, Requests, Alone, May wait, Of those met, Starts, Drains, What was simulated"
ROW = "Fri 2026-03-06 15:30, 0.71, 99.99%, 56960, 99.998%, 11185, 100%, 0, 4, the most drains: 2700 s"


def test_headers_wrap_before_a_table_is_wider_than_the_page(tmp_path: Path) -> None:
    """Ten columns fit at 1,000 px, and their numbers stay on one line."""
    table = html.folding_table(HEADER.split(", "), [ROW.split(", ")], caption="Windows")
    page = tmp_path / "page.html"
    page.write_text(html.document("A report", [html.section("Simulated", table)], []))
    with playwright.sync_playwright() as running:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        tab.goto(page.as_uri())
        width, room = tab.evaluate("(d => [d.scrollWidth, d.clientWidth])(document.querySelector('.scroll'))")
        lines = tab.evaluate("[...document.querySelectorAll('td')].map(one => one.getClientRects()[0].height)")
        browser.close()
    assert width <= room
    assert len(set(lines)) == 1
    assert max(lines) < 40
