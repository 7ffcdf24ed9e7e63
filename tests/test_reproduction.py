"""The paper's evaluation run again (bench/reproduce.py)."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules of bench/reproduction, and its program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench"))
        names = ("setting", "published", "evaluate", "study", "text")
        modules = {name: importlib.import_module(f"reproduction.{name}") for name in names}
        yield SimpleNamespace(**modules, program=importlib.import_module("reproduce"))


def test_counts_imply_a_load(parts):
    """3 at 1 and 5 at 2 requests/s put the load into (2, 2.5]."""
    assert parts.published.implied_load({1: 3, 2: 5}) == (2.0, 2.5, [])


def test_counts_that_no_load_gives_are_named(parts):
    """Table 3's A100: 9 at 32 means at most 0.281, and 6 at 16 more than 0.3125."""
    low, high, broken = parts.published.implied_load({1: 1, 2: 1, 4: 2, 8: 3, 16: 6, 32: 9})
    assert (low, high, broken) == (0.25, 0.28125, [16])


def test_every_case_is_a_whole_workload(parts):
    """Shares of requests add up to 1, and what was cut is a small part."""
    for case in parts.setting.cases():
        assert case.request_share.sum() == pytest.approx(1.0)
        assert 0 <= case.cut < 0.06


def test_pubmed_like_has_the_means_of_the_data_card(parts):
    """Buckets at their upper edges lie above the means, those one edge lower below them."""
    shares, beyond = parts.setting.pubmed_like()
    assert beyond < 0.01
    for axis, words in enumerate(parts.setting.PUBMED_WORDS):
        edges = np.array((parts.setting.BUCKETS.input_edges, parts.setting.BUCKETS.output_edges)[axis], float)
        share = shares.sum(axis=1 - axis)
        tokens = words * parts.setting.TOKENS_PER_WORD
        assert (share * np.array([0.0, *edges[:-1]])).sum() < tokens < (share * edges).sum()


def test_cheap_types_serve_no_longest_prompts(parts):
    """L4 and A10G serve prompts up to 12,000 tokens only, the large types all."""
    rate = parts.setting.estimated(120).max_request_rate
    assert (rate[:2, -1] == 0).all()
    assert (rate[2:, -1] > 0).all()


def test_mix_costs_no_more_than_one_type(parts):
    """At every rate; and what one type needs is its load rounded up."""
    case = parts.setting.cases()[0]
    result = parts.evaluate.run_case(parts.setting.estimated(120), case, 120, rates=(1, 4))
    assert result.compared == case.compared
    for answer in result.answers:
        assert answer.cost_per_h <= min(answer.single_cost_per_h.values()) + 1e-9
        assert answer.cost_per_h >= answer.rate * result.divided_mix_per_h - 1e-9
        assert answer.count["A10G"] == np.ceil(answer.rate * result.load["A10G"])


def test_a_planned_fleet_carries_everything(parts):
    """And half of it does not."""
    profile, case = parts.setting.estimated(120), parts.setting.cases()[0]
    (answer,) = parts.evaluate.run_case(profile, case, 120, rates=(8,)).answers
    workload = parts.setting.workload_of(case.request_share, 8.0)
    assert parts.evaluate.carried(profile, workload, answer.fleet) == pytest.approx(1.0)
    assert parts.evaluate.carried(profile, workload, {name: n // 2 for name, n in answer.fleet.items()}) < 1


def test_figure_9_by_hand(parts):
    """0.370 and 2.0 requests/s: three A10G up to 1.11, one A100 up to 2, then an A10G on top."""
    steps = {step.rate: step for step in parts.study.staircase(parts.published.FIGURE_9)}
    assert steps[1.0].cost_per_h == pytest.approx(3 * 1.01)
    assert steps[2.0].cost_per_h == pytest.approx(3.67)
    assert steps[2.25].fleet == {"A10G": 1, "A100-80GB": 1}


def test_prose_keeps_a_figure_and_its_sign_together(parts):
    """Wrapped lines never begin with a percent sign."""
    lines = parts.text.prose("12 % " * 200)
    assert len(lines) > 1
    assert all(line.startswith("12 %") for line in lines)


def test_without_published_figures_the_page_stays(parts, tmp_path, monkeypatch, capsys):
    """Our own plans are printed, and what is missing."""
    page = tmp_path / "page.md"
    page.write_text("stored")
    monkeypatch.setattr("sys.argv", ["reproduce.py", str(tmp_path), "--page", str(page)])
    parts.program.main()
    assert page.read_text() == "stored"
    out = capsys.readouterr().out
    assert "left as it is" in out
    assert "saves" in out


def test_page_from_the_published_figures(parts, tmp_path, monkeypatch, capsys):
    """Every section of the stored page is there."""
    if absent := parts.published.missing(DATA):
        pytest.skip(f"the published figures are not here: {', '.join(absent)}")
    page = tmp_path / "page.md"
    monkeypatch.setattr("sys.argv", ["reproduce.py", str(DATA), "--page", str(page)])
    parts.program.main()
    text = page.read_text()
    headings = [line for line in text.splitlines() if line.startswith("## ")]
    stored = (ROOT / "docs" / "reproduction.md").read_text().splitlines()
    assert headings == [line for line in stored if line.startswith("## ")]
    assert "are proven to be the cheapest" in text
    assert "met" in capsys.readouterr().out
