"""Tenants: whose key is whose, what each may use, and what replicas are told of them."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, ask, eventually, small_plan

from melange.deploy.live.answers import UnservedError
from melange.deploy.live.counters import Counters
from melange.deploy.live.limits import Limits, Visit
from melange.deploy.live.tenants import Tenant, read_tenants
from melange.errors import InputError

SEARCH, BATCH, OURS = "search-key-0123456789", "batch-key-0123456789", "our-own-key-0123456789"


def digest(key: str) -> str:
    """As printf KEY | sha256sum prints it."""
    return hashlib.sha256(key.encode()).hexdigest()


def waits(limits: Limits, tenant: Tenant, tokens: int, now_s: float) -> tuple[Visit | None, int]:
    """A visit, or after how many seconds to come again."""
    try:
        return limits.enter(tenant, tokens, now_s), 0
    except UnservedError as refused:
        return None, int(refused.answer.headers["Retry-After"])


def test_rates_hold_over_any_time_and_those_who_wait_as_told_get_in() -> None:
    """Random arrivals of random tenants in two processes: no more than the rate and one burst in any stretch."""
    draw = random.Random(6)
    for _ in range(60):
        counters = Counters(2, 1, 1, 1)
        both = [Limits(counters, process, 1) for process in (0, 1)]
        rate, tokens_per_min = draw.choice((0.2, 1.0, 7.0)), draw.choice((60.0, 900.0))
        tenant = Tenant(name="a", requests_per_s=rate, tokens_per_min=tokens_per_min)
        now_s, taken, used, late = 100.0, [], 0, 0.0
        for _ in range(200):
            now_s += draw.expovariate(draw.choice((0.5, 5.0)))
            tokens, outputs = draw.randrange(1, 40), draw.randrange(0, 30)
            visit, wait_s = waits(draw.choice(both), tenant, tokens, now_s)
            if visit is None:
                visit, again_s = waits(draw.choice(both), tenant, tokens, now_s + wait_s + 1e-6)
                assert visit is not None, again_s
                now_s += wait_s + 1e-6
            draw.choice(both).leave(visit, 0, outputs, now_s)
            taken.append(now_s)
            used += tokens + outputs
            late = max(late, float(outputs + tokens))
            first = next(k for k, at_s in enumerate(taken) if at_s > now_s - 5.0)
            assert len(taken) - first <= 5.0 * rate + max(1.0, rate) + 1e-6
        assert used <= (now_s - 100.0) / 60.0 * tokens_per_min + tokens_per_min + late


def test_requests_under_way_are_counted_over_all_processes_and_earlier_plans() -> None:
    """The third at once of two is refused wherever it comes, and let in when one has ended."""
    counters = Counters(2, 1, 1, 1)
    both = [Limits(counters, process, 3) for process in (0, 1)]
    tenant = Tenant(name="a", concurrent=2)
    first, second = both[0].enter(tenant, 1, 1.0), both[1].enter(tenant, 1, 1.0)
    assert [waits(one, tenant, 1, 1.0)[1] for one in both] == [3, 3]
    both[0].leave(first, 0, 0, 2.0)
    assert waits(both[1], tenant, 1, 2.0)[0] is not None
    both[1].leave(second, 0, 0, 2.0)
    after = Counters(1, 1, 1, 1)
    after.follow(counters)
    after.table[-1] = counters.snapshot()[: after.width]
    assert after.tenant_slot("a") == counters.tenant_slot("a")
    assert after.summed(after.at("tenant_running") + after.tenant_slot("a")) == 1.0


def test_what_is_larger_than_a_minutes_tokens_comes_when_nothing_was_used() -> None:
    """And is paid back before the next one."""
    limits = Limits(Counters(1, 1, 1, 1), 0, 1)
    tenant = Tenant(name="a", tokens_per_min=600)
    assert waits(limits, tenant, 1800, 10.0)[0] is not None
    assert waits(limits, tenant, 1, 10.0) == (None, 121)
    assert waits(limits, tenant, 1, 131.0)[0] is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tenants: {a: {key: sk-secret-secret-secret}}", "keys must not be in the file"),
        ("tenants: {a: {requests_per_s: 1}}", "key_env or key_sha256 is missing"),
        ("tenants: {a: {key_env: NOT_SET_ANYWHERE}}", "tenants.a.key_env: the variable NOT_SET_ANYWHERE is not set"),
        ("tenants: {a: {key_env: SHORT}}", "at least 16 characters"),
        ("tenants: {a: {key_sha256: abc}}", "must be 64 hexadecimal digits"),
        (f"tenants: {{a: {{key_sha256: {'g' * 64}}}}}", "must be 64 hexadecimal digits"),
        (f"tenants: {{a: {{key_sha256: {'0' * 63}a, rate: 1}}}}", "rate"),
        (f"tenants: {{a: {{key_sha256: {'0' * 63}a, requests_per_s: 0}}}}", "requests_per_s must be > 0"),
        (f"tenants: {{a: {{key_sha256: {'0' * 63}a, concurrent: 1.5}}}}", "concurrent"),
        (f"tenants: {{a: {{key_sha256: {'0' * 63}a}}, b: {{key_sha256: {'0' * 63}A}}}}", "has a key of tenants.a"),
        ("tenants: {}", "must be 1 to 255"),
        ("tenant: {}", "the key tenants"),
        ("[]", "a mapping"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_and_shows_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    """With the place of what is wrong."""
    monkeypatch.setenv("SHORT", "short-secret")
    path = tmp_path / "tenants.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="tenants") as refused:
        read_tenants(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "secret" not in str(refused.value)


def test_tenants_are_known_by_key_limited_and_ranked(tmp_path: Path) -> None:
    """Through the real proxy: keys from the environment and as hashes, limits, priorities, metrics, and a reload."""
    tenants = tmp_path / "tenants.yaml"
    tenants.write_text(
        "tenants:\n"
        "  search: {key_env: SEARCH_KEY, concurrent: 1, priority: 3}\n"
        f"  batch: {{key_sha256: [{digest(BATCH)}], requests_per_s: 0.01}}\n"
    )
    plan = small_plan(rate=1e4).save(tmp_path / "plan.json")
    with (
        Replica() as replica,
        Balancer(
            plan,
            f"--replica=A100={replica.url}",
            f"--tenants={tenants}",
            "--processes=2",
            SEARCH_KEY=SEARCH,
            MELANGE_BALANCE_KEYS=OURS,
        ) as proxy,
    ):

        def metric(name: str, *labels: str) -> float:
            text = ask(proxy.port, "/metrics", Authorization=f"Bearer {OURS}").body.decode()
            lines = [line for line in text.splitlines() if line.startswith(f"melange_{name}{{")]
            return sum(float(line.split()[-1]) for line in lines if all(label in line for label in labels))

        def asked(key: str, **fields: object) -> tuple[int, dict[str, str], str]:
            content = {"prompt": "abc", "max_tokens": 4} | fields
            found = ask(proxy.port, "/v1/completions", content, Authorization=f"Bearer {key}")
            return found.status, found.headers, found.body.decode()

        assert asked("nobody-0123456789-xx")[0] == 401
        assert ask(proxy.port, "/v1/completions", {"prompt": "abc"}).status == 401
        assert asked(SEARCH)[0] == 200
        sent = json.loads(replica.seen["last"]["body"])
        assert (sent["priority"], sent["prompt"]) == (3, "abc")
        assert asked(SEARCH, priority=9)[0] == 200
        assert json.loads(replica.seen["last"]["body"])["priority"] == 3
        assert "uthorization" not in str(replica.seen["last"]["headers"])
        assert asked(BATCH, priority=9)[0] == 200
        assert json.loads(replica.seen["last"]["body"])["priority"] == 9
        status, headers, body = asked(BATCH)
        assert (status, 1 <= int(headers["retry-after"]) <= 100) == (429, True)
        assert "more than 0.01 requests/s" in body
        eventually(lambda: metric("tenant_running") == 0)
        assert metric("tenant_requests_total", 'tenant="search"') == 2
        assert metric("tenant_tokens_total", 'tenant="batch"') == 11
        assert metric("tenant_limited_total", 'tenant="batch"', 'limit="requests"') == 1
        assert metric("unserved_requests_total", 'reason="limited"') == 1
        assert ask(proxy.port, "/metrics", Authorization=f"Bearer {SEARCH}").status == 403
        tenants.write_text("tenants: {broken")
        proxy.await_line("tenants unchanged")
        assert asked(SEARCH)[0] == 200
        tenants.write_text(f"tenants: {{batch: {{key_sha256: {digest(BATCH)}}}}}")
        # Each of the two processes reads the file in its own time, and either may answer.
        eventually(lambda: [(asked(SEARCH)[0], asked(BATCH)[0]) for _ in range(6)] == [(401, 200)] * 6)
    assert not any(key in line for key in (SEARCH, BATCH, digest(BATCH)) for line in proxy.lines)
