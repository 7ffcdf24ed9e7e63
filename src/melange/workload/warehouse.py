"""Request logs in data warehouses: a table, and a connection whose secrets come from the environment.

A secret is never in the service file: a URL that holds one is an error. Secrets are filled in when the connection is
opened, and removed from messages of the driver. None of them is saved.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

from melange.errors import InputError, unknown
from melange.files import check_remote

# The database as named by Ibis, by the scheme of the URL.
DIALECT_BY_SCHEME = {
    "postgres": "postgres",
    "postgresql": "postgres",
    "clickhouse": "clickhouse",
    "spark": "pyspark",
    "pyspark": "pyspark",
    "bigquery": "bigquery",
    "snowflake": "snowflake",
    "trino": "trino",
}
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|key|credential|auth", re.IGNORECASE)
# Variables that drivers read on their own.
_OF_DRIVERS = ("PGPASSWORD", "CLICKHOUSE_PASSWORD", "SNOWFLAKE_PASSWORD", "TRINO_PASSWORD")
_SHORTEST = 3  # a shorter secret would occur in many words
_MOST_SAID = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WarehouseTable:
    """A request log in a database.

    Parameters
    ----------
    table
        Its name: ``requests``, ``schema.requests`` or ``catalog.schema.requests``.
    connection
        A URL, with ``${NAME}`` where an environment variable is to be filled in.
    """

    table: str
    connection: str

    def __post_init__(self) -> None:
        parts = self.table.split(".")
        if not 1 <= len(parts) <= 3 or not all(parts):
            raise InputError(f"workload.table must be a name such as logs.requests, got {self.table[:60]!r}")
        if self.dialect not in DIALECT_BY_SCHEME.values():
            raise unknown("database in workload.connection", self.dialect, DIALECT_BY_SCHEME)
        _refuse_secrets(self.connection)

    @property
    def dialect(self) -> str:
        """The database, as Ibis calls it."""
        scheme = self.connection.partition("://")[0].lower() if "://" in self.connection else ""
        return DIALECT_BY_SCHEME.get(scheme, scheme[:20])

    @property
    def place(self) -> str:
        """The name of the table in errors and sources."""
        return f"{self.table} ({self.dialect})"

    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be shown: the values of the variables, as they are and as encoded in a URL."""
        names = [*_VARIABLE.findall(self.connection), *_OF_DRIVERS]
        values = {value for name in names if (value := os.environ.get(name))}
        forms = {
            form for value in values for form in (value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1])
        }
        return tuple(sorted((form for form in forms if len(form) >= _SHORTEST), key=len, reverse=True))

    def connect(self) -> Any:
        """The Ibis connection.

        Raises
        ------
        InputError
            A variable is not set, a driver is not installed, or services of other people are planned.
        """
        check_remote("workload.connection", "databases")
        scheme, _, rest = _filled(self.connection).partition("://")
        try:
            import ibis

            return ibis.connect(f"{'pyspark' if scheme == 'spark' else scheme}://{rest}")
        except ImportError as error:
            missing = error.name or "its package"
        raise InputError(
            f"{self.place}: the driver is not installed: {missing}",
            hint=f"pip install 'melange-planner[warehouse]', or 'ibis-framework[{self.dialect}]'",
        )

    def read(self, backend: Any) -> Any:
        """The Ibis table of a connection."""
        *database, name = self.table.split(".")
        return backend.table(name, database=".".join(database) or None)


def _refuse_secrets(connection: str) -> None:
    """Reject a URL that holds a password or a similar secret as plain text."""
    hint = "write the name of an environment variable: postgres://reader:${PGPASSWORD}@host/logs"
    try:
        parts = urlsplit(connection)
        password, query = parts.password, parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        raise InputError("workload.connection is not a URL", hint=hint) from None
    if password and _VARIABLE.sub("", unquote(password)):
        raise InputError("workload.connection must not hold a password", hint=hint)
    for key, value in query:
        if _SECRET_KEY.search(key) and _VARIABLE.sub("", value):
            raise InputError(f"workload.connection must not hold a secret: {key[:40]}", hint=hint)


def _filled(connection: str) -> str:
    """The URL with the values of the environment variables."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if not (held := os.environ.get(name)):
            raise InputError(
                f"workload.connection: the environment variable {name} is not set", hint=f"export {name}=..."
            )
        return quote(held, safe="")

    return _VARIABLE.sub(value, connection)


def without_secrets(text: str, secrets: tuple[str, ...]) -> str:
    """The first lines of a driver's message, without secrets.

    >>> without_secrets("no login with sesame at host", ("sesame",))
    'no login with *** at host'
    """
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:_MOST_SAID]
