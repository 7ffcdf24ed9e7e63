"""Shows how often published points are told to come from a prefix cache or from speculative decoding.

    python bench/likely_causes.py MEASURED

MEASURED is a folder with the files that bench/measured.py reads. Points of replica types of which one would take more
arithmetic than the accelerator has came from a prefix cache; all others are taken to have read their prompts.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from curves import hardware_of
from measured import Point, measurement_of, read_points
from melange.catalog.bundled import accelerators
from melange.profile.comparison import samples_of
from melange.replica.era import find_era
from melange.replica.hardware import replicas_of

ERAS = ("vllm", "sglang", "trtllm")
WORDS = {"prefix caching": "prefix caching is a likely cause", "speculation": "speculative decoding is a likely cause"}


def named(points: Iterable[Point], era_name: str) -> Counter[str]:
    """How many points of an era there are, and how many each cause is named of."""
    era = find_era(era_name).with_settings(max_context=10**9)
    counts: Counter[str] = Counter(points=0, **dict.fromkeys(WORDS, 0))
    for point in points:
        if point.is_saturated:
            continue
        replicas = replicas_of(point.model, [hardware_of(point)], accelerators(), era)
        measured = replace(measurement_of(point), latency_s={"mean": point.latency_s})
        told = " ".join(caution.message for caution in samples_of(replicas, point.model, [measured])[1])
        counts["points"] += 1
        counts.update(cause for cause, words in WORDS.items() if words in told)
    return counts


def main(folder: Path) -> None:
    """Print the counts, era by era and in all."""
    for kind in ("read in full", "cached"):
        total: Counter[str] = Counter()
        for era in ERAS:
            found = read_points(folder, find_era(era).name)
            counts = named(found.cached if kind == "cached" else found.points, era)
            total.update(counts)
            print(f"{era}, prompts {kind}: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        print(f"all, prompts {kind}: " + ", ".join(f"{count} {name}" for name, count in total.items()))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
