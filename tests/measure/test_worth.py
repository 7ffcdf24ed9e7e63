"""Which size is measured next, and when none is."""

from dataclasses import replace

import numpy as np
from measuring import subject, workload

from melange.measure.lone_server import LoneServer, server_subject
from melange.measure.steps import EngineLimits
from melange.measure.subject import Subject
from melange.measure.worth import choose
from melange.plan.options import Options
from melange.profile.measurement import Measurement
from melange.profile.profile import MEASURED, Profile
from melange.slo import Slo

SLO = Slo(tpot_s=0.05)
POINTS = (
    Measurement(input_tokens=32, output_tokens=8, concurrency=1, ttft_s={"mean": 0.02}, tpot_s={"mean": 0.02}),
    Measurement(input_tokens=32, output_tokens=8, offered_rate=40.0, ttft_s={"mean": 0.03}, tpot_s={"mean": 0.03}),
)


def known(rates: list[list[float]]) -> tuple[Subject, Profile]:
    """A server of which two points are known."""
    what = subject(SLO, workload(rates))
    profile = what.profile_of(POINTS)
    assert profile is not None
    return what, profile


def test_before_anything_is_known_tokens_decide() -> None:
    """Sizes without traffic are never measured."""
    what = subject(SLO, workload([[0.0, 9.0], [6.0, 2.0]]))
    assert choose(what, None).buckets == ((0, 1), (1, 0), (1, 1))


def test_traffic_and_uncertainty_decide() -> None:
    """Of two sizes that are known as badly the one with more traffic; of two with as much the one known worse."""
    what, profile = known([[50.0, 5.0], [5.0, 500.0]])
    assert choose(what, profile).buckets[0] == (1, 1)
    certain = profile.low.copy()
    certain[0, 1, 1] = profile.high[0, 1, 1]
    assert choose(what, replace(profile, low=np.minimum(certain, profile.max_request_rate))).buckets[0] != (1, 0)
    provenance = profile.provenance.copy()
    provenance[0, 1, 1] = MEASURED
    assert choose(what, replace(profile, provenance=provenance)).buckets[0] == (0, 0)


def test_it_is_settled_where_both_ends_buy_the_same() -> None:
    """Little traffic takes one replica whatever comes, much takes more replicas at the low end than at the high."""
    little, much = known([[1.0, 1.0], [1.0, 1.0]]), known([[900.0, 500.0], [500.0, 500.0]])
    assert choose(*little).is_settled
    choice = choose(*much)
    assert not choice.is_settled
    low, high = choice.costs_per_h
    assert low is not None
    assert high is not None
    assert low > high


def test_what_is_left_of_a_search_keeps_no_campaign_going() -> None:
    """Intervals of measured sizes are what they are: with all measured it is settled, however wide they are."""
    what, profile = known([[900.0, 500.0], [500.0, 500.0]])
    everything = replace(profile, provenance=np.full(profile.provenance.shape, MEASURED))
    choice = choose(what, everything)
    assert choice.is_settled
    assert choice.buckets == ()
    assert choice.costs_per_h[0] == choice.costs_per_h[1]
    assert not choose(what, profile).is_settled


def test_where_estimates_say_that_nothing_can_be_served_all_is_open() -> None:
    """They may be wrong: somebody wants to know."""
    what, profile = known([[1.0, 2.0], [1.0, 1.0]])
    none = np.zeros_like(profile.max_request_rate)
    reasons, reason = ("too slow",), np.ones(none.shape, np.int64)
    hopeless = replace(profile, max_request_rate=none, low=none, high=none, reasons=("", *reasons), reason=reason)
    assert len(choose(what, hopeless).buckets) == 4


def test_a_price_that_nobody_said_is_a_caution() -> None:
    """The plan counts replicas then, and not dollars."""
    traffic = workload([[1.0, 1.0], [1.0, 1.0]])
    server = LoneServer(name="box", limits=EngineLimits())
    profile = server_subject(server, SLO, traffic, Options()).profile_of(POINTS)
    assert profile is not None
    assert [one.kind for one in profile.cautions] == ["price"]
