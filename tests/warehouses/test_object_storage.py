"""The same log in an S3-compatible store gives the same workload, cell for cell, as in files."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from served import free_port

from melange.errors import InputError
from melange.workload import object_storage
from melange.workload.arrivals import read_arrivals
from melange.workload.over_time import read_demand
from melange.workload.traces import read_trace

boto3 = pytest.importorskip("boto3", reason="moto is not installed")
SECRET = f"secret-{secrets.token_hex(8)}"
DAYS = 8


@pytest.fixture(scope="module")
def days(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log as a folder of daily files: Parquet, CSV and packed JSONL."""
    import duckdb

    folder = tmp_path_factory.mktemp("days")
    with duckdb.connect() as connection:
        (first,) = connection.execute(f"SELECT min(started_at) FROM '{log}'").fetchone()  # type: ignore[misc] # it has rows
        for kind, options in (
            ("parquet", "FORMAT parquet"),
            ("csv", "FORMAT csv, HEADER"),
            ("jsonl.gz", "FORMAT json, COMPRESSION gzip"),
        ):
            for day in range(DAYS):
                place = folder / kind.partition(".")[0] / f"day={day}" / f"requests.{kind}"
                place.parent.mkdir(parents=True, exist_ok=True)
                part = f"date_diff('hour', TIMESTAMP '{first}', started_at) // 24 = {day}"
                text = "strftime(started_at, '%Y-%m-%dT%H:%M:%S.%fZ') AS started_at, * EXCLUDE (started_at)"
                fields = "*" if kind == "parquet" else text
                connection.execute(f"COPY (SELECT {fields} FROM '{log}' WHERE {part}) TO '{place}' ({options})")
    return folder


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The server's address."""
    port = free_port()
    with (tmp_path_factory.mktemp("s3") / "log").open("wb") as said:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=said, stderr=said)
    address = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            urllib.request.urlopen(address)
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    yield address
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def bucket(endpoint: str, days: Path) -> str:
    """A bucket with the files, and with others that are no logs."""
    client = boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="reader", aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket="logs")
    for file in sorted(days.rglob("*.*")):
        client.upload_file(str(file), "logs", f"chat/{file.relative_to(days)}")
    for name in ("chat/parquet/_SUCCESS", "chat/csv/readme.txt", "chat/csv/.hidden.csv"):
        client.put_object(Bucket="logs", Key=name, Body=b"no log")
    client.put_object(
        Bucket="logs", Key="broken/requests.csv", Body=b"arrival_s,input_tokens,output_tokens\n0,many,3\n"
    )
    client.put_object(Bucket="logs", Key="empty/requests.csv", Body=b"")
    return "logs"


@pytest.fixture(autouse=True)
def environment(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials, where AWS tools look for them; nothing is known from another test."""
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "reader"),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(object_storage, "_fetched", {})


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("s3://{}/chat/parquet/*/*.parquet", "parquet"),
        ("s3://{}/chat/parquet", "parquet"),
        ("s3://{}/chat/**/requests.csv", "csv"),
        ("s3://{}/chat/csv/", "csv"),
        ("s3://{}/chat/jsonl/day=[0-9]/*.jsonl.gz", "jsonl"),
        ("s3://{}/chat/parquet/day=3/requests.parquet", "parquet/day=3"),
    ],
)
@pytest.mark.parametrize("arrival", ["started_at", "arrival_s"])
def test_a_store_gives_the_workload_of_the_files(
    bucket: str, days: Path, address: str, local: str, arrival: str
) -> None:
    """Every cell is equal, not close: the same bytes are read."""
    columns = {"arrival": arrival, "input": "input_tokens", "output": "output_tokens"}
    theirs, ours = (
        read_trace(source, columns=columns, where={"model": ["llama", None]})
        for source in (address.format(bucket), days / local)
    )
    assert theirs.requests == ours.requests > 0
    assert theirs.failed_requests == ours.failed_requests
    assert np.array_equal(theirs.request_rate, ours.request_rate)
    assert np.array_equal(theirs.input_tokens, ours.input_tokens)
    assert np.array_equal(theirs.output_tokens, ours.output_tokens)
    assert theirs.burstiness == ours.burstiness


def test_a_store_gives_the_week_and_the_requests_of_the_files(bucket: str, days: Path) -> None:
    """Copied once for both."""
    columns = {"arrival": "started_at", "input": "input_tokens", "output": "output_tokens"}
    url = f"s3://{bucket}/chat/parquet"
    theirs, ours = (read_demand(source, columns=columns) for source in (url, days / "parquet"))
    assert np.array_equal(theirs.rate, ours.rate)
    (copies,) = object_storage._fetched.values()
    played, own = (read_arrivals(source, columns=columns) for source in (url, days / "parquet"))
    assert object_storage._fetched[url] is copies
    assert len(copies.files) == DAYS
    assert np.array_equal(played.arrival_s, own.arrival_s)
    assert np.array_equal(np.sort(played.input_tokens), np.sort(own.input_tokens))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://{}/chat/parquet/2031-*/*.parquet", "no file matches"),
        ("s3://{}/nowhere", "no file matches"),
        ("s3://nowhere/chat/*.csv", "there is no such bucket: nowhere"),
        ("s3://nowhere", "there is no such bucket: nowhere"),
        ("s3://*/chat.csv", "the bucket must be named"),
        ("s3://me:{0}@{0}/chat.csv", "must not hold credentials"),
        ("s3://{}/broken", "s3://logs/broken/requests.csv"),
        ("s3://{}/empty", "s3://logs/empty/requests.csv: the file is empty"),
        ("https://example.org/requests.csv", "https:// is not supported"),
        ("az://{}/requests.csv", "az:// is not supported"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(bucket: str, address: str, said: str) -> None:
    """With the address, not with the place of a copy."""
    with pytest.raises(InputError) as caught:
        read_trace(address.format(bucket))
    assert said in str(caught.value)
    assert "melange-log-" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint or "/broken" in address or "/empty" in address


@pytest.mark.parametrize("fault", ["key", "endpoint"])
def test_secrets_are_in_no_error(
    bucket: str, endpoint: str, fault: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Wrong credentials, or no server."""
    if fault == "endpoint":
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    else:
        _ask_for_rights(endpoint, 0)
    try:
        with pytest.raises(InputError) as caught:
            read_trace(f"s3://{bucket}/chat/parquet")
    finally:
        if fault == "key":
            _ask_for_rights(endpoint, "inf")
    assert {"key": "access is denied", "endpoint": "cannot be read"}[fault] in str(caught.value)
    assert "AWS_" in caught.value.hint
    shown = capfd.readouterr()
    assert SECRET not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r} {shown}"


def _ask_for_rights(endpoint: str, calls: float | str) -> None:
    """After this many more calls the server checks who asks."""
    request = urllib.request.Request(f"{endpoint}/moto-api/reset-auth", data=f"{calls}".encode(), method="POST")
    request.add_header("Content-Type", "text/plain")
    urllib.request.urlopen(request)


def test_what_servers_plan_for_others_is_not_fetched(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the rights of their owner; unless he says so."""
    monkeypatch.setenv("MELANGE_WITHIN", str(tmp_path))
    with pytest.raises(InputError, match="are not read here"):
        read_trace(f"s3://{bucket}/chat/parquet")
    monkeypatch.setenv("MELANGE_REMOTE", "1")
    assert read_trace(f"s3://{bucket}/chat/parquet").requests


def test_a_service_and_the_commands_take_an_address(bucket: str, tmp_path: Path) -> None:
    """The copies are removed at the end of each."""
    (tmp_path / "service.yaml").write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {ttft_ms: 2000, tpot_ms: 80}\n"
        "workload: {trace: 's3://logs/chat/csv/day=1', columns: {arrival: arrival_s, input: input_tokens, "
        "output: output_tokens}, rate: 4}\noffers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "MELANGE_DATA": "/none"}
    for words in (
        ["plan", "service.yaml", "--quick", "--out", "plan.json"],
        ["workload", "s3://logs/chat/csv/day=1", "--columns=arrival=arrival_s,input=input_tokens,output=output_tokens"],
        ["validate", "plan.json", "--trace", "s3://logs/chat/parquet/day=1", "--requests=50", "--seeds=1"],
    ):
        command = [sys.executable, "-c", "from melange.cli import main; main()", *words]
        found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert found.returncode in (0, 1), found.stderr
        assert SECRET not in found.stdout + found.stderr
    assert not list(tmp_path.glob("melange-log-*"))
    assert SECRET not in (tmp_path / "plan.json").read_text()
