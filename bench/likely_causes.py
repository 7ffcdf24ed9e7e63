"""How often prefix caching or speculative decoding is reported as a likely cause for published points.

    python bench/likely_causes.py MEASURED

MEASURED is a folder with the files that bench/measured.py reads. If a point of a replica type would need more
arithmetic than the accelerator can do, the points of that type are known to come from a prefix cache; for all others,
the prompts are assumed to be processed in full.
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
    """Number of points of an era, and the number of points for which each cause is named."""
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
    """Print the counts by era and in total."""
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
