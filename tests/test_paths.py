"""What paths lead to: folders, pipes, and the folders of a user."""

import os
import tempfile
from pathlib import Path

import pytest

from melange.catalog.current import data_folder
from melange.errors import InputError
from melange.files import read_json, read_text, write_text
from melange.paths import files_below, is_pipe
from melange.profile.rate_cache import cache_folder
from melange.service.fleet_file import is_fleet
from melange.service.reading import is_regional, read_service
from melange.service.session import Session
from melange.workload.traces import read_trace


@pytest.mark.parametrize(("name", "said"), [("", r"\.: .*\(was the name empty\?\)"), ("folder", "folder: cannot be")])
def test_a_folder_is_no_file_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str) -> None:
    """An empty name, as of a shell variable that is not set, is the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=said) as caught:
        write_text(name, "new")
    assert "is a folder" in str(caught.value)
    assert "the name of a file" in caught.value.hint


def test_a_user_without_a_home_has_folders_beside_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetched prices and cached rates alike; a folder of the environment comes first."""

    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("MELANGE_DATA", "MELANGE_CACHE", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folder = tmp_path / f"melange-{os.getuid()}"
    assert data_folder() == cache_folder() == folder
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert data_folder() == Path("/data/melange")


def test_a_folder_that_cannot_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither at the top nor below it: the error names the folder and the reason."""
    (tmp_path / "a" / "locked").mkdir(parents=True)
    (tmp_path / "a" / "b.csv").touch()
    assert files_below(tmp_path) == [tmp_path / "a" / "b.csv"]
    scan = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for folder in (tmp_path, tmp_path / "a" / "locked"):
        with pytest.raises(InputError, match="locked: cannot be read: Permission denied"):
            files_below(folder)


def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Nothing may write to it; a service or a log is a regular file."""
    pipe = tmp_path / "service.yaml"
    os.mkfifo(pipe)
    assert is_pipe(pipe)
    for read in (read_text, is_fleet, is_regional, read_service):
        with pytest.raises(InputError, match=r"service\.yaml: is a pipe, not a regular file"):
            read(pipe)
    with pytest.raises(InputError, match="is not a regular file"):
        read_trace(pipe)


def test_a_pipe_of_the_process_is_read_and_a_service_in_it_gets_a_hint(tmp_path: Path) -> None:
    """As from ``/dev/stdin``: JSON can be read from it, and YAML is known as a service by its name only."""
    for text in ('{"a": 1}', "# chat\nmodel: m\nslo: {tpot_ms: 50}\n"):
        source, sink = os.pipe()
        os.write(sink, text.encode())
        os.close(sink)
        try:
            if text.startswith("{"):
                assert read_json(f"/dev/fd/{source}") == {"a": 1}
                continue
            with pytest.raises(InputError, match="not valid JSON") as caught:
                Session(f"/dev/fd/{source}").plan()
            assert caught.value.hint == "the name of a service must end in .yaml or .yml"
        finally:
            os.close(source)
