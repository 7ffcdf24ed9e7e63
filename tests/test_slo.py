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


def test_an_slo_prints_in_milliseconds() -> None:
    """People read milliseconds."""
    assert str(Slo(ttft_s=2, tpot_s=0.12, attainment=0.995)) == (
        "mean TTFT <= 2000 ms, mean TPOT <= 120 ms, for 99.500% of requests"
    )
