"""Tables in warehouses, without their servers: the SQL that each is asked, and what must not be shown."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import ibis
import pytest
import sqlglot

from melange.errors import InputError
from melange.service.stages import workload_of
from melange.service.traffic_sections import WorkloadSection
from melange.workload import rows
from melange.workload.dialects import as_number, as_whole
from melange.workload.layouts import find_layout
from melange.workload.logs import Log
from melange.workload.traces import read_trace
from melange.workload.warehouse import DIALECT_BY_SCHEME, WarehouseTable, without_secrets

SCHEMA = {
    "started_at": "timestamp(6)",
    "zoned": "timestamp('UTC', 6)",
    "arrival_s": "float64",
    "input_tokens": "int64",
    "output_tokens": "float64",
    "size": "string",
    "model": "string",
    "cache_hit": "boolean",
}
OF_DIALECT = {"postgres": "DATE_PART('epoch'", "clickhouse": "toUnixTimestamp64Micro", "trino": "TO_UNIXTIME"}


@pytest.mark.parametrize(
    "dialect", sorted({*DIALECT_BY_SCHEME.values()} - {"pyspark"})
)  # which compiles with PySpark alone
@pytest.mark.parametrize("arrival", ["started_at", "zoned", "arrival_s"])
def test_the_query_compiles_to_the_sql_of_each_database(dialect: str, arrival: str) -> None:
    """Parsed times, whole numbers of text, chosen rows, buckets and windows; none needs a cast that may fail."""
    table = ibis.table(SCHEMA, name="requests")
    log = Log(table=table, columns=tuple(SCHEMA), place="requests", kind="table", dialect=dialect)
    columns = {"arrival": arrival, "input": "size", "output": "input_tokens + output_tokens"}
    naming = {"columns": columns, "where": {"model": ["a", None], "cache_hit": False, "input_tokens": 7}}
    found = rows.select_rows(log, find_layout(log.fields, naming, place="requests"))  # type: ignore[arg-type]
    found = rows.with_buckets(found, "input", (10, 100), 0, 500)
    window = ((found.seconds(found.table.arrival) - 5) / 600).floor().cast("int64")
    grouped = found.table.mutate(window=window).group_by("window", "input_bucket")
    sql = ibis.to_sql(grouped.aggregate(n=lambda t: t.count(), tokens=lambda t: t.output.sum()), dialect=dialect)
    assert "TRY_CAST" not in sql.upper()
    assert arrival == "arrival_s" or OF_DIALECT.get(dialect, "") in sql
    name = {"pyspark": "spark"}.get(dialect, dialect)
    assert sqlglot.parse_one(sql, read=name).find(sqlglot.exp.Group)


def test_numbers_in_text_are_read_alike_with_and_without_casts_that_may_fail() -> None:
    """The expressions for other databases, run on DuckDB, against DuckDB's own."""
    texts = [
        "5",
        " 5 ",
        "5.0",
        "5.5",
        "-3",
        "1e3",
        ".5",
        "5.",
        "",
        "x",
        "nan",
        "inf",
        "1e30",
        "+7",
        "0x10",
        "1 0",
        None,
    ]
    table = ibis.memtable({"text": texts}, schema={"text": "string"})
    numbers = {
        dialect: as_whole(as_number(table.text, dialect), dialect, table.text) for dialect in ("duckdb", "postgres")
    }
    found = table.select(**numbers).to_pyarrow().to_pydict()
    assert found["duckdb"] == found["postgres"]


@pytest.mark.parametrize(
    ("connection", "table", "message"),
    [
        ("postgres://reader:sesame@host/logs", "requests", "must not hold a password"),
        ("postgres://reader:${NAME}sesame@host/logs", "requests", "must not hold a password"),
        ("snowflake://reader@account/db?private_key=sesame", "requests", "must not hold a secret: private_key"),
        ("trino://host/logs?auth=sesame", "requests", "must not hold a secret: auth"),
        ("postgress://host/logs", "requests", "did you mean 'postgres'"),
        ("host/logs", "requests", "unknown database"),
        ("postgres://[sesame/logs", "requests", "is not a URL"),
        ("postgres://host/logs", "a..b", "workload.table must be a name"),
        ("postgres://reader:${MELANGE_ABSENT}@host/logs", "requests", "variable MELANGE_ABSENT is not set"),
    ],
)
def test_connections_that_cannot_be(connection: str, table: str, message: str) -> None:
    """Each says what is wrong, and nothing of a secret."""
    section = WorkloadSection(table=table, connection=connection)
    with pytest.raises(InputError, match=message) as caught:
        workload_of(section, lambda name: pytest.fail(name))
    assert "sesame" not in f"{caught.value} {caught.value.hint} {caught.value.__context__!r}"


def test_tables_need_connections_and_the_other_way_round() -> None:
    """With what to write."""
    with pytest.raises(InputError, match="needs workload"):
        workload_of(WorkloadSection(table="requests"), lambda name: pytest.fail(name))
    with pytest.raises(InputError, match="belongs to workload"):
        workload_of(WorkloadSection(dataset="arena", rate=1, connection="postgres://x"), lambda name: pytest.fail(name))


def test_services_of_others_open_no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they read the environment."""
    monkeypatch.setenv("MELANGE_WITHIN", str(Path.cwd()))
    with pytest.raises(InputError, match="databases are not read here"):
        read_trace(WarehouseTable(table="requests", connection="postgres://x:${HOME}@127.0.0.1:1/logs"))


@pytest.mark.parametrize("seed", range(20))
def test_no_secret_is_left_in_what_a_driver_says(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Drawn passwords, as they are, as in a URL, and as Python would print them."""
    drawn = random.Random(seed)
    secret = "".join(drawn.choices("abcXYZ019/@:%?&=#+ '\"\\äß~", k=drawn.randint(4, 24)))
    monkeypatch.setenv("MELANGE_SECRET", secret)
    table = WarehouseTable(table="t", connection="postgres://reader:${MELANGE_SECRET}@host/logs")
    forms: list[Callable[[str], str]] = [str, repr, quote, quote_plus, lambda text: quote(text, safe="")]
    said = " | ".join(f"failed with {form(secret)} at host" for form in forms)
    assert secret not in without_secrets(said, table.secrets())
    assert quote(secret, safe="") not in without_secrets(said, table.secrets())
