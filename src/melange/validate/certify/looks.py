"""How much wider an interval must be for a proof, given all proofs that were looked at before.

Of many proofs one may succeed by chance. So each further proof of a mix needs a wider interval, up to the fourth
(Bonferroni's correction): of four independent proofs together at most one in forty is wrong.

Fleets of one type are ordered: fewer instances hold less. A wrong answer among them needs a wrong proof of the largest
fleet that misses, however many smaller ones are looked at (a fixed sequence of tests, Maurer, Hothorn and Lehmacher
1995). So only looks at the same fleet count, and the same runs certify a type as if it were the only type on offer.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from melange.plan.plan import Plan

# Chance that the lower end of one 95 % interval is too high, and the most proofs that add to it: plans that differ by
# one instance in a hundred succeed or fail together. With more, targets near the reachable share are not proven. Chosen
# by judgment.
_DOUBT, _MOST_COUNTED = 0.025, 4
_quantile = NormalDist().inv_cdf


@dataclass(slots=True)
class Looks:
    """Looks at proofs so far, grouped by what they count for.

    Parameters
    ----------
    seen
        Looks by fleet of one type; looks at mixes are all under no fleet.
    """

    seen: Counter[bytes] = field(default_factory=Counter)

    def add(self, plan: Plan) -> None:
        """Count one more look at a proof of a plan."""
        self.seen[_fleet_of(plan)] += 1

    def wider(self, plan: Plan) -> float:
        """Factor on the part of its interval by which a plan must be above the target, at least 1."""
        counted = min(max(self.seen[_fleet_of(plan)], 1), _MOST_COUNTED)
        return _quantile(1 - _DOUBT / counted) / _quantile(1 - _DOUBT)


def _fleet_of(plan: Plan) -> bytes:
    return plan.instances.tobytes() if np.count_nonzero(plan.instances) == 1 else b""
