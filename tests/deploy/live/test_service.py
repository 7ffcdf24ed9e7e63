from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest
from balance_cases import Balancer, Replica, ask, complete, eventually, small_plan
from typer.testing import CliRunner

from melange.cli.app import app

FAST, TWO = ("--health-every", "0.1"), ("--processes", "2")


def load(balancer: Balancer, clients: int, stop: threading.Event) -> tuple[list[threading.Thread], list[int]]:
    """Clients that ask one completion after the other until told to stop, and the statuses they get."""
    statuses: list[int] = []

    def run() -> None:
        while not stop.is_set():
            statuses.append(complete(balancer.port).status)

    threads = [threading.Thread(target=run) for _ in range(clients)]
    for one in threads:
        one.start()
    return threads, statuses


def test_no_request_is_lost_when_a_replica_is_killed_and_it_returns_by_itself(plan_file: Path) -> None:
    """Under load every request is served by the rest; started again on its port, it gets its share again."""
    with Replica() as first, Replica() as second, Replica("wait") as victim:
        urls = [f"--replica={name}={one.url}" for name, one in (("L4", first), ("A100", second), ("A100", victim))]
        with Balancer(plan_file, *urls, *FAST) as balancer:
            stop = threading.Event()
            threads, statuses = load(balancer, 4, stop)
            # Those that it holds are without a byte of an answer.
            eventually(lambda: balancer.metric("replica_outstanding", url=victim.url) >= 1)
            victim.end(signal.SIGKILL)
            eventually(lambda: balancer.metric("replica_up", url=victim.url) == 0)
            done = len(statuses)
            eventually(lambda: len(statuses) > done + 50)
            with Replica(port=victim.port) as again:
                eventually(lambda: again.seen["count"] > 10)
                stop.set()
                for one in threads:
                    one.join()
            assert set(statuses) == {200}
            assert balancer.metric("retries_served_total") >= 1
            assert balancer.metric("replica_ejections_total", url=victim.url) == 1


def test_a_replica_that_answers_wrongly_is_ejected_and_returns(plan_file: Path) -> None:
    """Three failures in a row, or checks that fail, take it out; checks that pass bring it back."""
    with Replica() as first, Replica("ill") as second:
        urls = (f"--replica=L4={first.url}", f"--replica=A100={second.url}")
        with Balancer(plan_file, *urls, *FAST) as balancer:
            assert ask(balancer.port, "/health").json["replicas_up"] == 1
            assert complete(balancer.port, words=500).status == 200
            second.be("")
            eventually(lambda: balancer.metric("replica_up", url=second.url) == 1)
            second.be("500")
            statuses = [complete(balancer.port, words=500).status for _ in range(4)]
            assert statuses == [500, 500, 500, 200]
            assert balancer.metric("replica_up", url=second.url) == 0
            first.be("ill")
            eventually(lambda: ask(balancer.port, "/health").status == 503)
            answer = complete(balancer.port)
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert balancer.metric("unserved_requests_total", reason="none_up") == 1


def test_a_file_of_replicas_is_taken_up_when_it_changes(plan_file: Path, tmp_path: Path) -> None:
    """New replicas get requests, those that left get none, a broken file changes nothing."""
    listing = tmp_path / "replicas.txt"
    with Replica() as first, Replica() as second:
        listing.write_text(f"# all of them\nA100 {first.url}  # one\n")
        with Balancer(plan_file, "--replicas", str(listing), *FAST) as balancer:
            assert complete(balancer.port).status == 200
            listing.write_text(f"cloud/east/a100 (A100)={second.url}\n")
            eventually(lambda: balancer.metric("replica_up", url=second.url) == 1)
            count = first.seen["count"]
            assert [complete(balancer.port).status for _ in range(5)] == [200] * 5
            assert (first.seen["count"], second.seen["count"]) == (count, 5)
            listing.write_text("H100=http://127.0.0.1:1\n")
            balancer.await_line("replicas unchanged")
            assert complete(balancer.port).status == 200


def test_sigterm_lets_streams_finish_and_takes_nothing_new(plan_file: Path) -> None:
    """A stream that has begun comes to its end, the port is closed meanwhile, and the exit code is 0."""
    with Replica("pause") as replica, Balancer(plan_file, f"--replica=A100={replica.url}", *FAST) as balancer:
        body = json.dumps({"prompt": "abc", "max_tokens": 4, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
            client.sendall(head + body)
            received = client.recv(65536)
            balancer.process.send_signal(signal.SIGTERM)
            eventually(lambda: not balancer.is_open())
            assert balancer.process.poll() is None
            replica.be("")
            while piece := client.recv(65536):
                received += piece
        assert received.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert balancer.process.wait(10) == 0


def test_a_drain_has_an_end(plan_file: Path) -> None:
    """A stream that goes on for longer than the limit is cut off."""
    with Replica("slow") as replica, Balancer(plan_file, f"--replica=A100={replica.url}", "--drain=0.3") as balancer:
        body = json.dumps({"prompt": "abc", "max_tokens": 100_000, "stream": True}).encode()
        head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
            client.sendall(head + body)
            assert client.recv(65536)
            assert balancer.end() == 0
            while client.recv(65536):
                pass
        assert replica.seen["gone"] == 1


@pytest.mark.heavy
def test_silent_replicas_and_stalled_clients_are_given_up(plan_file: Path) -> None:
    """A silent replica gives 504 and nobody else is asked; the stream of a client that reads nothing is cut."""
    options = ("--answer-timeout", "0.5", "--write-timeout", "0.5")
    with Replica("wait") as silent, Replica() as other:
        urls = (f"--replica=A100={silent.url}", f"--replica=L4={other.url}")
        with Balancer(plan_file, *urls, *options, *FAST) as balancer:
            assert complete(balancer.port, words=500).status == 504
            assert other.seen["count"] == 0
            eventually(lambda: silent.seen["gone"] == 1)
            silent.be("")
            body = json.dumps({"prompt": "abc " * 500, "max_tokens": 1_000_000, "stream": True}).encode()
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            with socket.create_connection(("127.0.0.1", balancer.port), 10) as client:
                client.sendall(head + body)
                eventually(lambda: silent.seen["gone"] == 2)
            assert balancer.metric("replica_outstanding") == 0


def test_full_queues_are_told_to_come_again(tmp_path: Path) -> None:
    """With every replica over its limit a request gets 429 at once, and none is sent on."""
    plan = small_plan(rate=0.001).save(tmp_path / "plan.json")  # a request fills a replica
    with Replica("wait") as replica:
        url = f"--replica=A100={replica.url}"
        with Balancer(plan, url, "--max-fill", "1.5", "--retry-after", "7", *FAST) as balancer:
            threads = [threading.Thread(target=complete, args=(balancer.port,)) for _ in range(2)]
            for one in threads:
                one.start()
            eventually(lambda: balancer.metric("replica_outstanding") == 2)
            answer = complete(balancer.port)
            assert answer.status == 429
            assert answer.headers["retry-after"] == "7"
            assert balancer.metric("unserved_requests_total", reason="busy") == 1
            assert balancer.metric("slo_judged_requests_total", limit="all") == 1
            assert replica.seen["count"] == 2
            replica.be("")
            for one in threads:
                one.join()
            assert complete(balancer.port).status == 200


def test_keys_and_tls(plan_file: Path, tmp_path: Path) -> None:
    """Over TLS only, and only with a key, which replicas do not get to see but their own."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(cert)]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names], check=True, capture_output=True)
    keys = tmp_path / "keys"
    keys.write_text("# two keys\nfirst-key-0123456789abcdef\nsecond-key-0123456789abcdef\n")
    context = ssl.create_default_context(cafile=str(cert))
    options = ("--api-keys", str(keys), "--tls-cert", str(cert), "--tls-key", str(key))
    with (
        Replica() as replica,
        Balancer(
            plan_file, f"--replica=A100={replica.url}", *options, tls=context, MELANGE_UPSTREAM_KEY="theirs"
        ) as one,
    ):
        body = {"prompt": "abc", "max_tokens": 2}
        for wrong in ("", "Bearer", "Bearer first-key", "Basic first-key-0123456789abcdef", "Bearer \xff"):
            answer = ask(one.port, "/v1/completions", body, tls=context, Authorization=wrong)
            assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        for path in ("/metrics", "/workload.json", "/drift.json", "/v1/models"):
            assert ask(one.port, path, tls=context).status == 401
        assert replica.seen["count"] == 0
        given = "bearer second-key-0123456789abcdef"
        assert ask(one.port, "/v1/completions", body, tls=context, Authorization=given).status == 200
        assert replica.seen["last"]["headers"]["Authorization"] == "Bearer theirs"
        with pytest.raises(OSError):  # noqa: PT011  (plain HTTP is reset or cut off)
            ask(one.port, "/v1/completions", body)
        one.end()
        log = "\n".join(one.lines)
        assert "key-0123" not in log
        assert "theirs" not in log


def test_processes_share_a_port_and_are_counted_together(plan_file: Path) -> None:
    """Two processes serve one port, any of them says what both did, and one that is killed is replaced."""
    with Replica() as replica, Balancer(plan_file, f"--replica=A100={replica.url}", *TWO, *FAST) as balancer:
        for _ in range(60):
            assert complete(balancer.port).status == 200
        eventually(lambda: balancer.metric("completed_requests_total") == 60)  # counted once an answer is sent
        for _ in range(10):  # by whichever of the two
            assert balancer.metric("completed_requests_total") == 60
        assert balancer.metric("processes") == 2
        assert ask(balancer.port, "/workload.json").json["requests"] == 60
        children = Path(f"/proc/{balancer.process.pid}/task/{balancer.process.pid}/children").read_text().split()
        assert len(children) == 2
        os.kill(int(children[0]), signal.SIGKILL)
        balancer.await_line("ended (-9)")
        eventually(lambda: all(_is_served(balancer) for _ in range(10)))
        assert balancer.metric("completed_requests_total") >= 60
        # Without its supervisor nobody would replace them: they stop.
        os.kill(balancer.process.pid, signal.SIGKILL)
        eventually(lambda: not balancer.is_open())


def _is_served(balancer: Balancer) -> bool:
    try:
        return complete(balancer.port).status == 200
    except OSError:
        return False


def test_drift_is_said_when_a_new_plan_would_be_cheaper(tmp_path: Path) -> None:
    """Small prompts only, at a fraction of the planned rate: a plan of the cheap type alone is found, and told."""
    plan = small_plan(rate=1e4).save(tmp_path / "plan.json")
    with Replica() as replica:
        options = ("--replan-every", "0.5", "--window", "60", "--processes", "1", *FAST)
        with Balancer(plan, f"--replica=A100={replica.url}", *options) as balancer:
            assert ask(balancer.port, "/workload.json").status == 404
            assert ask(balancer.port, "/drift.json").json["state"] == "unknown"
            for _ in range(1100):
                complete(balancer.port)
            eventually(lambda: ask(balancer.port, "/drift.json").json["state"] == "cheaper")
            found = ask(balancer.port, "/drift.json").json
            assert found["cost_per_h"] == 5.6
            assert found["new_cost_per_h"] == pytest.approx(0.8)
            assert balancer.metric("replan_cost_usd_per_hour") == pytest.approx(0.8)
            assert balancer.metric("drift_state", state="cheaper") == 1
            assert "85.7% cheaper" in balancer.await_line("instead of 5.60")


def test_the_replicas_tokenizer_can_count(plan_file: Path) -> None:
    """With --tokenizer a prompt's size is what /tokenize says, and bytes where it does not answer."""
    with Replica() as replica, Balancer(plan_file, f"--replica=A100={replica.url}", "--tokenizer") as balancer:
        words = "incomprehensibilities " * 99
        ask(balancer.port, "/v1/completions", {"prompt": words, "max_tokens": 2})
        assert balancer.metric("arrived_requests_total", input_upto='100"') == 1


@pytest.mark.heavy
def test_slow_streams_and_repeats_leak_nothing(plan_file: Path) -> None:
    """After 300 streams at once and 1,500 requests, a process has the files and about the memory that it began with."""
    with Replica("pause") as replica, Balancer(plan_file, f"--replica=A100={replica.url}") as balancer:
        child = Path(f"/proc/{balancer.process.pid}/task/{balancer.process.pid}/children").read_text().split()[0]
        body = json.dumps({"prompt": "abc", "max_tokens": 4, "stream": True}).encode()
        request = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        for _ in range(300):
            complete(balancer.port, max_tokens=1)
        files, memory = files_of(child), memory_of(child)
        clients = [socket.create_connection(("127.0.0.1", balancer.port), 10) for _ in range(300)]
        for client in clients:
            client.sendall(request)
        eventually(lambda: balancer.metric("replica_outstanding") == 300)
        replica.be("")
        for client in clients:
            received = b""
            while b"[DONE]\n\n" not in received:
                received += client.recv(65536)
            client.close()
        for _ in range(1200):
            complete(balancer.port, max_tokens=1)
        # Connections to the replica are kept for some seconds.
        eventually(lambda: files_of(child) <= files + 8)
        assert memory_of(child) - memory < 40 * 2**20
        assert balancer.metric("replica_outstanding") == 0


def files_of(process: str) -> int:
    """Open files of a process."""
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def memory_of(process: str) -> int:
    """Resident memory of a process [bytes]."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give replicas on the command line or in a file"),
        (["--replica", "http://127.0.0.1:1"], "must be NAME=http://host:port"),
        (["--replica", "H100=http://127.0.0.1:1"], "unknown replica type 'H100'"),
        (["--replica", "east=http://127.0.0.1:1"], "is ambiguous: cloud/east/l4 (L4), cloud/east/a100 (A100)"),
        (["--replica", "L4=ftp://127.0.0.1:1"], "must be http://host:port or https://host:port"),
        (["--replica", "L4=http://a:1", "--replica", "a100=http://a:1"], "is given twice"),
        (["--replica", "L4=http://a:1", "--policy", "best"], "unknown policy 'best'"),
        (["--replica", "L4=http://a:1", "--tls-cert", "x.pem"], "TLS needs a certificate and its key"),
        (["--replica", "L4=http://a:1", "--drain", "0"], "--drain must be > 0 seconds and finite, got 0"),
        (["--replica", "L4=http://a:1", "--max-fill", "nan"], "--max-fill must be > 0 and finite, got nan"),
        (["--replica", "L4=http://a:1", "--health-every", "inf"], "--health-every must be > 0 seconds and finite"),
        (["--replica", "L4=http://a:1", "--max-body-mib", "nan"], "--max-body-mib must be > 0 and finite, got nan"),
        (["--replica", "L4=http://a:1", "--max-body-mib", "1e-9"], "--max-body-mib must be"),
        (["--replica", "L4=http://a:1", "--bytes-per-token", "-1"], "--bytes-per-token must be > 0 and finite, got -1"),
        (["--replica", "L4=http://a:1", "--host", "192.0.2.1"], "192.0.2.1:8080: cannot listen"),
    ],
)
def test_mistakes_are_told_before_anything_is_served(plan_file: Path, options: list[str], said: str) -> None:
    """Each with what was found and what to do."""
    result = CliRunner().invoke(app, ["balance", str(plan_file), *options])
    assert result.exit_code == 1
    assert said in str(result.exception)


def test_a_busy_loop_is_never_waited_for(plan_file: Path) -> None:
    """The command ends within its limits although nobody listens where a replica should be."""
    with Balancer(plan_file, "--replica=A100=http://127.0.0.1:9", *FAST) as balancer:
        assert complete(balancer.port).status == 503
        began_s = time.monotonic()
        assert balancer.end() == 0
        assert time.monotonic() - began_s < 30
