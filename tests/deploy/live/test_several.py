"""Several balancers before the same replicas, which know nothing of each other, keep the plan's shares and limits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from balance_cases import small_plan

from melange.deploy.addresses import addresses_of
from melange.deploy.live.balancer import Balancer, Ticket
from melange.deploy.live.counters import Counters
from melange.deploy.live.settings import BalancerSettings
from melange.deploy.live.sizing import Size
from melange.errors import InputError
from melange.plan.plan import Plan

FOUR = 4


def several(plan: Plan, count: int, replicas: int, **settings: float) -> list[Balancer]:
    """Balancers with counters of their own before the same replicas of each type."""
    given = [("", f"{name}=http://{name}-{k}:1") for name in ("L4", "A100") for k in range(replicas)]
    addresses = addresses_of(given, plan)
    found = []
    for _ in range(count):
        counters = Counters(1, 2, *plan.workload.buckets.shape)
        found.append(Balancer(plan, BalancerSettings(balancers=count, **settings), counters, 0))
        found[-1].list_replicas(addresses)
    return found


def test_shares_hold_to_within_a_request_of_each() -> None:
    """Of any stretch of requests that come to four at random, each size's share is the plan's to within four."""
    plan, draw = small_plan(rate=1e6), random.Random(2)
    balancers = several(plan, FOUR, 2)
    sent = np.zeros((2, 2))
    for _ in range(4000):
        small = draw.random() < 0.7
        ticket = draw.choice(balancers).place(Size(50 if small else 700, 0, True))
        assert ticket is not None
        sent[ticket.replica.kind, 0 if small else 1] += 1
        total = sent.sum(axis=0)
        assert abs(sent[0, 0] - 0.25 * total[0]) <= FOUR
        assert sent[0, 1] == 0


def test_replicas_are_as_evenly_loaded_as_chance_allows() -> None:
    """Requests come and go; the fullest replica has a few requests above the mean with one, a few more with four."""
    worst = {}
    for count in (1, FOUR):
        plan, draw = small_plan(share_of_first=0.5, rate=1e6), random.Random(3)
        balancers = several(plan, count, 5)
        held: list[tuple[Balancer, Ticket]] = []
        above = 0.0
        for turn in range(3000):
            one = draw.choice(balancers)
            ticket = one.place(Size(50, 0, True))
            assert ticket is not None
            held.append((one, ticket))
            if len(held) > 200:
                owner, ended = held.pop(draw.randrange(len(held)))
                owner.give_back(ended)
            if turn > 1000 and turn % 50 == 0:
                loads = np.sum([owner.fleet.outstanding for owner in balancers], axis=0)
                above = max(above, float((loads - loads.mean()).max()))
        worst[count] = above
    assert worst[1] <= 4
    assert worst[FOUR] <= 10  # of 20 requests each


@pytest.mark.parametrize("count", [1, 2, FOUR])
def test_limits_are_those_of_one(count: int) -> None:
    """Together they let no more through than one before the same replicas, to within a request of each on a replica."""
    plan = small_plan(rate=4.0)
    alone, together = several(plan, 1, 2, most_fill=2.0), several(plan, count, 2, most_fill=2.0)
    taken = []
    for balancers in (alone, together):
        requests, full = 0, 0
        for turn in range(100_000):
            if balancers[turn % len(balancers)].place(Size(50, 0, True)) is None:
                full += 1
                if full == len(balancers):
                    break
            else:
                requests, full = requests + 1, 0
        taken.append(requests)
    assert taken[0] > 60
    assert abs(taken[1] - taken[0]) <= 4 * count


def test_a_list_of_a_thousand_faulty_lines_is_told_in_a_few() -> None:
    """The first twenty, each with its place, and the number of the rest."""
    with pytest.raises(InputError) as refused:
        addresses_of(((f"replicas.txt:{n}", f"H{n}=http://a:1") for n in range(1, 1001)), small_plan())
    lines = str(refused.value).splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("replicas.txt:1: unknown replica type 'H1'")
    assert lines[-1] == "... and 980 more"
