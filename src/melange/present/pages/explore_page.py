"""The page that explores a service: the paper's views, for its own traffic and offers."""

from __future__ import annotations

from melange.present.figures.picture import Picture
from melange.present.figures.pictures import (
    picture_of_cost_by_limit,
    picture_of_intervals,
    picture_of_pairs,
    picture_of_routes,
    picture_of_winners,
    pictures_by_limit,
    pictures_by_rate,
)
from melange.present.pages import html as html
from melange.present.pages.plan_page import assumptions_section, header, no_sweeps, types_table, warnings_section
from melange.present.study import Study


def explore_pictures(study: Study) -> list[Picture]:
    """All pictures, in the order of the page."""
    by_size = [
        picture_of_winners(study),
        picture_of_intervals(study),
        picture_of_pairs(study),
        picture_of_routes(study),
    ]
    sweeps = study.exploration.by_limit
    by_limit = [picture_of_cost_by_limit(study, sweeps), *pictures_by_limit(study, sweeps[0])] if sweeps else []
    by_rate = pictures_by_rate(study, study.exploration.by_rate)
    return [picture for picture in (*by_size, *by_rate, *by_limit) if picture is not None]


def explore_page(study: Study, pictures: list[Picture], name: str) -> str:
    """The page as HTML.

    Parameters
    ----------
    study
        The exploration to show.
    pictures
        The result of :func:`explore_pictures`.
    name
        File name of the service.
    """
    drawn = {picture.name: html.figure(picture) for picture in pictures}

    def of(*names: str) -> str:
        return "".join(drawn[one] for one in names if one in drawn)

    has_limits = "cost-by-slo" in drawn
    parts = [
        header(study, f"Melange: {name} by size, rate and SLO"),
        "<main>",
        html.section("Replica types shown", types_table(study)),
        html.section("By request size", of("winners-by-size", "intervals", "two-types", "routes")),
        html.section("By request rate", of("cost-by-rate", "savings")),
        html.section(
            "By SLO",
            of("cost-by-slo", "winners-by-slo", "request-cost-by-slo") if has_limits else no_sweeps(study),
        ),
        warnings_section(study.plan),
        assumptions_section(study),
        "</main>",
    ]
    return html.document(f"Melange: {name}", parts, pictures)
