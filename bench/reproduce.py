"""Repeat the paper's evaluation, and write docs/reproduction.md, which compares our plans with the published ones.

    python bench/reproduce.py [DATA] [--page docs/reproduction.md]

DATA is a folder with the published figures (``paper/arena_120ms_allocations.csv``,
``paper/figure3b_a10g_vs_a100.csv``) and the saturation rates of the authors' draft
(``measured/saturation_llama2_7b_vllm027.csv``). If they are missing, our own plans are printed, and the page is
unchanged.
"""

from __future__ import annotations

import argparse
import time
from datetime import date
from pathlib import Path

from reproduction.evaluate import Result
from reproduction.page import page
from reproduction.published import missing, read_published
from reproduction.study import bars_of, plan_all, study
from reproduction.text import SHORT_NAME, fleet_of

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reproduction.md"


def main() -> None:
    """Plan, compare, write the page, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    began = time.monotonic()

    def say(words: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {words}", flush=True)

    results = plan_all(say)
    if absent := missing(arguments.data):
        print_plans(results)
        print(f"not compared, and {arguments.page.name} left as it is: {arguments.data} has no {', '.join(absent)}")
        return
    published = read_published(arguments.data)
    found = study(published, results, say)
    arguments.page.write_text(page(found, published, date.today()), encoding="utf-8")
    print()
    for words, value, met in bars_of(found, published):
        print(f"{'met    ' if met else 'not met'}  {words}: {value}")
    print(f"\n{arguments.page}: written in {time.monotonic() - began:.0f} s")


def print_plans(results: list[Result]) -> None:
    """Print our mixes and their savings, one line per rate."""
    for result in results:
        low, high = result.savings_pct
        print(f"\n{result.case.words}, {result.limit_ms} ms: saves {low:.0f}-{high:.0f} %")
        for answer in result.answers:
            alone = ", ".join(f"{count} {SHORT_NAME[name]}" for name, count in answer.count.items())
            mix = f"{answer.cost_per_h:7.2f} USD/h  {fleet_of(answer.fleet)}"
            print(f"  {answer.rate:2} requests/s  {mix}  (alone: {alone})")


if __name__ == "__main__":
    main()
