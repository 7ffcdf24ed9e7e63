"""The page of a simulation: whole, escaped, and with the figures of the report that it shows."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from structure import Structure
from tiny import HOSTILE

import melange
from melange.plan.certificate import Certificate
from melange.plan.options import Options
from melange.plan.plan import Plan
from melange.plan.solve import solve
from melange.present.figures.legend import COLORS
from melange.present.pages.packing import unpacked
from melange.present.pages.validation_page import validation_html, validation_pictures
from melange.present.terminal.plan_words import used_types
from melange.present.terminal.validation import next_step, setting, verdict
from melange.slo import Slo
from melange.validate.attainment import Interval
from melange.validate.observe import report
from melange.validate.report import Report
from melange.validate.simulate import draw_for, simulate


@pytest.fixture(scope="module")
def simulated() -> Plan:
    """A small service on two types without headroom, so that some requests miss."""
    offers = melange.load_catalog().select(gpus=["L4", "L40S"], providers=["aws"], regions=["us-east-1"]).offers
    workload = melange.dataset("azure-conversation", request_rate=20)
    profile = melange.estimate(
        melange.find_model("meta-llama/Llama-3.1-8B-Instruct"), offers, Slo(tpot_s=0.08), workload
    )
    return solve(workload, profile, Options(headroom=0.0))


@pytest.fixture(scope="module")
def reports(simulated: Plan) -> tuple[Report, ...]:
    """The plan's own policy and another, on the same 2,000 requests."""
    arrivals = draw_for(simulated, 2000, seed=3)
    policies = ("plan-least-work", "round-robin")
    return tuple(report([simulate(simulated, arrivals, policy=policy)]) for policy in policies)


def test_the_page_is_a_whole_document_that_says_the_verdict(simulated: Plan, reports: tuple[Report, ...]) -> None:
    """All tags closed, ids of their own, nothing fetched, the verdict as its heading, hostile names as text."""
    text = validation_html(reports[0], reports[1:], simulated, HOSTILE)
    found = Structure(text)
    assert found.open == []
    assert found.tags.count("h1") == 1
    assert len(set(found.ids)) == len(found.ids)
    assert all(address.startswith("data:") for address in found.addresses)
    assert verdict(reports[0]) in " ".join(found.words)
    assert HOSTILE not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"counted": 1_600}, "2,000 requests; 1,600 count, without the warm-up and the last tenth"),
        (
            {"seeds": 5, "counted": 8_000},
            "5 runs of 2,000 requests; 8,000 count, without the warm-up and the last tenth of each run",
        ),
        ({"scenario": "double", "counted": 1_800}, "2,000 requests; 1,800 count, without the warm-up"),
        (
            {"is_drawn": False, "seeds": 3, "counted": 4_500},
            "3 runs of up to 2,000 requests; 4,500 count, without the warm-up of each run",
        ),
    ],
)
def test_what_was_simulated_and_what_of_it_counts_is_said(
    reports: tuple[Report, ...], changes: dict[str, Any], words: str
) -> None:
    """The share that met the SLO is of the requests that count."""
    report = replace(reports[0], **changes)
    assert setting(report).split("\n")[-1] == f"Simulated: {words}"
    assert f" at least, {report.counted:,} counted requests): " in verdict(report)


def test_tables_behind_pictures_hold_the_reports_figures(simulated: Plan, reports: tuple[Report, ...]) -> None:
    """One row a size that came, its share and attainment; causes add up to what missed."""
    by_name = {picture.name: picture for picture in validation_pictures(reports[0], reports[1:], simulated)}
    first = reports[0]
    assert len(by_name["attainment"].rows) == int((first.bucket_requests > 0).sum())
    shares = sum(float(row[1].rstrip("%")) for row in by_name["attainment"].rows)
    assert shares == pytest.approx(100, abs=0.5)
    assert first.attainment is not None
    missed = sum(float(row[1].rstrip("%")) for row in by_name["causes"].rows)
    assert missed == pytest.approx(100 * (1 - first.attainment.value), abs=0.01)
    assert {row[0] for row in by_name["policies"].rows} == {"plan-least-work", "round-robin"}


def test_types_keep_the_colors_of_the_plans_page(simulated: Plan, reports: tuple[Report, ...]) -> None:
    """The type that the plan's page calls A has the first color here too."""
    by_name = {picture.name: picture for picture in validation_pictures(reports[0], (), simulated)}
    names = [simulated.replica_types[r].name for r in used_types(simulated)]
    for trace in by_name["queue"].variants[0].figure.data:
        assert trace.line.color == COLORS[names.index(trace.name)]


def test_percentiles_by_size_travel_with_the_report(reports: tuple[Report, ...]) -> None:
    """Ordered where requests came, nan elsewhere, the same after a round through JSON."""
    first = reports[0]
    tables = first.bucket_times["tpot"]
    came = first.bucket_requests > 0
    assert (tables["p50"][came] <= tables["p90"][came]).all()
    assert (tables["p90"][came] <= tables["p99"][came]).all()
    assert np.isnan(tables["p50"][~came]).all()
    again = Report.from_json(json.loads(first.dumps()))
    assert again.dumps() == first.dumps()


def test_pictures_can_be_drawn_from_the_page_alone(simulated: Plan, reports: tuple[Report, ...]) -> None:
    """The figures are packed JSON in the page, one for each picture."""
    text = validation_html(reports[0], (), simulated, "plan.json")
    found = re.search(r'<script type="text/plain" id="figures">(.*?)</script>', text, re.DOTALL)
    assert found
    names = set(json.loads(unpacked(found[1])))
    assert names >= {"attainment", "times", "utilization", "queue"}


def test_what_is_missed_comes_with_a_next_step(simulated: Plan, reports: tuple[Report, ...]) -> None:
    """Each reason to miss has its own; a target that holds needs none."""
    first = reports[0]
    missed = replace(first, attainment=Interval(value=0.9, low=0.89, high=0.91), target=0.995, rate=16.0)
    assert next_step(missed, simulated) == "Next: melange plan finds a plan that holds."
    certificate = Certificate(
        target=0.9, attainment=0.93, low=0.92, requests=1000, seeds=1, policy="plan-least-work", cost_before_per_h=1.0,
        attainment_before=0.9, headroom={}, plans=1, wanted=0.99, reach=0.95,
    )  # fmt: skip
    assert "at most 95.00% of the requests" in next_step(missed, replace(simulated, certificate=certificate))
    profile = replace(simulated.question.profile, slo=Slo(tpot_s=0.08, statistic="mean"))
    on_mean = replace(simulated, question=replace(simulated.question, profile=profile))
    assert next_step(missed, on_mean) == "Next: melange plan --certify finds a plan that holds."
    spare = "melange plan service.yaml --set plan.spare_replicas=1 --out plan.json"
    assert spare in next_step(replace(missed, scenario="lost-replica"), simulated)
    assert "workload.rate" in next_step(replace(missed, scenario="double"), simulated)
    assert "confidence" in next_step(replace(missed, steps="slow"), simulated)
    assert "plan for this log" in next_step(replace(missed, is_drawn=False), simulated)
    assert "--seeds" in next_step(replace(missed, attainment=Interval(value=0.995, low=0.99, high=1.0)), simulated)
    assert next_step(replace(missed, attainment=Interval(value=1.0, low=0.996, high=1.0)), simulated) == ""


def test_a_target_far_above_what_was_met_is_missed_however_wide_the_interval(reports: tuple[Report, ...]) -> None:
    """Twice as many misses as allowed may be chance, nine times as many are not."""
    held = replace(reports[0], target=0.99, is_drawn=True)
    far = replace(held, attainment=Interval(value=0.91, low=0.81, high=1.0), scenario="lost-replica")
    near = replace(held, attainment=Interval(value=0.98, low=0.96, high=1.0))
    assert verdict(far).endswith("the target of 99% is missed.")
    assert verdict(near).endswith("the target of 99% is not proven.")
