"""Gateways with the configurations that melange writes: error of shares, added latency, CPU, and a killed replica.

    python bench/gateways.py [--requests 10000] [--repeats 100]

There are two replicas of a small type and one of a large type, all of them small servers on this machine. One request
size belongs to the small type, one is split 0.65 to 0.35 or 0.35 to 0.65 by max_tokens, and one is split 0.03 to 0.97.
Gateways that are not installed are left out (make test-gateways installs them). The time to the first byte is measured
directly and through each gateway in turn, so that other load on the machine affects all of them equally. CPU time is
that of the gateway with its workers.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "deploy"))

from deploy_cases import GATEWAYS, two_types  # noqa: E402
from running import Gateway, Server, body_of, read_stream, replicas_of, running, serving, split, why_not  # noqa: E402

from melange.deploy.targets.gateways.routes import routes_of  # noqa: E402

SMALL, LARGE = "aws/us-east-1/g5.xlarge", "aws/us-east-1/p4d"
# Prompt tokens and max_tokens; 500 tokens are 2 kB.
SIZES = ((150, 40), (500, 40), (500, 400), (3000, 400))
STREAMS, STREAM_TOKENS = 500, 64
OPEN_STREAMS = 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    targets = [target for target in GATEWAYS if not why_not(target)]
    print(
        f"{'':10}{'share error':>14}{'first byte':>13}{'chunks of':>12}"
        f"{'CPU ms/request':>20}{'memory':>9}{'lost by':>9}"
    )
    print(
        f"{'':10}{'max. points':>14}{'added [ms]':>13}{'20 tokens':>12}"
        f"{'plain':>10}{'stream':>10}{'[MiB]':>9}{'kill -9':>9}"
    )
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(serving({SMALL: 2, LARGE: 1}))
        gateways = [stack.enter_context(running(one, two_types(), servers, folder / one)) for one in targets]
        direct_s, through_s = first_bytes(servers[SMALL][0], gateways, options.repeats)
        print(f"{'direct':10}{'':14}{statistics.median(direct_s) * 1e3:13.2f}")
        for gateway in gateways:
            delay_s = statistics.median(through_s[gateway.target]) - statistics.median(direct_s)
            parts = len(asyncio.run(read_stream(gateway.url, body_of(150, stream=True, tokens=20, gap_s=0.02))))
            off = 100 * split_error(gateway, options.requests)
            plain_ms, stream_ms = cpu_ms(gateway, options.requests // 3)
            memory = open_streams_mib(gateway)
            print(
                f"{gateway.target:10}{off:14.2f}{delay_s * 1e3:+13.2f}{parts:12}{plain_ms:10.3f}{stream_ms:10.2f}"
                f"{memory:9.0f}{lost(gateway.target, folder / 'kill'):>9}",
                flush=True,
            )


def first_bytes(server: Server, gateways: list[Gateway], repeats: int) -> tuple[list[float], dict[str, list[float]]]:
    """Time to the first byte of a stream of two tokens, 100 ms apart: direct, and by gateway [s]."""
    body = body_of(150, stream=True, tokens=2, gap_s=0.1)
    direct_s: list[float] = []
    through_s: dict[str, list[float]] = {gateway.target: [] for gateway in gateways}
    for _ in range(repeats):
        direct_s.append(asyncio.run(read_stream(server.url, body))[0])
        for gateway in gateways:
            through_s[gateway.target].append(asyncio.run(read_stream(gateway.url, body))[0])
    return direct_s, through_s


def split_error(gateway: Gateway, requests: int) -> float:
    """Largest difference between a size's observed and planned share, with mixed sizes, 0-1."""
    order = [SIZES[k % len(SIZES)] for k in range(requests)]
    answered = asyncio.run(replicas_of(gateway.url, [body_of(tokens, max_tokens=most) for tokens, most in order], 16))
    routes = routes_of(two_types())
    errors = []
    for size in SIZES:
        mine = split([name for name, one in zip(answered, order, strict=True) if one == size])
        errors.append(abs(mine[SMALL] / mine.total() - routes.routes[routes.find(*size)].share[0]))
    return max(errors)


def cpu_ms(gateway: Gateway, requests: int) -> tuple[float, float]:
    """CPU time of the gateway for a plain request with a prompt of 2 kB, and for a stream [ms]."""
    before = cpu_s(gateway)
    asyncio.run(replicas_of(gateway.url, [body_of(500)] * requests, 16))
    between = cpu_s(gateway)
    body = body_of(500, stream=True, tokens=STREAM_TOKENS, gap_s=0.005)
    asyncio.run(replicas_of(gateway.url, [body] * STREAMS, 16))
    return (between - before) / requests * 1e3, (cpu_s(gateway) - between) / STREAMS * 1e3


def open_streams_mib(gateway: Gateway) -> float:
    """Resident memory of the gateway while streams are open [MiB]."""

    async def measure() -> float:
        body = body_of(500, stream=True, tokens=3, gap_s=2.0)
        streams = asyncio.create_task(replicas_of(gateway.url, [body] * OPEN_STREAMS, OPEN_STREAMS))
        await asyncio.sleep(3.0)
        resident = sum(_resident_bytes(pid) for pid in _family(gateway.process.pid)) / 2**20
        answered = await streams
        assert all(len(name) > 3 for name in answered), "a stream was refused"
        return resident

    return asyncio.run(measure())


def lost(target: str, folder: Path) -> int:
    """Number of requests without a response, of 2,000 during which one of three replicas is killed."""
    with serving({SMALL: 2, LARGE: 1}) as servers, running(target, two_types(), servers, folder / target) as gateway:

        async def kill_meanwhile() -> list[str]:
            answers = asyncio.create_task(replicas_of(gateway.url, [body_of(150, wait_s=0.02)] * 2000, 32))
            await asyncio.sleep(0.5)
            servers[SMALL][0].end(signal.SIGKILL)
            return await answers

        return sum(len(name) == 3 for name in asyncio.run(kill_meanwhile()))


def cpu_s(gateway: Gateway) -> float:
    """CPU time of a gateway's processes so far [s]."""
    ticks = 0
    for pid in _family(gateway.process.pid):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
