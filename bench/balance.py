"""CPU time, latency and correctness of the balancer, compared with other proxies in the same run.

    python bench/balance.py                        # CPU, first byte, shares, a killed replica, choices (4 minutes)
    python bench/balance.py --quick                # fewer requests (about 1 minute)
    python bench/balance.py --streams 10000        # memory of one process with N slow streams at the same time
    python bench/balance.py --soak 200000          # growth of memory and open files over N requests
    python bench/balance.py --litellm VENV/bin/litellm    # also LiteLLM's proxy, from its own environment
    python bench/balance.py --before OTHER/src     # also another version of melange, from its source folder

The replica is a server that answers at once and needs very little CPU. The proxies are measured in turn, round after
round, so that other load on the machine affects all of them equally. CPU time is that of the proxy's processes; medians
over rounds are printed. HAProxy is included if it is installed. All servers run on this machine and end with the
script.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import resource
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvloop

from balancing import processes
from balancing.choice import choices
from balancing.client import WORDS, Client, Tally, ask_all, request_of
from balancing.processes import Server, running, seen
from balancing.several import several
from melange.plan.plan import Plan

# Targets: CPU relative to the bare aiohttp proxy, added time to the first byte [ms], largest difference of shares.
PLAIN_BAR, STREAM_BAR, FIRST_BYTE_BAR_MS, SHARE_BAR = 0.35, 0.5, 0.5, 0.01
CLIENTS = 16
MIB = 2**20


def main() -> None:
    """Print the requested measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer requests")
    parser.add_argument(
        "--part", choices=("cpu", "first-byte", "shares", "several", "kill", "choice"), help="only this part"
    )
    parser.add_argument("--streams", type=int, help="only this: N slow streams at the same time")
    parser.add_argument("--soak", type=int, help="only this: a soak test of N requests")
    parser.add_argument("--litellm", type=Path, help="the litellm command of another environment")
    parser.add_argument("--before", type=Path, help="the source folder of another version of melange")
    given = parser.parse_args()
    allow_files()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.streams:
            slow_streams(folder, given.streams)
        if given.soak:
            soak(folder, given.soak)
        if given.streams or given.soak:
            return
        parts: dict[str, Callable[[], None]] = {
            "cpu": lambda: cpu(folder, given.quick, given.litellm, given.before),
            "first-byte": lambda: first_byte(folder, given.quick, given.litellm, given.before),
            "shares": lambda: shares(folder, 2000 if given.quick else 10_000),
            "several": lambda: several(planned(folder), folder / "plan.json", 2000 if given.quick else 10_000, EASY),
            "kill": lambda: kill(folder),
            "choice": lambda: choice(folder),
        }
        for part, do in parts.items():
            if given.part in {None, part}:
                do()


def allow_files() -> None:
    """Raise the limit on open files to the maximum, also for the processes that this script starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (65_536, max(65_536, hard)))
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def cpu(folder: Path, is_quick: bool, litellm: Path | None, before: Path | None) -> None:
    """Print the CPU time of each proxy per plain request, and per stream of 64 tokens."""
    rounds, plain, streams = (5, 600, 128) if is_quick else (5, 5000, 1000)
    replica = processes.upstream()
    proxies = {
        "bare aiohttp": processes.bare(replica),
        "bare httptools": processes.bare_httptools(replica),
    }
    proxies["melange balance"] = processes.melange(processes.two_types(folder), [("A", replica)], *EASY)
    if before is not None:
        proxies["melange before"] = processes.melange(folder / "two-types.json", [("A", replica)], *EASY, source=before)
    if shutil.which("haproxy"):
        proxies["HAProxy"] = processes.haproxy(replica, folder)
    if litellm is not None:
        proxies["LiteLLM proxy"] = processes.litellm(replica, folder, litellm)
    used: dict[str, dict[str, list[float]]] = {name: {"plain": [], "stream": []} for name in proxies}
    with running(replica, *proxies.values()):
        for proxy in proxies.values():
            used_by(proxy, [request_of()] * 200)
        for _ in range(rounds):
            for name, proxy in proxies.items():
                part = 20 if name == "LiteLLM proxy" else 1
                used[name]["plain"].append(used_by(proxy, prompts(plain // part)))
                used[name]["stream"].append(used_by(proxy, prompts(streams // part, stream=True), 2 * CLIENTS))
    print(f"CPU of the proxy per request [ms], medians of {rounds} rounds; 2 kB prompts, {CLIENTS} clients at once")
    print(f"{'':20}{'plain':>8}{'ratio':>8}{'64-token stream':>18}{'ratio':>8}")
    base = {kind: statistics.median(values) for kind, values in used["bare aiohttp"].items()}
    for name, kinds in used.items():
        middle = {kind: statistics.median(values) for kind, values in kinds.items()}
        print(
            f"{name:20}{middle['plain']:8.3f}{middle['plain'] / base['plain']:8.2f}"
            f"{middle['stream']:18.3f}{middle['stream'] / base['stream']:8.2f}"
        )
    print(f"{'target':28}{PLAIN_BAR:8.2f}{'':18}{STREAM_BAR:8.2f}")
    if litellm is None:
        print("LiteLLM was not measured: give its command with --litellm")
    print()


def prompts(count: int, *, stream: bool = False) -> list[bytes]:
    """Requests of about 2 kB, with varying lengths."""
    return [request_of(WORDS[: len(WORDS) - k % 200], stream=stream) for k in range(count)]


# Options that avoid queueing and all background work.
EASY = ("--max-fill", "1e9", "--health-path", "/count", "--replan-every", "0")


def used_by(proxy: Server, requests: list[bytes], clients: int = CLIENTS) -> float:
    """CPU time of a proxy per request [ms]."""
    before_s = proxy.cpu_s()
    tally = uvloop.run(ask_all(proxy.port, requests, clients))
    if tally.served != len(requests):
        raise SystemExit(
            f"{proxy.command[0]}: {tally.served} of {len(requests)} requests were served: {tally.statuses}"
        )
    return (proxy.cpu_s() - before_s) / len(requests) * 1e3


def first_byte(folder: Path, is_quick: bool, litellm: Path | None, before: Path | None) -> None:
    """Print the time that each proxy adds to the first byte of a stream."""
    count = 200 if is_quick else 1000
    replica = processes.upstream("--tokens", "4", "--gap-ms", "1")
    ways = {
        "direct": replica,
        "bare aiohttp": processes.bare(replica),
        "bare httptools": processes.bare_httptools(replica),
    }
    ways["melange balance"] = processes.melange(processes.two_types(folder), [("A", replica)], *EASY)
    if before is not None:
        ways["melange before"] = processes.melange(folder / "two-types.json", [("A", replica)], *EASY, source=before)
    if shutil.which("haproxy"):
        ways["HAProxy"] = processes.haproxy(replica, folder)
    if litellm is not None:
        ways["LiteLLM proxy"] = processes.litellm(replica, folder, litellm)
    tallies = {name: Tally() for name in ways}
    with running(*ways.values()):
        uvloop.run(interleaved({name: Client(one.port, tallies[name]) for name, one in ways.items()}, count))
    print(f"First byte of a stream [ms], medians and 99th percentiles of {count} streams, one at a time")
    direct = statistics.median(tallies["direct"].first_s) * 1e3
    for name, tally in tallies.items():
        middle, last = (float(np.percentile(tally.first_s, q)) * 1e3 for q in (50, 99))
        print(f"{name:20}{middle:8.3f}{last:8.3f}   {middle - direct:+.3f} against direct")
    print(f"{'target':36}   +{FIRST_BYTE_BAR_MS:.3f}\n")


async def interleaved(clients: dict[str, Client], count: int) -> None:
    """Send one stream to each proxy in turn."""
    request = request_of(stream=True)
    for _ in range(count):
        for client in clients.values():
            await client.ask(request)


def shares(folder: Path, count: int) -> None:
    """Print the share of requests that each type gets, and the plan's share, for the sizes of a real plan."""
    plan = planned(folder)
    names = [name for name, replicas in plan.replicas.items() for _ in range(replicas)]
    replicas = [processes.upstream() for _ in names]
    kept = [r for r, one in enumerate(plan.replica_types) if plan.replicas[one.name]]
    proxy = processes.melange(folder / "plan.json", list(zip(names, replicas, strict=True)), *EASY)
    with running(proxy, *replicas):
        # Buckets by their planned frequency, at their mean sizes; clients set no limit.
        random = np.random.default_rng(1)
        rates = plan.workload.request_rate.ravel()
        cells = random.choice(len(rates), count, p=rates / rates.sum())
        inputs, outputs = plan.workload.input_tokens.ravel(), plan.workload.output_tokens.ravel()
        requests = [request_of("abc " * int(inputs[cell]), tokens=int(outputs[cell])) for cell in cells]
        tally = uvloop.run(ask_all(proxy.port, requests, 2))
        sent = {plan.replica_types[r].name: 0 for r in kept}
        for name, one in zip(names, replicas, strict=True):
            sent[name] += seen(one)
    print(f"Shares over {count:,} requests of {plan.workload.source.partition(':')[0]}, {tally.served:,} served")
    planned_share = (plan.share * plan.workload.request_rate).sum(axis=(1, 2)) / plan.workload.total_rate
    worst = 0.0
    for r in kept:
        name = plan.replica_types[r].name
        observed = sent[name] / sum(sent.values())
        worst = max(worst, abs(observed - planned_share[r]))
        print(f"{name:44}{planned_share[r]:9.2%} planned{observed:9.2%} observed")
    print(f"largest difference {worst * 100:.2f} points (target {SHARE_BAR * 100:.0f})\n")


def planned(folder: Path) -> Plan:
    """The plan of the chat example."""
    command = [processes.MELANGE, "plan", "--quick", "examples/chat.yaml", "--out", str(folder / "plan.json")]
    subprocess.run(command, cwd=processes.BENCH.parent, check=True, capture_output=True)
    return Plan.read(folder / "plan.json")


def kill(folder: Path) -> None:
    """Kill a replica under load and start it again: print the lost requests, and the time until it is used again."""
    slow = ("--first-ms", "20", "--tokens", "16")
    replicas = [processes.upstream(*slow) for _ in range(3)]
    names = ["A", "A", "B"]
    often = ("--health-every", "0.5")
    proxy = processes.melange(processes.two_types(folder), list(zip(names, replicas, strict=True)), *EASY, *often)
    with running(proxy, *replicas):
        tally, times = uvloop.run(killed(proxy, replicas[1]))
    print("kill -9 of one of three replicas with 32 clients, half of them streaming; restarted after 3 s")
    print(f"served {tally.served:,}; failed without a byte {tally.unbegun}; cut off in mid-stream {tally.cut}; "
          f"other responses {tally.statuses or 'none'}")  # fmt: skip
    print(f"longest time without a response while it was down {times[0]:.2f} s; used again {times[1]:.2f} s after "
          f"its restart\n")  # fmt: skip


async def killed(proxy: Server, victim: Server) -> tuple[Tally, tuple[float, float]]:
    """Run the load with a kill and a restart; the longest gap between responses, and the time to the next request."""
    tally, is_over = Tally(), asyncio.Event()
    kinds = [request_of(), request_of(stream=True)]

    async def run(request: bytes) -> None:
        client = Client(proxy.port, tally)
        while not is_over.is_set():
            await client.ask(request)
        client.close()

    tasks = [asyncio.create_task(run(kinds[number % 2])) for number in range(32)]
    await asyncio.sleep(2)
    victim.end(signal.SIGKILL)
    longest_s, last, last_s = 0.0, tally.served, time.monotonic()
    end_s = last_s + 3
    while time.monotonic() < end_s:
        await asyncio.sleep(0.005)
        if tally.served != last:
            longest_s = max(longest_s, time.monotonic() - last_s)
            last, last_s = tally.served, time.monotonic()
    await asyncio.to_thread(victim.start)
    back_s = time.monotonic()
    while not await asyncio.to_thread(seen, victim):
        await asyncio.sleep(0.02)
    returned_s = time.monotonic() - back_s
    await asyncio.sleep(2)
    is_over.set()
    await asyncio.gather(*tasks)
    return tally, (longest_s, returned_s)


def choice(folder: Path) -> None:
    """Print the CPU time of choosing a replica, by the size of the fleet."""
    plan = planned(folder)
    print("CPU of choosing a replica, booking and releasing a request [us], for the plan of the chat example")
    print(f"{'':18}{'replicas':>10}{'index':>10}{'scan':>10}")
    for name in ("plan-least-work", "prefix-affinity"):
        for replicas in (10, 100, 1000):
            indexed_us, all_us = choices(plan, replicas, 5000, name)
            print(f"{name:18}{replicas:10,}{indexed_us:10.1f}{all_us:10.1f}")
    print()


def slow_streams(folder: Path, count: int) -> None:
    """Print the memory of one process with many streams at the same time, each with a token every two seconds."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = (limit - 100) // 2  # a stream takes two sockets
    if count > most:
        print(f"{count:,} streams need {2 * count + 100:,} sockets, but the limit is {limit:,}: {most:,} are opened")
    replica = processes.upstream("--tokens", "15", "--gap-ms", "2000")
    options = (*EASY, "--max-connections", "1000000", "--idle-timeout", "120")
    proxy = processes.melange(processes.two_types(folder), [("A", replica)], *options)
    with running(proxy, replica):
        before = proxy.memory_bytes()
        began_s = time.monotonic()
        tally, most_open = uvloop.run(opened(proxy, min(count, most)))
        peak, cpu_s = proxy.memory_bytes(peak=True), proxy.cpu_s()
    print(
        f"{min(count, most):,} slow streams in one process, up to {most_open:,} at the same time: "
        f"{tally.served:,} served, {tally.unbegun + tally.cut} failed, {tally.statuses or 'no'} other responses"
    )
    print(
        f"memory {before / MIB:.0f} MiB before, {peak / MIB:.0f} MiB at most (target 1,024); "
        f"CPU {cpu_s:.1f} s in {time.monotonic() - began_s:.0f} s\n"
    )


async def opened(proxy: Server, count: int) -> tuple[Tally, int]:
    """Open all streams within ten seconds; their tally, and the most that the proxy had at the same time."""
    tally, request, most = Tally(), request_of(stream=True), 0

    async def run(number: int) -> None:
        await asyncio.sleep(number / count * 10)
        client = Client(proxy.port, tally)
        await client.ask(request)
        client.close()

    tasks = [asyncio.create_task(run(number)) for number in range(count)]
    for _ in range(10):
        await asyncio.sleep(3)
        most = max(most, await asyncio.to_thread(outstanding, proxy))
        if all(task.done() for task in tasks):
            break
    await asyncio.gather(*tasks)
    return tally, most


def outstanding(proxy: Server) -> int:
    """Outstanding requests of all replicas, from the proxy's metrics."""
    with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("melange_replica_outstanding{")))


def soak(folder: Path, count: int) -> None:
    """Print memory and open files during many requests of all kinds, some with clients that disconnect."""
    first_of_two, second = (processes.upstream("--tokens", "8", "--gap-ms", "1") for _ in range(2))
    proxy = processes.melange(processes.two_types(folder), [("A", first_of_two), ("B", second)], *EASY)
    with running(proxy, first_of_two, second):
        print(
            f"Soak test of {count:,} requests: half plain, half streams of 8 tokens; per 200 requests, one client "
            "disconnects in mid-stream and one sends invalid HTTP"
        )
        print(f"{'requests':>10}{'memory MiB':>12}{'files':>8}")
        steps, done, first = 10, 0, 0
        for step in range(steps + 1):
            print(f"{done:10,}{proxy.memory_bytes() / MIB:12.1f}{proxy.files():8}", flush=True)
            if step == 1:
                first = proxy.memory_bytes()
            if step < steps:
                uvloop.run(soaked(proxy, count // steps))
                done += count // steps
        time.sleep(6)  # idle connections to replicas are closed after 4 s
        print(f"{'idle':>10}{proxy.memory_bytes() / MIB:12.1f}{proxy.files():8}")
        print(f"growth {(proxy.memory_bytes() - first) / MIB:+.1f} MiB from the first tenth to the end\n")


async def soaked(proxy: Server, count: int) -> None:
    """Send one part of the soak test."""
    kinds = [request_of(), request_of(stream=True)]
    requests = [kinds[number % 2] for number in range(count)]
    tally, _ = await asyncio.gather(ask_all(proxy.port, requests, CLIENTS), nuisance(proxy, count // 100))
    if tally.served != count:
        raise SystemExit(f"{tally.served} of {count} requests were served: {tally}")


async def nuisance(proxy: Server, count: int) -> None:
    """Clients that disconnect in mid-stream, and invalid requests."""
    for number in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(request_of(stream=True) if number % 2 else b"POST /v1/completions HTTP/1.1\r\nX\r\n\r\n")
        await reader.read(64)
        writer.close()


if __name__ == "__main__":
    main()
