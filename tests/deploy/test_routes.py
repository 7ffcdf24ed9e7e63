"""Which requests go where, by what a gateway sees."""

import numpy as np
import pytest
from deploy_cases import SMALL_SHARE, plan_of, replica_type, three_types, two_types
from hypothesis import given
from hypothesis import strategies as st

from melange.deploy.targets.gateways.routes import SAME, STEP, TURNS, Route, routes_of
from melange.errors import InputError
from melange.plan.routing import policy_state
from melange.replica.policy import PLAN_SHARES, choose
from melange.workload.workload import Buckets

sizes = st.tuples(st.integers(1, 5000), st.integers(0, 1000))


@given(size=sizes)
def test_every_request_has_a_route_with_weights_that_sum_to_one(size: tuple[int, int]) -> None:
    """Also prompts beyond the last bucket, and limits of none."""
    routes = routes_of(two_types())
    route = routes.routes[routes.find(*size)]
    assert sum(route.share) == pytest.approx(1)
    assert sum(route.parts) == TURNS
    assert route.upto[-1] == TURNS


def test_shares_are_averaged_over_the_completions_that_a_limit_leaves() -> None:
    """By hand: 0.65 of one request a second and 0.2 of two, or the first alone where clients allow 50 tokens."""
    routes = routes_of(two_types())
    assert routes.types == ("aws/us-east-1/g5.xlarge", "aws/us-east-1/p4d")
    found = [(one.label, round(one.share[0], 6), one.is_planned) for one in routes.routes]
    assert found == [
        ("1-200 in", 1.0, True),
        ("201-1,000 in, max_tokens <= 50", 0.65, True),
        ("201-1,000 in", 0.35, True),
        ("from 1,001 in", 0.03, True),
    ]
    assert [one.traffic for one in routes.routes] == pytest.approx([0.3, 0.3, 0.3, 0.4])


@pytest.mark.parametrize("plan", [two_types(), three_types()], ids=["two", "three"])
@pytest.mark.parametrize("size", [(100, 0), (600, 50), (600, 0), (600, 4000), (4000, 0), (2000, 30)])
def test_routes_are_what_the_balancers_policy_does(plan: object, size: tuple[int, int]) -> None:
    """The same shares as the live balancer's and the simulator's, before they have learned anything."""
    routes, fleet = routes_of(plan), policy_state(plan)
    turns = 1000
    chosen = [fleet.type_of[choose(PLAN_SHARES, fleet, *size, 0.0)] for _ in range(turns)]
    share = routes.routes[routes.find(*size)].share
    for t, part in enumerate(share):
        assert abs(chosen.count(t) - part * turns) <= 1 + SAME * turns


@given(
    share=st.lists(st.floats(0.001, 1.0), min_size=1, max_size=5),
    start=st.integers(0, 2**32),
    count=st.integers(1, 3000),
)
def test_turns_keep_to_the_shares_over_any_stretch(share: list[float], start: int, count: int) -> None:
    """Within 5 requests, however many types there are, and exactly over all turns."""
    whole = np.array(share) / sum(share)
    route = Route(input_tokens=None, max_tokens=None, label="", share=tuple(whole), traffic=1.0, is_planned=True)
    place = (np.arange(start, start + TURNS) * STEP) % TURNS
    taken = np.searchsorted(route.upto, place, side="right")
    assert np.bincount(taken, minlength=len(whole)).tolist() == list(route.parts)
    some = np.bincount(taken[:count], minlength=len(whole))
    assert np.abs(some - count * np.array(route.parts) / TURNS).max() <= 5
    assert route.choose(start) == taken[0]


def test_sizes_that_the_plan_does_not_have_follow_their_neighbors() -> None:
    """The next larger limit of the same prompts, or the nearest shorter prompts; what goes to one type is one route."""
    small = np.array([[0.0, 1.0], [0.0, 0.5], [0.0, 0.0], [0.0, 0.0]])
    rates = np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    large = np.where(rates > 0, 1.0 - small, 0.0)
    buckets = Buckets(input_edges=(100, 200, 300, 400), output_edges=(50, 400))
    plan = plan_of(
        np.stack([small, large]), [1, 1], [replica_type("a", "A"), replica_type("b", "B")], buckets=buckets, rates=rates
    )
    found = [(one.label, one.share, one.is_planned) for one in routes_of(plan).routes]
    assert found == [
        ("1-100 in", (1.0, 0.0), True),
        ("101-200 in", (0.5, 0.5), True),
        ("from 201 in", (0.0, 1.0), True),
    ]


def test_traffic_that_a_budget_leaves_out_is_split_like_the_rest() -> None:
    """Shares that do not sum to 1 are parts of what is served."""
    shares = np.stack([0.3 * SMALL_SHARE, 0.3 * (1 - SMALL_SHARE)])
    plan = plan_of(shares, [1, 1], [replica_type("a", "A"), replica_type("b", "B")])
    whole = routes_of(two_types()).routes
    for one, other in zip(routes_of(plan).routes, whole, strict=True):
        assert one.share == pytest.approx(other.share)


def test_stand_ins_are_those_that_carry_most() -> None:
    """Two H100 carry more of anything than one A10G."""
    assert routes_of(three_types()).stand_ins == ((2, 1), (2, 0), (0, 1))


def test_plans_that_cannot_be_routed_are_refused() -> None:
    """Numbered buckets have no sizes, no replicas take nothing, no traffic goes nowhere."""
    ordinal = Buckets.ordinal(3, 2)
    types = [replica_type("a", "A")]
    with pytest.raises(InputError, match="numbered"):
        routes_of(plan_of(np.ones((1, 3, 2)), [1], types, buckets=ordinal))
    with pytest.raises(InputError, match="no replicas"):
        routes_of(plan_of(np.ones((1, 3, 2)), [0], types))
    with pytest.raises(InputError, match="serves no requests"):
        routes_of(plan_of(np.zeros((1, 3, 2)), [1], types))
