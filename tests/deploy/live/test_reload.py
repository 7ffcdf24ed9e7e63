"""Another plan in the file of a balancer that runs."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, complete, eventually, small_plan

from melange.deploy.operate.fleet_planner import FleetPlanner

FAST = ("--health-every", "0.1", "--drain", "20")


def plan_using(instances: tuple[int, int]) -> str:
    """The small plan with that many instances of each type."""
    plan = small_plan(rate=1e4)
    names = [one.name for one in plan.replica_types]
    found = FleetPlanner(plan).plan_of(dict(zip(names, instances, strict=True)), None)
    assert found is not None
    return found.dumps()


def test_a_new_plan_is_taken_up_and_no_stream_is_dropped(tmp_path: Path) -> None:
    """A stream goes on under the old plan, an open connection is answered, and counts go on."""
    plan, replicas = tmp_path / "plan.json", tmp_path / "replicas.txt"
    plan.write_text(plan_using((0, 1)))
    with Replica() as first, Replica() as second:
        replicas.write_text(f"A100={first.url}\n")
        with Balancer(plan, "--replicas", str(replicas), *FAST) as balancer:
            assert complete(balancer.port).status == 200
            kept = http.client.HTTPConnection("127.0.0.1", balancer.port, timeout=30)
            body = json.dumps({"model": "tiny", "prompt": "abc " * 10, "max_tokens": 8})
            kept.request("POST", "/v1/completions", body)
            assert kept.getresponse().read()
            first.be("wait")
            stream: list[object] = []
            thread = threading.Thread(target=lambda: stream.append(complete(balancer.port, max_tokens=9)))
            thread.start()
            eventually(lambda: balancer.metric("replica_outstanding", url=first.url) == 1)
            plan.write_text(plan_using((1, 1)))
            balancer.await_line("another plan")
            replicas.write_text(f"A100={first.url}\nL4={second.url}\n")
            eventually(lambda: balancer.metric("replica_up", url=second.url) == 1)
            # It is still in flight on a process of the old plan, and counted.
            assert balancer.metric("replica_outstanding", url=first.url) == 1
            assert balancer.metric("replica_sent_requests_total", url=first.url) == 3
            first.be("")
            thread.join()
            assert stream[0].status == 200
            assert stream[0].json["usage"]["completion_tokens"] == 9
            balancer.await_line("finishing earlier requests")
            kept.request("POST", "/v1/completions", body)
            answer = kept.getresponse()
            assert answer.status == 200
            assert answer.getheader("Connection") == "close"
            kept.close()
            assert {complete(balancer.port).status for _ in range(20)} == {200}
            assert second.seen["count"] > 0
            eventually(lambda: balancer.metric("completed_requests_total") == 24)


@pytest.mark.heavy
def test_no_request_is_lost_under_load_while_plans_change(tmp_path: Path) -> None:
    """Clients with a connection each see nothing of three plans that follow each other."""
    plan = tmp_path / "plan.json"
    plan.write_text(plan_using((1, 1)))
    with Replica() as first, Replica() as second:
        given = (f"--replica=L4={first.url}", f"--replica=A100={second.url}")
        with Balancer(plan, *given, *FAST, "--processes", "2") as balancer:
            stop = threading.Event()
            statuses: list[int] = []

            def run() -> None:
                while not stop.is_set():
                    statuses.append(complete(balancer.port).status)

            threads = [threading.Thread(target=run) for _ in range(3)]
            for one in threads:
                one.start()
            for turn, count in enumerate((2, 3, 4), start=1):
                done = len(statuses)
                plan.write_text(plan_using((1, count)))
                balancer.await_line("another plan", turn)
                eventually(lambda done=done: len(statuses) > done + 100)
            stop.set()
            for one in threads:
                one.join()
            assert set(statuses) == {200}


def test_a_plan_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    """A broken file, or a plan without a type of which there are replicas, is said and passed over."""
    plan = tmp_path / "plan.json"
    plan.write_text(plan_using((1, 1)))
    with Replica() as first, Replica() as second:
        given = (f"--replica=L4={first.url}", f"--replica=A100={second.url}")
        with Balancer(plan, *given, *FAST) as balancer:
            plan.write_text("{")
            balancer.await_line("plan unchanged")
            plan.write_text(plan_using((0, 1)))
            assert "does not use" in balancer.await_line("plan unchanged", 2)
            assert complete(balancer.port).status == 200


def test_a_process_that_is_started_again_knows_todays_replicas(plan_file: Path, tmp_path: Path) -> None:
    """It reads the list again, in place of the one that the balancer began with."""
    replicas = tmp_path / "replicas.txt"
    with Replica() as first, Replica() as second:
        replicas.write_text(f"A100={first.url}\n")
        with Balancer(plan_file, "--replicas", str(replicas), *FAST) as balancer:
            replicas.write_text(f"A100={second.url}\n")
            eventually(lambda: balancer.metric("replica_up", url=second.url) == 1)
            process = balancer.process.pid
            children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            balancer.await_line("starting another")
            eventually(balancer.is_open)
            assert complete(balancer.port, words=500).status == 200
            assert second.seen["count"] == 1
