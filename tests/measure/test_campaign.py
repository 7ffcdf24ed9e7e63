"""Campaigns on a server whose capacity is known: what they find, in which order, when they end, how they go on."""

import json
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from measuring import measured, queue_engine, queue_server, subject, workload

from melange.errors import InputError, MeasurementError
from melange.measure.campaign import News, Result, header_of, run_campaign
from melange.measure.endpoint import Endpoint
from melange.measure.journal import Journal
from melange.measure.search import Effort
from melange.measure.subject import Subject
from melange.profile.formats.measurement_files import read_measurements
from melange.profile.percentiles import simulated_rate
from melange.profile.profile import ANCHORED, MEASURED
from melange.slo import Slo

SLO = Slo(tpot_s=0.012, statistic="mean")
CAREFUL = Effort(requests=30, repeats=2, precision=0.1)
QUICK = Effort(requests=8, repeats=1, precision=0.4, alone=2)
FLAGS = ("--fixed-ms", "5", "--each-ms", "1")
# Where times do not matter.
HASTY, FASTER = Slo(tpot_s=0.005, statistic="mean"), ("--fixed-ms", "2", "--each-ms", "0.4")


def campaign(path: Path, what: Subject, **settings: object):
    """Work for a session: a campaign with a journal."""

    async def work(session: aiohttp.ClientSession, endpoint: Endpoint) -> Result:
        effort = settings.pop("effort", QUICK)
        with Journal(path, header_of(what, endpoint, effort)) as journal:
            return await run_campaign(session, endpoint, what, journal, effort=effort, **settings)

    return work


@pytest.mark.heavy
def test_a_server_s_capacity_spreads_to_the_sizes_that_were_not_measured(tmp_path: Path) -> None:
    """The size with most tokens is measured, with an interval, and the others are anchored to it."""
    what = subject(SLO, workload([[0.0, 9.0], [6.0, 2.0]]))
    with queue_server(*FLAGS) as url:
        result = measured(url, campaign(tmp_path / "journal.jsonl", what, most_buckets=1))
    assert list(result.found_by_bucket) == [(0, 1)]
    found, profile = result.found_by_bucket[0, 1], result.profile
    cell = [getattr(profile, name)[0, 0, 1] for name in ("low", "max_request_rate")]
    assert cell == [found.low, found.max_request_rate]
    assert found.low <= found.max_request_rate < found.high
    assert profile.provenance[0, 0, 1] == MEASURED
    for size in ((1, 0), (1, 1)):
        assert profile.provenance[0][size] == ANCHORED
    points = read_measurements(tmp_path / "journal.jsonl")
    assert sum(one.max_request_rate is not None for one in points) == 1


@pytest.mark.timing
def test_a_server_s_capacity_is_found(tmp_path: Path) -> None:
    """The rate of the size with most tokens is the simulated engine's, and so, about, are those that are anchored."""
    what = subject(SLO, workload([[0.0, 9.0], [6.0, 2.0]]))
    with queue_server(*FLAGS) as url:
        result = measured(url, campaign(tmp_path / "journal.jsonl", what, most_buckets=1, effort=CAREFUL))
    found, profile = result.found_by_bucket[0, 1], result.profile
    known = {
        size: simulated_rate(queue_engine(5.0, 1.0), *what.size(size), SLO, 60.0)[0]
        for size in ((0, 1), (1, 0), (1, 1))
    }
    assert found.max_request_rate == pytest.approx(known[0, 1], rel=0.2)
    for size in ((1, 0), (1, 1)):
        assert profile.max_request_rate[0][size] == pytest.approx(known[size], rel=0.35)


@pytest.mark.heavy
def test_it_ends_where_the_plan_would_no_longer_change_and_costs_nothing_again(tmp_path: Path) -> None:
    """One replica carries all with ease, whatever other sizes turn out to be; a whole journal is a profile at once."""
    path, what = tmp_path / "journal.jsonl", subject(HASTY, workload([[0.1, 0.5], [0.1, 0.1]]))
    with queue_server(*FASTER) as url:
        first = measured(url, campaign(path, what))
    assert first.is_settled
    assert first.ended == "the plan would no longer change"
    assert list(first.found_by_bucket) == [(0, 1)]
    with queue_server("--fixed-ms", "400") as url:  # were it asked, this one would answer otherwise
        second = measured(url, campaign(path, what))
    assert second.profile.dumps() == first.profile.dumps()


def test_an_interrupted_campaign_goes_on_without_repeating_a_point(tmp_path: Path) -> None:
    """Wherever it was cut off, in the middle of a line or of a search: what is there stays as it is."""
    path, what = tmp_path / "journal.jsonl", subject(HASTY, workload([[0.0, 9.0], [6.0, 2.0]]))

    class EnoughError(Exception):
        pass

    seen: list[str] = []

    def stop_after_two(news: News) -> None:
        seen.append(news.text)
        if sum("requests/s" in text for text in seen) == 3:
            raise EnoughError

    with queue_server(*FASTER) as url:
        with pytest.raises(EnoughError):
            measured(url, campaign(path, what, most_buckets=1, progress=stop_after_two))
        kept = path.read_bytes()
        path.write_bytes(kept + b'{"bucket": [0, 1], "step": {"ra')
        result = measured(url, campaign(path, what, most_buckets=1))
    assert path.read_bytes().startswith(kept)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    tests = Counter((line["step"]["rate"], line["step"]["is_far"]) for line in lines if "step" in line)
    assert kept.count(b'"step"') >= 2
    assert set(tests.values()) == {1}
    assert result.points == len(tests)


@pytest.mark.heavy
def test_a_server_is_measured_for_a_share_of_its_requests(tmp_path: Path) -> None:
    """What is found is under the SLO that was asked for; sizes that were not measured hold it by simulation."""
    slo = Slo(tpot_s=0.005, attainment=0.75)
    what = subject(slo, workload([[0.0, 9.0], [6.0, 2.0]]))
    with queue_server(*FASTER) as url:
        result = measured(url, campaign(tmp_path / "journal.jsonl", what, most_buckets=1))
    assert result.profile.slo == slo
    assert "75% of requests by simulation" in result.profile.source
    searched = [one for one in read_measurements(tmp_path / "journal.jsonl") if one.max_request_rate is not None]
    assert [one.slo for one in searched] == [slo]
    assert result.profile.max_request_rate[0, 0, 1] == searched[0].max_request_rate


def test_the_budget_ends_it_with_what_is_known_by_then(tmp_path: Path) -> None:
    """No test starts after it; the points so far make a profile."""
    what = subject(HASTY, workload([[0.0, 9.0], [6.0, 2.0]]))
    with queue_server(*FASTER) as url:
        result = measured(url, campaign(tmp_path / "journal.jsonl", what, budget_s=0.5))
    assert result.ended == "the budget is spent"
    assert not result.found_by_bucket
    assert (result.profile.provenance == ANCHORED).all()


def test_sizes_beyond_the_context_limit_cost_no_test(tmp_path: Path) -> None:
    """What the server says of itself is believed."""
    what = subject(HASTY, workload([[0.0, 0.0], [0.0, 9.0]], inputs=(32, 8000)))
    with queue_server(*FASTER) as url, pytest.raises(MeasurementError, match="8,008 tokens exceed the context limit"):
        measured(url, campaign(tmp_path / "journal.jsonl", what, most_buckets=1))


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    """Another objective: its points say nothing of this one."""
    path, traffic = tmp_path / "journal.jsonl", workload([[0.0, 9.0], [6.0, 2.0]])
    with queue_server(*FASTER) as url:
        measured(url, campaign(path, subject(HASTY, traffic), budget_s=0.1))
        with pytest.raises(InputError, match="was started with slo"):
            measured(url, campaign(path, subject(Slo(tpot_s=0.02), traffic)))
        (tmp_path / "other.json").write_text('{"melange": "plan/1"}\n')
        with pytest.raises(InputError, match="is not a measurement journal"):
            measured(url, campaign(tmp_path / "other.json", subject(HASTY, traffic)))
