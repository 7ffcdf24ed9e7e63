"""Where the replicas are, as people say it."""

import numpy as np
import pytest
from deploy_cases import plan_of, replica_type, three_types, two_types

from melange.deploy.pools import HostPort, parse_replicas, pools_of
from melange.errors import InputError


def test_replicas_are_sorted_by_type_or_accelerator() -> None:
    """Either name will do, in any case, and both may be used for one type."""
    urls = {"a10g": ["http://a:1"], "aws/us-east-1/g5.xlarge": ["http://b:2"], "A100-80GB": ["http://[::1]:3"]}
    pools, cautions = pools_of(two_types(), urls)
    assert [(pool.name, [str(one) for one in pool.replicas]) for pool in pools] == [
        ("aws-us-east-1-g5-xlarge", ["a:1", "b:2"]),
        ("aws-us-east-1-p4d", ["[::1]:3"]),
    ]
    assert cautions == ()


def test_replicas_that_nobody_named_get_names_that_say_so() -> None:
    """As many as planned, and a caution."""
    pools, cautions = pools_of(two_types())
    assert [str(one) for one in pools[0].replicas] == [f"aws-us-east-1-g5-xlarge-{k}.internal:8000" for k in range(2)]
    assert [caution.kind for caution in cautions] == ["placeholder"]


def test_another_number_of_replicas_than_planned_is_said() -> None:
    """It may be meant, so it is no error."""
    _, (caution,) = pools_of(two_types(), {"A10G": ["http://a:1"], "A100-80GB": ["http://b:2"]})
    assert "the plan has 2 replicas, 1 given" in caution.message


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ({"A10G": ["http://a:1"]}, "no replica was given for aws/us-east-1/p4d"),
        ({"A10": ["http://a:1"]}, "did you mean 'A10G'"),
        ({"aws/us-east-1/g6.xlarge": ["http://a:1"]}, "the plan does not use aws/us-east-1/g6.xlarge"),
        ({"A10G": ["http://a:1", "http://a:1"], "A100-80GB": ["http://b:1"]}, "given twice"),
    ],
)
def test_replicas_that_do_not_fit_the_plan_are_errors(urls: dict[str, list[str]], said: str) -> None:
    """A type without a replica, a name that is none, a type that the plan does not use, one replica twice."""
    with pytest.raises(InputError, match=said):
        pools_of(two_types(), urls)


def test_an_accelerator_of_several_types_is_ambiguous() -> None:
    """The types that may be meant are named."""
    types = [replica_type("aws/g5.xlarge", "A10G"), replica_type("aws/g5.2xlarge", "A10G")]
    plan = plan_of(np.full((2, 3, 2), 0.5), [1, 1], types)
    with pytest.raises(InputError, match=r"is ambiguous: aws/g5.xlarge, aws/g5.2xlarge"):
        pools_of(plan, {"A10G": ["http://a:1"]})


@pytest.mark.parametrize(
    "url",
    [
        "https://a:1",
        "http://a:1/v1",
        "http://u:p@a:1",
        "http://a:99999",
        "a:1",
        "http://",
        "http://a b:1",
        "http://a;x:1",
    ],
)
def test_urls_that_a_file_could_not_hold_are_refused(url: str) -> None:
    """A scheme, a host, a port, and nothing that could become a directive."""
    with pytest.raises(InputError, match="replica"):
        HostPort.parse(url)


def test_pairs_are_split_at_their_first_equals_sign() -> None:
    """As the balancer does; one that is none is an error."""
    assert parse_replicas(["a=http://h:1", "a=http://h:2"]) == {"a": ["http://h:1", "http://h:2"]}
    for pair in ("http://h:1", "=http://h:1", "A="):
        with pytest.raises(InputError, match="NAME=URL"):
            parse_replicas([pair])


def test_pools_have_names_of_their_own() -> None:
    """Types whose names differ in signs only are distinguished."""
    types = [replica_type("a/b", "A"), replica_type("a.b", "B"), replica_type("c", "C")]
    pools, _ = pools_of(plan_of(np.full((3, 3, 2), 1 / 3), [1, 1, 1], types))
    assert [pool.name for pool in pools] == ["a-b-0", "a-b-1", "c"]
    assert len(three_types().replica_types) == 3
