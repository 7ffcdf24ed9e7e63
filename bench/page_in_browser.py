"""Time from the change of a control of ``melange ui`` to the answer on the screen, in a real browser.

There are random changes of a slider or a number, one at a time, and drags of a slider with an event every 16 ms, timed
from the last event. CPU is that of the server and its workers. Needs Debian's chromium and playwright (make test-ui
installs both).
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import sync_playwright

EXAMPLES = Path(__file__).parents[1] / "examples"
# A delay that users do not notice [ms].
GOAL_MS = 300
CHROMIUM = "/usr/bin/chromium"
# Services by name: a file and settings. They have 71, 57, 57 and 150 replica types.
SERVICES = {
    "chat, 71 types": ("chat.yaml", ()),
    "chat and code, 57 types": (
        "chat.yaml",
        ("workload.dataset={azure-conversation: 0.7, azure-code: 0.3}", "offers.providers=[aws, gcp]",
         "offers.regions=[us-east-1, us-central1]", "offers.gpus=[L4, A10G, L40S, A100-80GB, H100-80GB]"),
    ),
    "mixed, 57 types": ("mixed.yaml", ()),
    "chat, 150 types": ("chat.yaml", ("offers.regions=null",)),
}  # fmt: skip
# Waits for the answer that follows a change, and for the frame that shows it.
CHANGE = """([name, values]) => new Promise(done => {
  const slider = document.querySelector(`[data-for='${name}']`), field = document.getElementById(name);
  const one = slider || field;
  let began = 0, at = 0;
  const step = () => {
    began = performance.now();
    one.value = values[at++];
    one.dispatchEvent(new Event("input", { bubbles: true }));
    if (at < values.length) { setTimeout(step, 16); return; }
    const look = () => {
      if (document.body.dataset.ready !== "1") return;
      watch.disconnect();
      requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0));
    };
    const watch = new MutationObserver(look);
    watch.observe(document.body, { attributes: true });
  };
  step();
})"""


def cpu_s(root: int) -> float:
    """CPU time of a process and all its descendants [s]."""
    children: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(place.parent.name)
        children.setdefault(int(fields[1]), []).append(number)
        spent[number] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total, waiting = 0.0, [root]
    while waiting:
        one = waiting.pop()
        total += spent.get(one, 0.0)
        waiting += children.get(one, [])
    return total


def served(service: Path, settings: tuple[str, ...], folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A running page, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["ui", str(service), *(f"--set={one}" for one in settings), f"--port={port}"]
    process = subprocess.Popen([sys.executable, "-c", "from melange.cli import main; main()", *words], cwd=folder)
    address = f"http://127.0.0.1:{port}/"
    while True:
        try:
            urllib.request.urlopen(f"{address}static/ui.css").close()
            return process, address
        except urllib.error.URLError:
            time.sleep(0.1)


def drawn(draw: random.Random) -> tuple[str, int]:
    """A random control with a slider, and its new position."""
    name = draw.choices(["rate", "growth", "ttft_ms", "tpot_ms", "ntpot_ms", "headroom"], [6, 2, 2, 2, 1, 1])[0]
    return name, draw.randint(150, 850)


def measured(tab: Any, process: subprocess.Popen[bytes], count: int, *, is_drag: bool, seed: int) -> tuple[Any, Any]:
    """Times and CPU times of changes [ms]."""
    draw = random.Random(seed)
    times: list[float] = []
    cpus: list[float] = []
    named = set(tab.evaluate("Array.from(document.querySelectorAll('[data-for]'), one => one.dataset.for)"))
    while len(times) < count:
        name, value = drawn(draw)
        if name not in named:
            continue
        start = draw.randint(150, 850)
        values = [start + (value - start) * k // 12 for k in range(1, 13)] if is_drag else [value]
        before = cpu_s(process.pid)
        times.append(tab.evaluate(CHANGE, [name, values]))
        cpus.append(1000 * (cpu_s(process.pid) - before))
    return np.array(times), np.array(cpus)


def told(times: Any) -> str:
    """Text with the median, 95th percentile and maximum of some times [ms]."""
    median, most = np.quantile(times, (0.5, 0.95))
    late = int((times > GOAL_MS).sum())
    return f"median {median:.0f} ms, p95 {most:.0f} ms, max {times.max():.0f} ms, {late} above {GOAL_MS} ms"


def main() -> None:
    """Print median, 95th percentile and maximum for each service."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    with sync_playwright() as running, tempfile.TemporaryDirectory() as folder:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if os.getuid() == 0 else [])
        for label, (name, settings) in SERVICES.items():
            if given.only not in label:
                continue
            process, address = served(EXAMPLES / name, settings, Path(folder))
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.goto(f"{address}?auto=0")
            tab.wait_for_selector("body[data-ready='1']")
            time.sleep(3.0)  # until the curves of the open tab are drawn and both workers are warm
            for is_drag in (False, True):
                times, cpus = measured(tab, process, given.count, is_drag=is_drag, seed=given.seed)
                how = "drags, from the last event" if is_drag else "changes"
                print(f"{label}: {len(times)} {how}: {told(times)}; CPU {told(cpus)}", flush=True)
            tab.close()
            process.terminate()
            process.wait(60)
        browser.close()


if __name__ == "__main__":
    main()
