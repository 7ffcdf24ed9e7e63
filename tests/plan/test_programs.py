"""Random programs with every option, planned and judged independently; ``make programs`` tries 20,000 of them."""

from __future__ import annotations

import pytest
from judging import finding, incumbent_finding

from programs import draw

pytestmark = pytest.mark.heavy


@pytest.mark.parametrize("first", range(0, 240, 20))
def test_no_plan_breaks_a_limit_or_is_proven_and_beaten(first: int) -> None:
    """Against a program of its own, and in NumPy."""
    found = {seed: finding(draw(seed)) for seed in range(first, first + 20)}
    assert not {seed: what for seed, what in found.items() if what}


# Found by it in former releases: a loss with slices, thin traffic that no instance carried, a last replica lost.
@pytest.mark.parametrize(
    "seed",
    [
        *(1_000_027, 1_000_177, 1_000_181, 2_000_234, 2_001_132, 3_005_315, 20_261_126_019_229, 20_261_126_019_921),
        *(4_711_126_006_365, 4_711_126_006_946, 4_711_126_014_211),
    ],
)
def test_programs_that_failed_stay_right(seed: int) -> None:
    """Each ended in an error of the solver, or was proven and beaten."""
    assert not finding(draw(seed))


@pytest.mark.parametrize("first", range(0, 40, 10))
def test_no_fleet_as_cheap_changes_less(first: int) -> None:
    """Beside a fleet in force, with every option but a budget, under which traffic is what is sought."""
    programs = {seed: draw(seed) for seed in range(first, first + 10)}
    tried = {seed: one for seed, one in programs.items() if one.options.budget_per_h is None}
    found = {seed: incumbent_finding(one, seed) for seed, one in tried.items()}
    assert not {seed: what for seed, what in found.items() if what}
