"""Addresses of logs in object storage, as services and command lines write them; make test-warehouses reads them."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.errors import InputError
from melange.service.schema import WorkloadSection
from melange.workload.object_storage import fetch, remote_url
from melange.workload.traces import read_trace


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("s3://bucket/logs/*.parquet", "s3://bucket/logs/*.parquet"),
        (Path("s3://bucket/logs"), "s3://bucket/logs"),  # a path has lost a slash
        ("S3://bucket/a:b", "s3://bucket/a:b"),
        ("gs:/bucket/logs", "gs://bucket/logs"),
        ("https://host/log.csv", "https://host/log.csv"),
        ("logs/requests.csv", None),
        ("/var/s3:/log.csv", None),
        ("C:/logs/requests.csv", None),
        ("s3:///bucket", None),
        (7, None),
    ],
)
def test_an_address_is_told_from_a_path(given: object, wanted: str | None) -> None:
    """Whether it comes as text or as a path."""
    assert remote_url(given) == wanted


def test_a_service_keeps_the_address() -> None:
    """It is not made relative to the service's folder."""
    section = WorkloadSection(trace="s3://bucket/logs")
    assert section.log(lambda name: Path("folder", name)) == "s3://bucket/logs"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("az://bucket/log.csv", "az:// is not supported"),
        ("https://host/log.csv", "https:// is not supported"),
        ("s3://key:secret@bucket/log.csv", "must not hold credentials"),
        ("gs://key:secret@bucket/log.csv", "must not hold credentials"),
    ],
)
def test_other_addresses_are_refused_with_a_way_out(url: str, said: str) -> None:
    """Before anything is asked."""
    with pytest.raises(InputError, match=said) as caught:
        read_trace(url)
    assert caught.value.hint
    assert "secret@" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_servers_fetch_nothing_for_others(scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the rights of their owner."""
    monkeypatch.setenv("MELANGE_WITHIN", str(tmp_path))
    with pytest.raises(InputError, match="are not read here"):
        fetch(f"{scheme}://bucket/logs", lambda _: True)
