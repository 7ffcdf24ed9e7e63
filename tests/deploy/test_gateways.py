"""The gateways themselves, with the files that melange writes, before real servers."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from deploy_cases import GATEWAYS, SMALL_SHARE, two_types
from running import Gateway, Server, body_of, check, read_stream, replicas_of, running, serving, split, why_not

import melange

SMALL, LARGE = "aws/us-east-1/g5.xlarge", "aws/us-east-1/p4d"
REQUESTS = 400


@pytest.fixture(scope="module", params=GATEWAYS)
def target(request: pytest.FixtureRequest) -> str:
    """Each gateway that can be run here."""
    if reason := why_not(request.param):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture(scope="module")
def replicas() -> Iterator[dict[str, list[Server]]]:
    """Two servers of the small type and one of the large, for all gateways."""
    with serving({SMALL: 2, LARGE: 1}) as servers:
        yield servers


@pytest.fixture(scope="module")
def steady(
    target: str, replicas: dict[str, list[Server]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway before servers that stay."""
    with running(target, two_types(), replicas, tmp_path_factory.mktemp(target)) as gateway:
        yield gateway


@pytest.fixture
def shaken(target: str, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway before servers of its own, which the test may end."""
    with (
        serving({SMALL: 2, LARGE: 1}) as servers,
        running(target, two_types(), servers, tmp_path / "gateway") as gateway,
    ):
        yield gateway


def test_the_gateway_itself_finds_its_file_right(target: str, tmp_path: Path) -> None:
    """``haproxy -c``, ``nginx -t`` and ``envoy --mode validate`` find no fault and warn of nothing."""
    replicas = {"A10G": ["http://127.0.0.1:8001", "http://[::1]:8001"], "A100-80GB": ["http://127.0.0.1:8002"]}
    melange.render(two_types(), target, replicas=replicas).write(tmp_path)
    done = check(target, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warn" not in (done.stdout + done.stderr).lower()


def test_sizes_are_split_by_the_plans_shares(steady: Gateway) -> None:
    """Each size and limit by itself, all mixed up, to within 5 requests for each thread of its own that counts."""
    rates = two_types().workload.request_rate
    kinds = {
        (150, 40): 1.0,
        (600, 40): SMALL_SHARE[1, 0],
        (600, 400): float((SMALL_SHARE[1] * rates[1]).sum() / rates[1].sum()),
        (3000, 40): SMALL_SHARE[2, 0],
    }
    order = [kind for _ in range(REQUESTS) for kind in kinds]
    bodies = [body_of(tokens, max_tokens=limit) for tokens, limit in order]
    answered = asyncio.run(replicas_of(steady.url, bodies))
    counters = 2 if steady.target == "envoy" else 1
    for kind, share in kinds.items():
        mine = [name for name, of in zip(answered, order, strict=True) if of == kind]
        assert set(split(mine)) <= {SMALL, LARGE}
        assert abs(split(mine)[SMALL] - share * REQUESTS) <= 5 * counters, kind
    small = [name for name in answered if name.startswith(SMALL)]
    assert min(small.count(f"{SMALL}-{k}") for k in range(2)) > 0.3 * len(small)


def test_a_stream_comes_as_it_is_made(steady: Gateway) -> None:
    """Its tokens come one by one, and the first is there for most of the time that the stream takes."""
    body = body_of(150, stream=True, tokens=20, gap_s=0.05)
    moments = asyncio.run(read_stream(steady.url, body))
    assert len(moments) >= 15
    assert moments[0] < 0.3 * moments[-1]


def test_a_replica_that_is_killed_is_replaced(shaken: Gateway) -> None:
    """No request is lost of which no byte had come back, the rest carry on, and the replica returns by itself."""
    first = shaken.servers[SMALL][0]

    async def kill_meanwhile() -> list[str]:
        bodies = [body_of(150, wait_s=0.02)] * 300
        answers = asyncio.create_task(replicas_of(shaken.url, bodies))
        await asyncio.sleep(0.2)
        first.end(signal.SIGKILL)
        return await answers

    answered = asyncio.run(kill_meanwhile())
    assert set(split(answered)) <= {SMALL, LARGE}
    assert split(answered)[SMALL] >= 290
    assert answered.count(f"{SMALL}-0") > 0
    first.start()
    deadline = 100
    while f"{SMALL}-0" not in asyncio.run(replicas_of(shaken.url, [body_of(150, wait_s=0.1)] * 8)):
        deadline -= 1
        assert deadline, "it has not returned"


def test_another_type_stands_in_for_one_that_is_gone(shaken: Gateway) -> None:
    """Long prompts belong to the large type, and are answered while its one replica is not there."""
    (large,) = shaken.servers[LARGE]
    assert split(asyncio.run(replicas_of(shaken.url, [body_of(3000)] * 20)))[LARGE] >= 18
    large.end(signal.SIGKILL)
    answered = asyncio.run(replicas_of(shaken.url, [body_of(3000)] * 60))
    assert set(split(answered)) == {SMALL}


def test_a_body_that_is_too_long_is_refused(steady: Gateway) -> None:
    """413, whether its length is told or not, and the gateway goes on."""
    too_long = b'{"prompt": "' + b"a" * (2**16 + 10_000) + b'"}'
    assert asyncio.run(replicas_of(steady.url, [too_long])) == ["413"]
    assert _chunked(steady.url, too_long) == 413
    assert split(asyncio.run(replicas_of(steady.url, [body_of(150)]))) == {SMALL: 1}


def test_a_client_that_goes_away_ends_the_work(steady: Gateway) -> None:
    """The replica is told before it has begun to answer."""

    async def gone() -> int:
        async with aiohttp.ClientSession() as session:
            answers = [await session.get(f"{one.url}/gone") for some in steady.servers.values() for one in some]
            return sum([int(await answer.text()) for answer in answers])

    async def give_up() -> None:
        before, timeout = await gone(), aiohttp.ClientTimeout(total=0.5)
        with pytest.raises(TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(f"{steady.url}/v1/completions", data=body_of(3000, wait_s=60.0, max_tokens=400)),
            ):
                pass
        for _ in range(200):
            if await gone() == before + 1:
                return
            await asyncio.sleep(0.02)
        raise AssertionError("the replica still works")

    asyncio.run(give_up())


def test_clients_cannot_choose_their_type(steady: Gateway) -> None:
    """A header of the gateway's own is replaced, and no request chooses another upstream."""

    async def ask() -> str:
        headers = {"x-melange-type": "aws-us-east-1-p4d", "Host": "elsewhere.example"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{steady.url}/v1/completions", data=body_of(150), headers=headers) as response,
        ):
            return response.headers["X-Replica"]

    assert split([asyncio.run(ask()) for _ in range(4)]) == {SMALL: 4}


def test_what_is_no_completion_is_passed_on(steady: Gateway) -> None:
    """Bodies without JSON, with limits that are none, and none at all: the replica says what it makes of them."""
    bodies = [b"no json", b"", b'{"prompt": "a", "max_tokens": "many"}', b'{"prompt": "a", "max_tokens": -1}']
    assert set(split(asyncio.run(replicas_of(steady.url, bodies)))) <= {SMALL, "500"}


def test_haproxy_takes_new_weights_while_it_runs(replicas: dict[str, list[Server]], tmp_path: Path) -> None:
    """Over its socket, for the requests from then on."""
    if reason := why_not("haproxy"):
        pytest.skip(reason)
    with running("haproxy", two_types(), replicas, tmp_path / "gateway") as gateway:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(gateway.folder / "admin.sock"))
            admin.sendall(b"experimental-mode on; set var proc.route1_aws_us_east_1_g5_xlarge int(2500)\n")
            admin.recv(1000)
        answered = split(asyncio.run(replicas_of(gateway.url, [body_of(150)] * REQUESTS)))
        assert abs(answered[SMALL] - 0.25 * REQUESTS) <= 5


def test_nginx_takes_a_new_plan_while_it_runs(replicas: dict[str, list[Server]], tmp_path: Path) -> None:
    """A new file and a reload: short prompts, which the small type had, go to the large one."""
    if reason := why_not("nginx"):
        pytest.skip(reason)
    plan = two_types()
    urls = {kind: [server.url for server in some] for kind, some in replicas.items()}
    with running("nginx", plan, replicas, tmp_path / "gateway") as gateway:
        assert split(asyncio.run(replicas_of(gateway.url, [body_of(150)] * 20))) == {SMALL: 20}
        other = replace(plan, share=plan.share[::-1])
        listen = gateway.url.removeprefix("http://")
        melange.render(other, "nginx", replicas=urls, listen=listen).write(gateway.folder)
        gateway.process.send_signal(signal.SIGHUP)
        # For a moment old workers answer as well; they close what they have open, so nothing is left open here.
        for _ in range(100):
            if split(asyncio.run(replicas_of(gateway.url, [body_of(150)] * 20, is_reusing=False))) == {LARGE: 20}:
                return
        raise AssertionError("the new plan is not there")


def _chunked(url: str, body: bytes) -> int:
    """Status of a body that is sent without saying how long it is."""

    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    async def send() -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{url}/v1/completions", data=parts()) as response,
        ):
            return response.status

    return asyncio.run(send())
