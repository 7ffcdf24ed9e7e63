"""The program against stored text, option by option.

``python tests/plan/test_formulation.py NAME`` writes the stored text of an option: read it before it is kept.
"""

from __future__ import annotations

import sys
from pathlib import Path

import highspy
import pytest
from plan_cases import authors, offer, problem_of, profile, workload

from melange.plan.milp.formulation import formulate
from melange.plan.milp.lp_text import to_lp
from melange.plan.options import Options

GOLDEN = Path(__file__).parent / "golden"

OPTIONS = {
    "plain": {},
    "headroom": {"headroom": 0.1},
    "slices": {"slices": 8},
    "max_accelerators": {"max_accelerators": {"A10G": 3}},
    "min_replicas": {"min_replicas": 2},
    "min_total_replicas": {"min_total_replicas": 7},
    "spare_replicas": {"spare_replicas": 1},
    "max_types": {"max_types": 1},
    "require": {"require": ("A10G",)},
    "budget": {"budget_per_h": 3.67},
    "max_instances": {"max_instances": {"A100-80GB": 1}},
}

# What each of these programs costs (under the budget: less the share that is served).
COSTS = {
    "plain": 4.68, "headroom": 5.69, "slices": 5.69, "max_accelerators": 4.68, "min_replicas": 7.34,
    "min_total_replicas": 9.73, "spare_replicas": 9.36, "max_types": 7.34, "require": 4.68, "budget": -8 / 9,
    "max_instances": 4.68,
}  # fmt: skip


def program(name):
    """The program of the authors' example under an option, as text."""
    return to_lp(formulate(problem_of(*authors(), Options(**{"headroom": 0.0, **OPTIONS[name]}))))


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_gives_its_stored_program(name):
    """The text of the program is the stored one; a change of the formulation must change the store."""
    assert program(name) == (GOLDEN / f"{name}.lp").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", OPTIONS)
def test_stored_programs_cost_what_they_should(name):
    """HiGHS reads the stored text by itself and finds the known cost."""
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    assert solver.readModel(str(GOLDEN / f"{name}.lp")) == highspy.HighsStatus.kOk
    solver.run()
    assert solver.getInfo().objective_function_value == pytest.approx(COSTS[name], abs=1e-6)


def test_a_loss_of_the_whole_fleet_is_a_block_of_its_own():
    """Each scenario has shares of its own, and a binary that says whether any replica of the lost type is left."""
    problem = problem_of(*authors(), Options(headroom=0.0, spare_total_replicas=1))
    text = to_lp(formulate(problem, scenarios=(0, 1)))
    assert text == (GOLDEN / "spare_total_replicas.lp").read_text(encoding="utf-8")


def test_a_pool_is_shared_by_the_types_that_draw_on_it():
    """Two types of one accelerator share a row, each with the accelerators of its instance."""
    offers = [offer("H100", 4.0), offer("H100x8", 30.0, 8)]
    pool = [offers[0], offer("H100x8", 30.0, 8)]
    pool[1] = type(pool[1])(**{**_fields(pool[1]), "accelerator": "H100"})
    problem = problem_of(workload([[5.0]]), profile(pool, [[[1.0]], [[8.0]]]), Options(max_accelerators={"H100": 16}))
    assert " limit_0: + 1 n_0 + 8 n_1 <= 16" in to_lp(formulate(problem))


def test_thin_traffic_still_needs_an_instance():
    """A load below the solver's tolerance gets a row that ties its share to an instance."""
    problem = problem_of(workload([[1e-9]]), profile([offer("L4", 0.7)], [[[1.0]]]), Options(headroom=0.0))
    assert " tiny_load_0: - 1 n_0 + 1 f_0_0 <= 0" in to_lp(formulate(problem))


def _fields(item):
    return {name: getattr(item, name) for name in type(item).__slots__}


if __name__ == "__main__":
    for given in sys.argv[1:]:
        (GOLDEN / f"{given}.lp").write_text(program(given), encoding="utf-8")
