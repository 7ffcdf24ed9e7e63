"""Letters, colors and short names."""

from __future__ import annotations

import numpy as np
from tiny import profile_of, replica_type

from melange.catalog.offer import Offer
from melange.plan.options import Options
from melange.plan.solve import solve
from melange.present.figures.efficiency import request_cost, winners
from melange.present.figures.legend import COLORS, OTHER_COLOR, color_of, ink_on, legend_of, short_names
from melange.present.study import Study
from melange.present.terminal.plan_tables import letters
from melange.present.terminal.plan_words import used_types
from melange.profile.profile import ReplicaType
from melange.workload.workload import Buckets, Workload


def test_used_types_come_first_with_the_letters_of_the_tables(study: Study) -> None:
    """The same letter means the same type in the terminal and in the pictures."""
    count = len(used_types(study.plan))
    entries = study.legend.entries[:count]
    assert [(entry.letter, entry.r) for entry in entries] == list(
        zip(letters(study.plan), used_types(study.plan), strict=True)
    )


def test_no_more_types_than_colors(buckets: Buckets, workload: Workload) -> None:
    """Those beyond are gray."""
    types = [replica_type(f"type {k}", 1.0 + k / 100) for k in range(12)]
    profile = profile_of(types, np.full((12, 2, 2), 100.0), buckets)
    plan = solve(workload, profile, Options(headroom=0.0))
    legend = legend_of(plan, workload, list(range(12)), winners(request_cost(profile), list(range(12))))
    assert len(legend.entries) == len(COLORS)
    assert len({entry.color for entry in legend.entries}) == len(COLORS)
    assert color_of(legend, 11) == OTHER_COLOR


def test_names_leave_out_what_all_have_in_common() -> None:
    """Provider and region once, and the accelerator where the name does not say it."""
    offers = [
        Offer(provider="aws", region="us-east-1", instance_type=kind, accelerator=gpu, accelerators=n, cost_per_h=1.0)
        for kind, gpu, n in (("g6.xlarge", "L4", 1), ("g5.12xlarge", "A10G", 4))
    ]
    types = [ReplicaType(name=offer.name, offer=offer) for offer in offers]
    assert short_names(types, [0, 1]) == (["g6.xlarge (L4)", "g5.12xlarge (4 x A10G)"], "aws/us-east-1")


def test_ink_is_readable_on_every_color() -> None:
    """A contrast of at least 4.5 to 1, as WCAG asks for."""

    def luminance(color: str) -> float:
        channels = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for color in (*COLORS, OTHER_COLOR):
        pair = sorted((luminance(color), luminance(ink_on(color))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, color
