import pytest

from melange.errors import InputError
from melange.slo import Slo


def test_limits_are_those_that_were_set() -> None:
    """Only the limits that were asked for bind."""
    assert Slo(ttft_s=1.0, tpot_s=0.12).limits == {"ttft": 1.0, "tpot": 0.12}


def test_an_slo_comes_back_from_json() -> None:
    """Seconds in the file, the same value when read."""
    slo = Slo(ntpot_s=0.04, statistic="p99.9", attainment=0.995)
    assert Slo.from_json(slo.to_json()) == slo


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "at least one limit"),
        ({"tpot_s": 0.0}, "must be > 0"),
        ({"tpot_s": float("nan")}, "must be > 0"),
        ({"tpot_s": float("inf")}, "finite"),
        ({"tpot_s": 1.0, "statistic": "median"}, "statistic"),
        ({"tpot_s": 1.0, "statistic": "p100.5"}, "statistic"),
        ({"tpot_s": 1.0, "attainment": 1.5}, "attainment"),
    ],
)
def test_an_slo_that_means_nothing_is_refused(settings: dict, complaint: str) -> None:
    """No limit, no time, no such statistic, no such share."""
    with pytest.raises(InputError, match=complaint):
        Slo(**settings)


def test_an_slo_is_about_requests_unless_it_says_otherwise() -> None:
    """99% of requests must meet the limits, where nobody says how many; under a statistic nothing is asked for."""
    slo = Slo(tpot_s=0.06)
    assert (slo.statistic, slo.attainment) == ("requests", 0.99)
    assert (slo.is_on_requests, slo.is_on_mean, slo.has_closed_form) == (True, False, True)
    assert Slo(tpot_s=0.06, attainment=0.9).target == 0.9
    for statistic, has_closed_form in (("mean", True), ("p99", False)):
        other = Slo(tpot_s=0.06, statistic=statistic)
        assert (other.attainment, other.target, other.is_on_requests) == (None, 0.99, False)
        assert other.has_closed_form is has_closed_form


def test_files_of_before_stay_what_they_were() -> None:
    """Every file says its statistic, so that one on the mean is no one on requests when it is read."""
    slo = Slo.from_json({"tpot_s": 0.06, "statistic": "mean"})
    assert slo.is_on_mean
    assert slo.attainment is None
    assert slo.to_json() == {"tpot_s": 0.06, "statistic": "mean"}
    assert Slo(tpot_s=0.06).to_json() == {"tpot_s": 0.06, "statistic": "requests", "attainment": 0.99}
    assert Slo.from_json(Slo(tpot_s=0.06).to_json()) == Slo(tpot_s=0.06)


def test_slos_agree_where_nothing_that_both_say_differs() -> None:
    """Under a statistic one may leave the share out; other limits, another reading or another share are another SLO."""
    on_mean = Slo(tpot_s=0.06, statistic="mean")
    assert on_mean.agrees_with(Slo(tpot_s=0.06, statistic="mean", attainment=0.95))
    assert not on_mean.agrees_with(Slo(tpot_s=0.06))
    assert not on_mean.agrees_with(Slo(tpot_s=0.05, statistic="mean"))
    assert not Slo(tpot_s=0.06).agrees_with(Slo(tpot_s=0.06, attainment=0.95))


def test_the_tail_is_what_may_miss() -> None:
    """A hundredth of the requests of 99 %; of all requests a thousandth, because no number of them shows all."""
    assert Slo(tpot_s=0.06, attainment=0.995).tail == pytest.approx(0.005)
    assert Slo(tpot_s=0.06, attainment=1.0).tail == 0.001
    assert Slo(tpot_s=0.06, statistic="mean", attainment=0.995).tail == 1.0


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "TTFT <= 2,000 ms and TPOT <= 120 ms for 99% of requests"),
        ({"attainment": 0.995}, "TTFT <= 2,000 ms and TPOT <= 120 ms for 99.5% of requests"),
        ({"attainment": 0.07}, "TTFT <= 2,000 ms and TPOT <= 120 ms for 7% of requests"),
        ({"statistic": "mean"}, "mean TTFT <= 2,000 ms, mean TPOT <= 120 ms"),
        (
            {"statistic": "mean", "attainment": 0.995},
            "mean TTFT <= 2,000 ms, mean TPOT <= 120 ms, for 99.5% of requests",
        ),
        ({"statistic": "p95"}, "p95 TTFT <= 2,000 ms, p95 TPOT <= 120 ms"),
    ],
)
def test_an_slo_prints_in_milliseconds(settings: dict, text: str) -> None:
    """People read milliseconds, and whether each request counts or a statistic."""
    assert str(Slo(ttft_s=2, tpot_s=0.12, **settings)) == text
