"""The services that planners are compared on (bench/services)."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest

from melange.service.session import Session

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).parents[1]
SEED, COUNT = 11, 16


@pytest.fixture(scope="module")
def parts() -> Iterator[SimpleNamespace]:
    """The modules of bench/services."""
    names = ("draw", "fleets", "fresh", "planners", "results", "picture", "page")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench" / "services"))
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.fixture(scope="module")
def drawn(parts: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[SimpleNamespace, Session]]:
    """Some services, each with a session on its file."""
    folder = tmp_path_factory.mktemp("services")
    found = []
    for one in parts.draw.services(SEED, COUNT):
        path = folder / f"{one.name}.yaml"
        path.write_text(one.text, encoding="utf-8")
        found.append((one, Session(path)))
    return found


@pytest.fixture
def chat(tmp_path: Path) -> Session:
    """A small service of one cloud, with a target."""
    path = tmp_path / "chat.yaml"
    path.write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\n"
        "slo: {ttft_ms: 1500, tpot_ms: 60, attainment: 0.9}\n"
        "workload: {dataset: azure-conversation, rate: 6}\n"
        "offers: {providers: [aws], regions: [us-east-1], max: {A10G: 8}}\n"
        "plan: {max_types: 2}\n",
        encoding="utf-8",
    )
    return Session(path)


def test_the_same_seed_draws_the_same_bytes(parts, drawn):
    """A service depends on its seed and number, and not on how many are drawn."""
    assert parts.draw.service(SEED, 5).text == drawn[4][0].text
    assert parts.draw.service(SEED + 1, 5).text != drawn[4][0].text
    assert len({one.text for one, _ in drawn}) == COUNT


def test_every_service_is_one_that_a_session_reads(parts, drawn):
    """Its model, traffic, limits and offers are known, and lie where they are said to."""
    for one, session in drawn:
        service = session.service
        assert tuple(session.slo.limits) in parts.draw.LIMITS
        assert all(limit > 0 for limit in session.slo.limits.values())
        assert session.slo.attainment in parts.draw.ATTAINMENTS
        assert session.workload().total_rate == pytest.approx(service.workload.rate)
        least, most = parts.draw.RATES
        assert least <= service.workload.rate <= most
        assert service.offers.market == ["on-demand"]
        assert len(service.offers.providers or []) <= 1
        assert 0 <= one.reach <= 1


def test_limits_are_neither_all_impossible_nor_all_beyond_the_slowest_type(parts, drawn):
    """Of most services enough requests can meet their limits; of others more than six times the misses are not sure."""
    short = [session.slo.attainment - one.reach for one, session in drawn]
    assert sum(one > 0 for one in short) <= COUNT // 4
    for missing, (_, session) in zip(short, drawn, strict=True):
        most = parts.draw.SURE_MISSES[1] * (1 - session.slo.attainment)
        assert missing <= most + 0.02  # limits have two figures


@pytest.mark.parametrize("name", ["quick", "paper", "aibrix", "greedy", "single", "h100"])
def test_a_plan_sends_every_request_somewhere_and_keeps_to_what_there_is(parts, chat, name):
    """Shares of every size that comes add up to 1, only of types that are rented, and cost is that of the instances."""
    answer = parts.planners.answered(name, chat, 60.0)
    plan = answer.plan
    assert plan is not None, answer.reason
    assert answer.claims
    assert plan.share.sum(axis=0)[chat.workload().request_rate > 0] == pytest.approx(1.0)
    assert not plan.share[plan.instances == 0].any()
    assert plan.cost_per_h == pytest.approx(
        sum(n * one.cost_per_h for n, one in zip(plan.instances, plan.replica_types, strict=True))
    )
    assert parts.fleets.broken_limit(plan.question, plan.instances) == ""
    if name == "h100":
        used = [one.offer.accelerator for one, n in zip(plan.replica_types, plan.instances, strict=True) if n]
        assert all(accelerator.startswith("H100") for accelerator in used)


def test_the_cheapest_certified_fleet_of_one_type_holds_and_is_the_smallest(parts, chat):
    """One instance less misses, and fresh requests say that the fleet holds."""
    plan = parts.planners.answered("single-certified", chat, 120.0).plan
    place = int(np.flatnonzero(plan.instances)[0])
    subject = (chat.workload(), chat.slo, 0.9)
    assert np.count_nonzero(plan.instances) == 1
    assert parts.fresh.verdict(plan, *subject).attainment >= 0.9
    if plan.instances[place] > 1:
        smaller = parts.fleets.single(plan.question, place, int(plan.instances[place]) - 1)
        assert parts.fresh.measured(smaller, *subject, 0)[0].low < 0.9


def test_slower_steps_let_fewer_requests_meet_their_limits(parts, chat):
    """The stress column falls from left to right."""
    plan = parts.planners.answered("single", chat, 60.0).plan
    found = parts.fresh.verdict(plan, chat.workload(), chat.slo, 0.9)
    shares = [found.attainment, *found.stress.values()]
    assert list(found.stress) == ["1.1", "1.25", "1.5"]
    assert all(first >= second - 0.01 for first, second in itertools.pairwise(shares))
    assert found.low <= found.attainment <= found.high


def test_a_planner_that_takes_too_long_is_stopped(parts, chat, monkeypatch):
    """Its CPU time is limited, and the reason says so."""

    def endless(_: Session) -> None:
        while True:
            pass

    monkeypatch.setitem(parts.planners.PLANNERS, "quick", endless)
    answer = parts.planners.answered("quick", chat, 0.05)
    assert answer.plan is None
    assert "stopped after 0.05 s" in answer.reason


def lines(parts: SimpleNamespace) -> list:
    """Two planners on two services: one holds both, the other is cheaper on one and misses the other."""

    def line(service: str, planner: str, cost: float, attainment: float, **more: object) -> object:
        return parts.results.Line(
            service=service,
            text="t",
            planner=planner,
            target=0.99,
            cpu_s=1.0,
            claims=True,
            cost_per_h=cost,
            fleet={"a": 1},
            attainment=attainment,
            low=attainment - 0.001,
            high=attainment,
            requests=20_000,
            stress={"1.1": 0.9, "1.25": 0.8, "1.5": 0.7},
        )

    return [
        line("1-001", "default", 10.0, 0.995),
        line("1-002", "default", 10.0, 0.995),
        line("1-001", "quick", 8.0, 0.992),
        line("1-002", "quick", 5.0, 0.7),
    ]


def test_costs_are_compared_only_among_plans_that_hold(parts, tmp_path, monkeypatch):
    """The best plan known is the cheapest that surely holds; a cheaper one that misses does not count."""
    best = parts.results.with_best({}, lines(parts))
    assert {name: entry.planner for name, entry in best.items()} == {"1-001": "quick", "1-002": "default"}
    default, quick = (
        parts.results.summary(name, [one for one in lines(parts) if one.planner == name], best)
        for name in ("default", "quick")
    )
    assert (default.held, default.cost) == (2, (1.25, 1.0))
    assert (quick.held, quick.claimed, quick.cost) == (1, 2, (1.0,))
    assert max(map(len, parts.results.table([default, quick]).splitlines())) <= 80
    monkeypatch.setattr(parts.results, "BEST_KNOWN", tmp_path / "best.json")
    parts.results.save_best(best)
    assert parts.results.read_best() == best
    for one in lines(parts):
        parts.results.append(tmp_path / "lines.jsonl", one)
    assert parts.results.read_lines(tmp_path / "lines.jsonl") == lines(parts)


def test_the_picture_is_whole(parts):
    """A panel for each planner, a dot for each service of which a best plan is known."""
    best = parts.results.with_best({}, lines(parts))
    by_planner = {name: [one for one in lines(parts) if one.planner == name] for name in ("default", "quick")}
    root = ElementTree.fromstring(parts.picture.picture(by_planner, best))
    assert len(root.findall(".//{http://www.w3.org/2000/svg}circle")) == 4
    assert "(0.50)" in parts.page.service_table(lines(parts), best, ["default", "quick"])
