"""Servers of databases on the loopback address, each with the same log; absent ones are skipped with the reason."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from served import PASSWORD, ROWS, Served, free_port


@pytest.fixture(scope="session")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A week of requests with times, flags, failed rows and sizes of whole numbers."""
    import duckdb

    file = tmp_path_factory.mktemp("log") / "requests.parquet"
    step = 8 * 86400 / ROWS
    with duckdb.connect() as connection:
        connection.execute("SELECT setseed(0.25)")
        connection.execute(
            f"COPY (SELECT make_timestamp(1762000000000000 + (({step} * (i + random())) * 1e6)::BIGINT) AS started_at, "
            "1762000000 + i * 1.5 AS arrival_s, "
            "least(1 + floor(150 * exp(1.2 * (random() + random() - 1))), 4000)::INT AS input_tokens, "
            " (CASE WHEN random() < 0.01 THEN 0 ELSE floor(1 + 300 * random()) END)::DOUBLE "
            "AS output_tokens, ['llama', 'Llama-sql', NULL][1 + (i % 3)] AS model, i % 7 = 0 AS cache_hit "
            f"FROM range({ROWS}) AS rows(i)) TO '{file}' (FORMAT parquet)"
        )
    return file


def _wait(port: int, process: subprocess.Popen[bytes], most_s: float = 120.0) -> None:
    """Until it listens."""
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        assert process.poll() is None, "the server ended"
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


@pytest.fixture(scope="session")
def postgres(log: Path) -> Iterator[Served]:
    """PostgreSQL, as Debian has it; it does not run as root."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: postgresql)")
    psycopg = pytest.importorskip("psycopg")
    import duckdb

    folder = Path(tempfile.mkdtemp(prefix="melange-postgres-"))  # pytest's own are closed to other users
    as_user = [] if os.getuid() else ["runuser", "-u", "postgres", "--"]
    if as_user:
        shutil.chown(folder, "postgres")
    (folder / "password").write_text(PASSWORD)
    (folder / "password").chmod(0o644)
    data, port, binaries = folder / "data", free_port(), found[-1].parent
    given = ["-D", str(data), "-U", "reader", "-A", "scram-sha-256", f"--pwfile={folder / 'password'}", "-N"]
    subprocess.run([*as_user, str(binaries / "initdb"), *given], check=True, capture_output=True, cwd=folder)
    settings = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
    command = [*as_user, str(binaries / "postgres"), "-D", str(data), *(f"-c{one}" for one in settings)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(port, process)
        csv = folder / "requests.csv"
        duckdb.sql(f"COPY (FROM '{log}') TO '{csv}' (FORMAT csv, HEADER false)")
        columns = "started_at timestamp, arrival_s double precision, input_tokens integer, "
        columns += "output_tokens double precision, model text, cache_hit boolean"
        end = time.monotonic() + 30
        while True:
            try:
                connection = psycopg.connect(
                    host="127.0.0.1", port=port, user="reader", password=PASSWORD, dbname="postgres"
                )
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.2)
        with connection, connection.cursor() as cursor:
            cursor.execute("CREATE SCHEMA logs")
            cursor.execute(f"CREATE TABLE logs.requests ({columns})")
            with cursor.copy("COPY logs.requests FROM STDIN (FORMAT csv)") as copy, csv.open("rb") as stream:
                while part := stream.read(1 << 20):
                    copy.write(part)
        url = f"postgres://reader:${{MELANGE_TEST_PASSWORD}}@127.0.0.1:{port}/postgres"
        yield Served(url, "logs.requests", PASSWORD)
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def clickhouse(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """ClickHouse's engine behind its HTTP interface."""
    pytest.importorskip("chdb", reason="chdb is not installed")
    folder, port = tmp_path_factory.mktemp("clickhouse"), free_port()
    tables = "CREATE DATABASE IF NOT EXISTS logs; CREATE TABLE logs.requests ENGINE = MergeTree ORDER BY tuple() AS "
    tables += f"SELECT * FROM file('{log}', Parquet)"
    script = Path(__file__).with_name("clickhouse_server.py")
    command = [sys.executable, str(script), str(port), "reader", PASSWORD, str(folder / "data"), tables]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        _wait(port, process)
        yield Served(f"clickhouse://reader:${{MELANGE_TEST_PASSWORD}}@127.0.0.1:{port}/logs", "logs.requests", PASSWORD)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def spark(log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Spark in this process, on the loopback address."""
    pyspark = pytest.importorskip("pyspark.sql", reason="pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("no Java (Debian: openjdk-17-jre-headless)")
    folder = tmp_path_factory.mktemp("spark")
    session = (
        pyspark.SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.warehouse.dir", str(folder))
        .config("spark.log.level", "OFF")
        .getOrCreate()
    )
    try:
        session.read.parquet(str(log)).createOrReplaceTempView("requests")
        yield Served("spark://", "requests", "")
    finally:
        session.stop()
