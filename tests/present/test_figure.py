"""Figures are plain dictionaries; Plotly for Python, which checks every property, takes each and adds nothing."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from melange.present.figures.figure import Figure
from melange.present.figures.picture import Picture
from melange.present.pages.explore_page import explore_pictures
from melange.present.pages.schedule_report import schedule_pictures
from melange.present.pages.validation_page import validation_pictures
from melange.present.study import Study
from melange.service.session import Session
from melange.validate.observe import report
from melange.validate.simulate import draw_for, simulate

EXAMPLES = Path(__file__).parents[2] / "examples"
POLICIES = ("plan-least-work", "random")


def decoded(value: Any) -> Any:
    """What Plotly packs as bytes, as lists."""
    if isinstance(value, dict):
        if "bdata" in value:
            found = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"]).tolist()
            return [None if one != one else one for one in found]
        return {key: decoded(one) for key, one in value.items()}
    return [decoded(one) for one in value] if isinstance(value, list) else value


def check(pictures: list[Picture]) -> None:
    """Plotly finds no unknown property and no value that it would change."""
    for picture in pictures:
        for variant in picture.variants:
            ours = variant.figure.to_dict()
            checked = json.loads(go.Figure(ours).update_layout(template="none").to_json())
            checked["layout"].pop("template")
            assert decoded(checked) == json.loads(json.dumps(ours)), picture.name


@pytest.mark.heavy
def test_plotly_takes_the_figures_of_a_plan_as_they_are() -> None:
    """Those of a service's pages."""
    chat = Session(
        EXAMPLES / "chat.yaml", settings=["offers.gpus=[L4, L40S]", "profile.tensor_parallel=[1]", "slo.ttft_ms=1500"]
    )
    plan = chat.plan()
    pictures = explore_pictures(Study(exploration=chat.explore(plan)))
    own, other = (report([simulate(plan, draw_for(plan, 1000, seed=1), policy=name)]) for name in POLICIES)
    pictures += validation_pictures(own, [other], plan)
    assert len({picture.name for picture in pictures}) > 12
    check(pictures)


@pytest.mark.heavy
def test_plotly_takes_the_figures_of_a_schedule_as_they_are() -> None:
    """A week's."""
    week = Session(EXAMPLES / "week.yaml", settings=["offers.gpus=[L40S]"]).schedule(quick=True)
    check(schedule_pictures(week))


def test_updates_go_to_any_depth_and_none_takes_away() -> None:
    """What is not named stays."""
    figure = Figure()
    figure.update_layout(title={"text": "a", "font": {"size": 17}}, margin={"t": 12, "b": 8})
    figure.update_layout(title={"font": {"color": "red"}}, margin={"t": 30})
    other = figure.with_layout(title=None)
    assert figure.layout == {"title": {"text": "a", "font": {"size": 17, "color": "red"}}, "margin": {"t": 30, "b": 8}}
    assert other.layout == {"margin": {"t": 30, "b": 8}}
    assert (figure.layout.title.font.size, figure.layout.legend) == (17, None)
