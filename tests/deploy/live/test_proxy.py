from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, ask, complete, eventually, send_raw, small_plan
from typer.testing import CliRunner

from melange.cli.app import app
from melange.workload.workload import Workload

Pair = tuple[Replica, Replica]


def test_a_completion_comes_back_as_the_replica_sent_it(balancer: Balancer, two_replicas: Pair) -> None:
    """Status, body and end-to-end headers pass unchanged, and the request's body reaches the replica as it was."""
    body = b'{ "model":"tiny","prompt": "\\u00e9t\\u00e9", "max_tokens": 3 , "unknown": [1.0] }'
    answer = ask(balancer.port, "/v1/completions?v=1", body, Authorization="Bearer mine")
    assert answer.status == 200
    assert answer.json["choices"][0]["text"] == "aaa"
    assert answer.headers["x-kept"] == "yes"
    last = max((one.seen for one in two_replicas), key=lambda seen: seen["last"].get("body") == body.decode())["last"]
    assert last["body"] == body.decode()
    assert last["path"] == "/v1/completions?v=1"
    assert last["headers"]["Authorization"] == "Bearer mine"


def test_headers_of_one_hop_are_stripped_both_ways(balancer: Balancer, two_replicas: Pair) -> None:
    """Connection, what it names, Keep-Alive, TE and Proxy-Authorization end at the proxy; Host is the replica's."""
    sent = {"Connection": "close, X-Mine", "X_Mine": "1", "Keep_Alive": "1", "TE": "gzip", "Proxy_Authorization": "k"}
    answer = ask(balancer.port, "/v1/completions", {"prompt": "mark", "max_tokens": 1}, **sent, X_Theirs="2")
    assert not {"keep-alive", "x-dropped"} & set(answer.headers)
    seen = next(one.seen["last"] for one in two_replicas if '"mark"' in one.seen["last"].get("body", ""))
    names = {name.lower(): value for name, value in seen["headers"].items()}
    assert names["x-theirs"] == "2"
    assert names["host"].startswith("127.0.0.1:")
    assert names["host"] != f"127.0.0.1:{balancer.port}"
    assert not {"x-mine", "keep-alive", "te", "proxy-authorization"} & set(names)


def test_no_answer_names_a_version(balancer: Balancer, two_replicas: Pair) -> None:
    """Neither the proxy's nor a replica's: of answers passed on, streams, pages, errors and what is no request."""
    assert "aiohttp" in ask(two_replicas[0].port, "/health").headers["server"]
    paths = ("health", "metrics", "drift.json", "workload.json", "v1/models", "no")
    answers = [
        complete(balancer.port),
        complete(balancer.port, words=500, stream=True),
        complete(balancer.port, prompt=1),
        *(ask(balancer.port, f"/{path}") for path in paths),
    ]
    assert {answer.headers["server"] for answer in answers} == {"melange"}
    assert re.findall(rb"(?im)^server: *(.*?)\r$", send_raw(balancer.port, b"GET / HTTP/9\r\n\r\n")) == [b"melange"]


def test_shares_are_the_plans_to_within_a_point(balancer: Balancer, two_replicas: Pair) -> None:
    """Of 1,000 small prompts 25.0 % go to the first type, of large ones none; both as /metrics says it."""
    before = [one.seen["count"] for one in two_replicas]
    observed = balancer.metric("sent_requests_total", type="cloud/east/l4")
    for _ in range(1000):
        complete(balancer.port)
    small = [one.seen["count"] - count for one, count in zip(two_replicas, before, strict=True)]
    assert abs(small[0] - 250) <= 1
    assert sum(small) == 1000
    assert balancer.metric("sent_requests_total", type="cloud/east/l4") - observed == small[0]
    for _ in range(50):
        complete(balancer.port, words=500)
    assert two_replicas[0].seen["count"] - before[0] == small[0]


def test_a_stream_passes_token_by_token(balancer: Balancer, two_replicas: Pair) -> None:
    """The first tokens are with the client while the replica still waits to make the next."""
    for one in two_replicas:
        one.be("pause")
    request = json.dumps({"prompt": "abc", "max_tokens": 5, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request)
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(head + request)
        received = b""
        while received.count(b"data:") < 2:
            received += client.recv(65536)
        assert received.count(b"data:") == 2
        for one in two_replicas:
            one.be("")
        while not received.endswith(b"0\r\n\r\n"):
            received += client.recv(65536)
    assert received.count(b'"text": "a"') == 5
    assert received.count(b"[DONE]") == 1


def test_true_lengths_are_learned_from_usage_and_from_chunks(balancer: Balancer) -> None:
    """A completion with a usage block counts its tokens; a stream without one counts its chunks."""
    before = balancer.metric("output_tokens_total")
    complete(balancer.port, max_tokens=33)
    assert balancer.metric("output_tokens_total") - before == 33
    complete(balancer.port, max_tokens=9, stream=True)
    assert balancer.metric("output_tokens_total") - before == 33 + 9


@contextlib.contextmanager
def streaming(balancer: Balancer, max_tokens: int, prompt: str = "abc") -> Iterator[socket.socket]:
    """A bare connection on which a stream has been asked for."""
    request = json.dumps({"prompt": prompt, "max_tokens": max_tokens, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(request) + request
        )
        yield client


def test_a_client_that_goes_away_frees_the_replica_at_once(balancer: Balancer, two_replicas: Pair) -> None:
    """The replica sees its connection closed in mid-stream, and nothing stays outstanding."""
    for one in two_replicas:
        one.be("slow")
    gone = sum(one.seen["gone"] for one in two_replicas)
    with streaming(balancer, 10_000) as client:
        client.recv(65536)
        assert balancer.metric("replica_outstanding") == 1
    eventually(lambda: sum(one.seen["gone"] for one in two_replicas) == gone + 1)
    eventually(lambda: balancer.metric("replica_outstanding") == 0)


@pytest.mark.parametrize("fault", ["reset", "502", "503"])
def test_a_failure_before_any_byte_is_retried_once_and_said(balancer: Balancer, two_replicas: Pair, fault: str) -> None:
    """The other replica serves it, a header on both sides and a metric tell; nobody else is asked."""
    first, second = two_replicas
    second.be(fault)
    retries, served = balancer.metric("retries_total"), balancer.metric("retries_served_total")
    counts = first.seen["count"], second.seen["count"]
    answer = complete(balancer.port, words=500)  # the plan sends large prompts to the second type only
    assert answer.status == 200
    assert answer.headers["x-melange-retries"] == "1"
    assert first.seen["last"]["headers"]["X-Melange-Retries"] == "1"
    assert (first.seen["count"], second.seen["count"]) == (counts[0] + 1, counts[1] + 1)
    assert balancer.metric("retries_total") == retries + 1
    assert balancer.metric("retries_served_total") == served + 1


def test_two_failures_are_told_and_not_tried_again(balancer: Balancer, two_replicas: Pair) -> None:
    """The client gets 502, each replica was asked once."""
    counts = [one.seen["count"] for one in two_replicas]
    for one in two_replicas:
        one.be("reset")
    answer = complete(balancer.port)
    assert answer.status == 502
    assert answer.json["error"]["code"] == 502
    assert [one.seen["count"] for one in two_replicas] == [count + 1 for count in counts]


def test_a_stream_that_breaks_is_cut_and_not_repeated(balancer: Balancer, two_replicas: Pair) -> None:
    """After the first byte there is no retry: the client sees a stream without an end."""
    for one in two_replicas:
        one.be("cut")
    count = sum(one.seen["count"] for one in two_replicas)
    with streaming(balancer, 5) as client:
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert received.count(b"data:") == 2
    assert not received.endswith(b"0\r\n\r\n")
    assert sum(one.seen["count"] for one in two_replicas) == count + 1


def test_an_error_of_the_replica_about_the_request_is_passed_on(balancer: Balancer, two_replicas: Pair) -> None:
    """A 400 is the client's answer: it is neither retried nor learned from."""
    for one in two_replicas:
        one.be("400")
    completed = balancer.metric("completed_requests_total")
    answer = complete(balancer.port)
    assert answer.status == 400
    assert answer.json == {"error": "as told"}
    assert balancer.metric("completed_requests_total") == completed


def test_models_health_and_nothing_else_can_be_asked(balancer: Balancer, two_replicas: Pair) -> None:
    """The list of models comes from a replica; tokenizers, metrics of replicas and other paths are not available."""
    assert ask(balancer.port, "/v1/models").json["data"][0]["id"] == "tiny"
    assert ask(balancer.port, "/health").json["replicas_up"] == 2
    for path in ("/tokenize", "/seen", "/v1/audio/speech", "/", "//v1/completions", "/v1/completions/", "/fault"):
        assert ask(balancer.port, path, b"{}").status == 404


def test_metrics_are_what_prometheus_reads(balancer: Balancer) -> None:
    """Every line is a comment or a sample, every sample's family was declared, histograms end in their count."""
    complete(balancer.port, stream=True)
    families: set[str] = set()
    text = ask(balancer.port, "/metrics").body.decode()
    for line in text.splitlines():
        if line.startswith("# TYPE"):
            families.add(line.split()[2])
        elif not line.startswith("#"):
            found = re.fullmatch(r'([a-z_]+)(\{(\w+="[^"]*",?)*\})? (NaN|[0-9.e+-]+)', line)
            assert found, line
            assert found[1] in families or re.sub("_(bucket|sum|count)$", "", found[1]) in families
    last = balancer.metric("latency_seconds_bucket", le="+Inf")
    assert last == balancer.metric("latency_seconds_count") > 0
    assert 0 <= balancer.metric("slo_attainment", limit="all") <= 1


def test_the_live_workload_can_be_planned_on(plan_file: Path, tmp_path: Path) -> None:
    """Buckets are the plan's, sizes what replicas counted, and melange plan --workload takes it."""
    # A balancer of its own: the mean size is that of every request that it has served.
    with Replica() as replica, Balancer(plan_file, f"--replica=A100={replica.url}") as balancer:
        for _ in range(3):
            complete(balancer.port, max_tokens=20)
        eventually(lambda: balancer.metric("completed_requests_total") == 3)
        (tmp_path / "workload.json").write_bytes(ask(balancer.port, "/workload.json").body)
    live = Workload.read(tmp_path / "workload.json")
    assert live.buckets.input_edges == (100, 1000)
    assert live.input_tokens[0, 0] == 7  # by the usage block, whatever the bytes say
    assert live.requests == 3
    small_plan(rate=1e4).question.profile.save(tmp_path / "profile.json")
    files = [f"--{name}={tmp_path / name}.json" for name in ("workload", "profile")]
    result = CliRunner().invoke(app, ["plan", "--quick", *files, "--json"])
    assert result.exit_code == 0, result.output
    plan = json.loads(result.stdout)
    assert plan["workload"]["request_rate"] == live.request_rate.tolist()
    assert plan["cost_per_h"] == pytest.approx(0.8)


def test_many_clients_at_once_lose_nothing(balancer: Balancer) -> None:
    """Sixteen clients with forty requests each are all served."""
    statuses: list[int] = []

    def run() -> None:
        statuses.extend(complete(balancer.port, stream=index % 2 == 0).status for index in range(40))

    threads = [threading.Thread(target=run) for _ in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert statuses == [200] * 640
    assert balancer.metric("replica_outstanding") == 0


def test_replicas_with_unread_prompts_are_passed_over(plan_file: Path) -> None:
    """One that has answered several streams with a first token takes the next before one that has not."""
    with contextlib.ExitStack() as stack:
        replicas = sorted((stack.enter_context(Replica()) for _ in range(2)), key=lambda one: one.url)
        balancer = stack.enter_context(Balancer(plan_file, *(f"--replica=A100={one.url}" for one in replicas)))
        waiting, reading = replicas
        waiting.be("wait")
        reading.be("slow")
        stack.enter_context(streaming(balancer, 10_000, "a " * 100))
        eventually(lambda: waiting.seen["count"] == 1)
        for count in range(1, 4):
            client = stack.enter_context(streaming(balancer, 10_000, "a " * 100))
            assert client.recv(65536)
            assert reading.seen["count"] == count
        waiting.be("slow")
        eventually(lambda: balancer.metric("replica_outstanding") == 4)
        client = stack.enter_context(streaming(balancer, 10_000, "a " * 100))
        assert client.recv(65536)
        assert waiting.seen["count"] == 2
