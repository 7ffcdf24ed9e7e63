"""Logs in Google Cloud Storage, read with Arrow's own client from a server on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from google_server import google_server

from melange.errors import InputError
from melange.workload import object_storage, object_stores
from melange.workload.traces import read_trace

fs = pytest.importorskip("pyarrow.fs")
if not hasattr(fs, "GcsFileSystem"):
    pytest.skip("PyArrow was built without Google Cloud Storage", allow_module_level=True)

HEAD = "arrival_s,input_tokens,output_tokens\n"
DAYS = {f"chat/day={day}/requests.csv": f"{HEAD}{day}.5,{100 + day},20\n{day}.75,300,{30 + day}\n" for day in range(5)}
FILES = {
    **{name: text.encode() for name, text in DAYS.items()},
    "chat/_SUCCESS": b"no log",
    "chat/.hidden.csv": b"no log",
    "chat/readme.txt": b"no log",
    "chat/a b/one & two.csv": (HEAD + "9,7,7\n").encode(),
    "broken/requests.csv": (HEAD + "0,many,3\n").encode(),
    "empty/requests.csv": b"",
}


@pytest.fixture(autouse=True)
def endpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The server, where Google's tools look for one; nothing is known from another test."""
    monkeypatch.setattr(object_storage, "_fetched", {})
    monkeypatch.setattr(object_stores, "_RETRIES_S", 1)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "gcloud"))
    outside = {"chat/../../day.csv": b"x", "day.csv": b"x"}
    with google_server({"logs": FILES, "outside": outside, "closed": 403, "unknown": 401}) as address:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        yield address


@pytest.mark.parametrize(
    ("address", "days"),
    [
        ("gs://logs/chat/day=3/requests.csv", [3]),
        ("gs://logs/chat/day=3", [3]),
        ("gs://logs/chat/day=[1-3]/*.csv", [1, 2, 3]),
        ("gs://logs/*/day=*/requests.csv", range(5)),
        ("gs://logs/chat/**/requests.csv", range(5)),
        ("gs://logs/chat/day=2/**", [2]),
        ("gs://logs/**/**/day=4/**/requests.csv", [4]),
    ],
)
def test_a_store_gives_the_workload_of_the_files(address: str, days: list[int], tmp_path: Path) -> None:
    """Every cell is equal, whether a file, a folder or a pattern is named; folders are parts of names there."""
    for day in days:
        (tmp_path / f"{day}.csv").write_text(DAYS[f"chat/day={day}/requests.csv"])
    theirs, ours = read_trace(address), read_trace(sorted(tmp_path.glob("*.csv"))[0] if len(days) == 1 else tmp_path)
    assert theirs.requests == ours.requests == 2 * len(days)
    assert np.array_equal(theirs.request_rate, ours.request_rate)
    assert np.array_equal(theirs.input_tokens, ours.input_tokens)


def test_a_folder_is_its_logs_at_any_depth() -> None:
    """Neither hidden files nor those of other kinds; names with blanks are files too."""
    assert read_trace("gs://logs/chat").requests == 11
    (copies,) = object_storage._fetched.values()
    assert len(copies.files) == 6
    assert copies.address == "gs://logs/chat"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("gs://logs/chat/2031-*/*.csv", "no file matches"),
        ("gs://logs/nowhere", "no file matches"),
        ("gs://outside/chat", "cannot be a path"),
        ("gs://nowhere/chat/*.csv", "there is no such bucket: nowhere"),
        ("gs://nowhere", "there is no such bucket: nowhere"),
        ("gs://*/chat.csv", "the bucket must be named"),
        ("gs://closed/chat", "access is denied"),
        ("gs://unknown", "access is denied"),
        ("gs://logs/broken", "gs://logs/broken/requests.csv"),
        ("gs://logs/empty", "gs://logs/empty/requests.csv: the file is empty"),
    ],
)
def test_what_cannot_be_read_says_what_to_do(address: str, said: str) -> None:
    """With the address, not with the place of a copy."""
    with pytest.raises(InputError) as caught:
        read_trace(address)
    assert said in str(caught.value)
    assert "melange-log-" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint or "/broken" in address or "/empty" in address


def test_a_server_that_does_not_answer_is_no_long_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error has what the network said, and none of what Google's client wraps it in."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "127.0.0.1:9")
    with pytest.raises(InputError, match=r"cannot be read: .*connect to server") as caught:
        read_trace("gs://logs/chat")
    assert "gcloud-cpp" not in str(caught.value)


@pytest.mark.parametrize("fault", ["missing", "wrong"])
def test_secrets_of_key_files_are_in_no_error(
    fault: str, endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A key file that is not there, or one whose key is none; Google's servers are not asked with either."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST")
    key = tmp_path / "key.json"
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    if fault == "wrong":
        content = {"type": "service_account", "private_key": "sesame", "client_email": "a@b", "private_key_id": "7f3a"}
        key.write_text(json.dumps(content | {"token_uri": f"{endpoint}/token"}))
    with pytest.raises(InputError, match="no usable credentials") as caught:
        read_trace("gs://logs/chat")
    assert "GOOGLE_APPLICATION_CREDENTIALS" in caught.value.hint
    assert "sesame" not in f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r}"
    said = object_stores.STORES["gs"].without_secrets("a last word on sesame of 7f3a")
    assert said == ("a last word on *** of ***" if fault == "wrong" else "a last word on sesame of 7f3a")


def test_a_service_takes_an_address(endpoint: str, tmp_path: Path) -> None:
    """The copies are removed at the end of the command."""
    (tmp_path / "service.yaml").write_text(
        "model: meta-llama/Llama-3.1-8B-Instruct\nslo: {ttft_ms: 2000, tpot_ms: 80}\n"
        "workload: {trace: 'gs://logs/chat/day=1', rate: 4}\n"
        "offers: {gpus: [L4, A10G], providers: [aws], regions: [us-east-1]}\n"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path), "MELANGE_DATA": "/none"}
    command = [sys.executable, "-c", "from melange.cli import main; main()", "plan", "service.yaml", "--quick"]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert not list(tmp_path.glob("melange-log-*"))
