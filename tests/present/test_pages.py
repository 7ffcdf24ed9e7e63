"""The pages: structure, self-containedness, escaping, and the commands that write them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from forked import command
from structure import Structure
from tiny import HOSTILE, profile_of, replica_type

from melange.plan.certificate import Certificate
from melange.plan.options import Options
from melange.plan.solve import solve
from melange.plan.sweeps import explore
from melange.present.pages.explore_page import explore_page, explore_pictures
from melange.present.pages.packing import unpacked
from melange.present.pages.plan_page import report_page, report_pictures
from melange.present.study import Study
from melange.profile.profile import Profile
from melange.slo import Slo
from melange.workload.workload import Buckets, Workload

ROOT = Path(__file__).resolve().parents[2]


def pages(study: Study, name: str = "toy.yaml") -> list[str]:
    """Both pages of a study."""
    return [
        explore_page(study, explore_pictures(study), name),
        report_page(study, report_pictures(study), name),
    ]


def test_pages_are_whole_documents(study: Study) -> None:
    """Language, title, one main heading that is the answer, ids of their own, all tags closed."""
    for text in pages(study):
        found = Structure(text)
        assert found.open == []
        assert text.startswith('<!doctype html>\n<html lang="en">')
        assert (found.tags.count("title"), found.tags.count("h1"), found.tags.count("main")) == (1, 1, 1)
        assert len(set(found.ids)) == len(found.ids)
        assert f"{study.plan.cost_per_h:.2f} USD/h" in " ".join(found.words)


def test_pages_fetch_nothing(study: Study) -> None:
    """No address but the empty icon, no import, and a policy that forbids the rest."""
    for text in pages(study):
        found = Structure(text)
        assert found.addresses == ["data:,"]
        assert "default-src &#x27;none&#x27;" in text
        assert "@import" not in text.split("<style>")[1].split("</style>")[0]
        assert "url(" not in text.split("<style>")[1].split("</style>")[0]


def test_pictures_can_be_read_without_seeing_or_running_them(study: Study) -> None:
    """Each has a name for screen readers, a caption, a word for browsers without scripts, and its numbers."""
    explored, _ = pages(study)
    pictures = explore_pictures(study)
    found = Structure(explored)
    assert found.tags.count("figure") == found.tags.count("figcaption") == len(pictures)
    assert explored.count('role="img"') == found.tags.count("noscript") == len(pictures)
    assert {picture.name for picture in pictures if not picture.rows} == {"two-types"}
    for picture in pictures:
        assert f'aria-labelledby="{picture.name}-finding {picture.name}-caption"' in explored
        for variant in picture.variants:
            assert variant.finding


def test_all_views_of_the_paper_are_there(study: Study) -> None:
    """Figures 5, 3b, 9, 11, 6 and 7, cost against SLO, and the routes."""
    assert [picture.name for picture in explore_pictures(study)] == [
        "winners-by-size",
        "two-types",
        "routes",
        "cost-by-rate",
        "savings",
        "cost-by-slo",
        "winners-by-slo",
        "request-cost-by-slo",
    ]


def test_a_plan_s_page_says_everything_about_it(study: Study) -> None:
    """Mix, baselines, proof, assumptions."""
    words = " ".join(Structure(pages(study)[1]).words)
    for part in ("The mix", "With one type only", "Proof", "Assumptions", "headroom 0%", "The routing grid as a table"):
        assert part in words


def test_hostile_names_stay_text(buckets: Buckets, workload: Workload) -> None:
    """Names of types and files can neither open a tag nor end the page's own data."""
    types = [replica_type(HOSTILE, 1.0), replica_type("b", 1.5)]
    profile = profile_of(types, [[[10, 2], [2, 0]], [[20, 10], [10, 5]]], buckets)
    study = Study(exploration=explore(solve(workload, profile, Options(headroom=0.0))))
    for text in pages(study, HOSTILE):
        found = Structure(text)
        assert found.open == []
        assert "img" not in found.tags
        assert found.tags.count("script") == 3
        assert not [name for name in found.attributes if name.startswith("on")]
        assert HOSTILE not in text
        data = text.split('id="figures">')[1].split("</script>")[0]
        assert "<" not in data
        assert json.loads(unpacked(data))


def test_without_an_estimate_other_limits_are_left_out_and_this_is_said(study: Study) -> None:
    """A given profile holds under one SLO."""
    given = Study(exploration=explore(study.plan))
    for text in pages(given):
        assert "Other limits on latency are left out" in text
        assert "cost-by-slo" not in text


ProfileAt = Callable[[Slo], Profile]
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run ``melange`` in an empty folder."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return command(*arguments, cwd=tmp_path, environment=os.environ | {"TERM": "dumb"} | environment)

    return run


def test_explore_writes_a_page(run: Run, tmp_path: Path) -> None:
    """The bundled example, all pictures, at the rate that was set."""
    done = run("explore", ROOT / "examples" / "chat.yaml", "--quick", "--out", "page.html", "--set", "workload.rate=8")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "page.html").read_text()
    found = Structure(text)
    assert found.open == []
    assert found.tags.count("figure") == 9
    assert "8 requests/s" in " ".join(found.words)


def test_a_plan_s_report_does_not_change_what_is_printed(run: Run, tmp_path: Path) -> None:
    """The release's configuration has neither sizes nor an SLO; --json stays JSON and nothing else."""
    done = run("plan", ROOT / "examples" / "release.json", "--report", "report.html", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["cost_per_h"] == pytest.approx(5.69)
    words = " ".join(Structure((tmp_path / "report.html").read_text()).words)
    assert "5.69 USD/h" in words
    assert "Other limits on latency are left out" in words


def test_a_page_that_cannot_be_written_is_an_error(run: Run, tmp_path: Path) -> None:
    """Two lines and exit code 2."""
    done = run("explore", ROOT / "examples" / "release.json", "--out", tmp_path / "absent" / "page.html")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_plans_do_not_load_plotly() -> None:
    """What draws is imported where it draws."""
    modules = "melange.cli, melange.present.terminal.plan_tables, melange.present.figures.pictures"
    code = f"import sys, {modules}; sys.exit('plotly' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_certified_plan_says_so_and_is_no_point_of_the_sweeps(study: Study, profile_at: ProfileAt) -> None:
    """Pictures at other rates hold plans are not certified, and the page says that they do."""
    certificate = Certificate(
        target=0.99, attainment=1.0, low=0.996, requests=1000, seeds=1, policy="plan-shares",
        cost_before_per_h=study.plan.cost_per_h, attainment_before=1.0, headroom={}, plans=1,
    )  # fmt: skip
    certified = replace(study.plan, certificate=certificate, status="certified", bound_per_h=None, gap=1.0)
    again = Study(exploration=explore(certified, profile_at))
    text = " ".join(Structure(report_page(again, report_pictures(again), "toy.yaml")).words)
    assert "Certified: 100% of 1,000 counted requests" in text
    assert "are not certified" in text
    assert "proven within" not in text
