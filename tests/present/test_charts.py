"""What the figures hold: the numbers, units on axes, one color a type, text that stays text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny import HOSTILE, profile_of, replica_type

from melange.plan.options import Options
from melange.plan.solve import solve
from melange.plan.sweeps import explore
from melange.present.figures.by_limit import figure_cost_by_limit, figure_request_cost, figure_winners_by_limit
from melange.present.figures.by_rate import figure_cost_by_rate, figure_savings
from melange.present.figures.by_size import figure_pair, figure_winners
from melange.present.figures.by_type import cost_interval, figure_intervals, intervals, intervals_finding
from melange.present.figures.routing_grid import figure_routes
from melange.present.figures.theme import finding_of, percent
from melange.present.pages.explore_page import explore_pictures
from melange.present.study import Study
from melange.profile.profile import Profile
from melange.workload.workload import Buckets, Workload


def test_winners_carry_letter_and_margin(study: Study) -> None:
    """A cell says which type is cheapest and by how much."""
    figure = figure_winners(study.profile, study.workload, study.found, study.legend)
    letter = {entry.label: entry.letter for entry in study.legend.entries}
    small, large = letter["small"], letter["large"]
    assert list(figure.data[1].text) == [f"{small} +100%", f"{large} +25%", f"{large} +25%", f"{large} only"]
    framed = [(shape.x0, shape.y0) for shape in figure.layout.shapes]
    assert framed == [(-0.47, -0.45), (0.53, -0.45), (-0.47, 0.55)]


def test_the_finding_weighs_by_traffic(study: Study) -> None:
    """Small wins one size of four, and with it 15 of 30 requests a second."""
    figure = figure_winners(study.profile, study.workload, study.found, study.legend)
    assert "small is the cheapest type for 50% of the requests" in finding_of(figure)


def test_a_pair_shows_who_is_ahead(study: Study) -> None:
    """The sign becomes a letter."""
    a, b = sorted(study.legend.entries[:2], key=lambda entry: entry.r)
    figure = figure_pair(study.profile, study.workload, a, b)
    assert list(figure.data[1].text) == [
        f"{a.letter} +100%", f"{b.letter} +25%", f"{b.letter} +25%", f"{b.letter} only",
    ]  # fmt: skip


def test_bars_of_the_routes_add_up_to_the_traffic(study: Study) -> None:
    """Lengths are shares of requests, the longest bucket at 0.92 of a cell."""
    figure = figure_routes(study.plan, study.legend)
    total = sum(np.sum(trace.x) for trace in figure.data if trace.type == "bar")
    assert total == pytest.approx(0.92 * 30 / 15)


def test_every_type_has_one_color_on_all_pictures(study: Study) -> None:
    """Lines, bars and keys of a type share its color."""
    colors: dict[str, set[str]] = {}
    for picture in explore_pictures(study):
        for variant in picture.variants:
            for trace in variant.figure.data:
                for entry in study.legend.entries:
                    if trace.name and trace.name.endswith(entry.label):
                        line = trace.line.color if "lines" in str(getattr(trace, "mode", "")) else None
                        colors.setdefault(entry.label, set()).add(line or trace.marker.color)
    assert colors == {entry.label: {entry.color} for entry in study.legend.entries}


def test_all_axes_have_units(study: Study) -> None:
    """A name and a unit in [brackets] on both axes of every figure."""
    for picture in explore_pictures(study):
        for variant in picture.variants:
            for axis in (variant.figure.layout.xaxis, variant.figure.layout.yaxis):
                assert "[" in axis.title.text, (picture.name, axis.title.text)


def test_curves_pass_through_their_plans(study: Study) -> None:
    """Cost by rate begins at 0, holds the service's own plan, and ends at twice its rate."""
    points = study.exploration.by_rate
    figure = figure_cost_by_rate(points, study.legend, study.plan)
    mix = figure.data[-1]
    cost_by_rate = dict(zip(mix.x, mix.y, strict=True))
    assert (cost_by_rate[0.0], cost_by_rate[30.0]) == (0.0, study.plan.cost_per_h)
    assert max(cost_by_rate) == pytest.approx(60.0)
    bars = figure_savings([point for point in points if point.at == 30.0], study.legend)
    large = study.plan.single_type["large"].cost_per_h
    assert large is not None
    assert bars.data[-1].y[0] == pytest.approx(100 * (1 - study.plan.cost_per_h / large))


def test_limits_are_drawn_in_milliseconds(study: Study) -> None:
    """The service's own limit of 0.1 s stands at 100 ms."""
    (sweep,) = study.exploration.by_limit
    mix = figure_cost_by_limit(sweep, study.legend, study.plan).data[-1]
    assert dict(zip(mix.x, mix.y, strict=True))[100.0] == study.plan.cost_per_h
    cost = figure_request_cost(sweep, study.legend, study.workload, (0, 0)).data
    small = next(trace for trace in cost if trace.name.endswith("small"))
    assert dict(zip(small.x, small.y, strict=True))[100.0] == pytest.approx(0.05)
    grid = figure_winners_by_limit(sweep, study.legend, study.workload, [(0, 0)])
    assert len(grid.data[1].text) == len(sweep.points)


def test_intervals_turn_rates_into_costs(study: Study) -> None:
    """Small at 10 requests/s costs 0.05 USD per 1,000; at 5 to 20 requests/s 0.1 to 0.025, at 0 it cannot."""
    profile = study.profile
    low, high = profile.max_request_rate / 2, profile.max_request_rate * 2
    low[1] = 0.0
    unsure = replace(profile, low=low, high=high)
    assert cost_interval(unsure, 0, (0, 0)) == pytest.approx((0.025, 0.05, 0.1))
    assert cost_interval(unsure, 1, (0, 0)) == pytest.approx((0.05, 0.1, np.inf))
    figure = figure_intervals(unsure, study.workload, study.legend, (0, 0))
    assert "small is cheapest at 0.05 USD per 1,000 (0.025 to 0.1); the other interval overlaps" in finding_of(figure)
    sure = intervals_finding(intervals(profile, study.legend, (0, 0)), study.workload, (0, 0))
    assert sure.endswith("no other interval overlaps")


def test_single_types_that_the_settings_exclude_are_not_said_to_be_unable(workload: Workload, profile: Profile) -> None:
    """Each type could serve the traffic alone, but both are required."""
    plan = solve(workload, profile, Options(headroom=0.0, require=("small", "large")))
    study = Study(exploration=explore(plan))
    points = study.exploration.by_rate
    for figure in (figure_cost_by_rate(points, study.legend, plan), figure_savings(points, study.legend)):
        assert finding_of(figure).startswith("Under the settings of the plan, no single type can serve this traffic")


def test_names_are_never_markup(buckets: Buckets, workload: Workload) -> None:
    """A hostile name reaches Plotly escaped, in every text of every figure."""
    types = [replica_type(HOSTILE, 1.0), replica_type("b", 1.5)]
    profile = profile_of(types, [[[10, 2], [2, 2]], [[20, 10], [10, 5]]], buckets)
    study = Study(exploration=explore(solve(workload, profile, Options(headroom=0.0))))
    for picture in explore_pictures(study):
        for variant in picture.variants:
            assert "<script" not in variant.figure.to_json().replace("\\u003c", "<"), picture.name


def test_percentages_read_well() -> None:
    """Nothing is 0 %, all is 100 %, and what is next to either has a digit more."""
    values = (0.0, 0.0002, 0.004, 0.2, 0.997, 0.9997, 1.0, 1.5)
    assert [percent(value) for value in values] == ["0%", "<0.1%", "0.4%", "20%", "99.7%", ">99.9%", "100%", "150%"]
