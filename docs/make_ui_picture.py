"""Write docs/ui.png: the page of ``melange ui examples/chat.yaml`` with a certified answer beside a pinned plan.

Needs Debian's chromium and playwright (make test-ui has both). ``--folder`` also writes other views of the page: dark,
on a telephone, each tab, and a question without an answer.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
STATE = "rate=20&pin=rate%3D32&auto=0"
TABS = ("curves", "what-if", "pinned", "export")
DESK, TELEPHONE = {"width": 1100, "height": 720}, {"width": 420, "height": 900}
MOST_MS = 300_000


@contextmanager
def running_page() -> Iterator[str]:
    """The address of the page of the example."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["ui", "examples/chat.yaml", f"--port={port}"]
    process = subprocess.Popen([sys.executable, "-c", "from melange.cli import main; main()", *words], cwd=HERE.parent)
    address = f"http://127.0.0.1:{port}/"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}static/ui.css").close()
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


def opened(browser: Any, address: str, query: str, *, is_certified: bool = False, **options: Any) -> Any:
    """The page at a state."""
    tab = browser.new_page(**options)
    tab.set_default_timeout(MOST_MS)
    tab.goto(f"{address}?{query}")
    tab.wait_for_selector("body[data-ready='1']")
    if is_certified and tab.locator("#certify").is_enabled():
        tab.click("#certify")
        tab.wait_for_selector("#answer[data-kind='certified']")
    return tab


def other_views(browser: Any, address: str, folder: Path) -> None:
    """Views that no document has."""
    for name, options in (
        ("dark", {"viewport": DESK, "color_scheme": "dark"}),
        ("telephone", {"viewport": TELEPHONE}),
        ("telephone-dark", {"viewport": TELEPHONE, "color_scheme": "dark"}),
    ):
        tab = opened(browser, address, STATE, is_certified=True, **options)
        tab.screenshot(path=folder / f"{name}.png", full_page=True)
        tab.close()
    for name, query in (("no-plan", "ttft_ms=2&auto=0"), ("closed", "rate=400&spare_replicas=1&auto=0&pin=rate%3D32")):
        for place, size in (("", DESK), ("-telephone", TELEPHONE)):
            tab = opened(browser, address, query, viewport=size)
            tab.screenshot(path=folder / f"{name}{place}.png")
            tab.close()
    for name in TABS:
        for place, size in (("", DESK), ("-telephone", TELEPHONE)):
            tab = opened(browser, address, STATE, viewport=size)
            if tab.locator(f"#tab-{name}").count():
                tab.click(f"#tab-{name}")
                tab.wait_for_timeout(6000)
                tab.locator(f"#panel-{name}").screenshot(path=folder / f"tab-{name}{place}.png")
            tab.close()


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with running_page() as address, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else [])
        tab = opened(browser, address, STATE, is_certified=True, viewport=DESK)
        tab.screenshot(path=HERE / "ui.png")
        tab.close()
        if given.folder:
            given.folder.mkdir(parents=True, exist_ok=True)
            other_views(browser, address, given.folder)
        browser.close()


if __name__ == "__main__":
    main()
