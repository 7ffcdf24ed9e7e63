"""Files by name, and how they come into a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from melange.deploy.manifest import Manifest
from melange.errors import InputError

FILES = {"kustomization.yaml": "a\n", "base/deployment.yaml": "b\n", "base/crds/pool.yaml": "c\n"}


def manifest(*names: str) -> Manifest:
    """Files of these names, each of which holds its own."""
    return Manifest(target="any", files={name: name for name in names})


def test_folders_are_made(tmp_path: Path) -> None:
    """Below the folder, which is made too; each name is a path in the answer."""
    paths = Manifest(target="any", files=FILES).write(tmp_path / "new" / "folder")
    assert [path.relative_to(tmp_path / "new" / "folder").as_posix() for path in paths] == list(FILES)
    assert [path.read_text() for path in paths] == list(FILES.values())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../up",
        "base/../../up",
        "base/..",
        ".",
        "./base/a",
        "base//a",
        "base/",
        "base\\a",
        "..\\up",
        "C:a",
        "c:/a",
        "base/a\n",
        "a\x00",
        "base/\x1b[2Ja",
        "a\u2028b",
    ],
)
def test_names_that_lead_elsewhere_are_wrong_code(name: str) -> None:
    """Absolute, upwards, without a part, of another system, or not to be printed."""
    with pytest.raises(ValueError, match="must be plain"):
        manifest(name)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("base/a.yaml", "base/A.yaml"), "differ in more than case"),
        (("base/a.yaml", "Base/a.yaml"), "differ in more than case"),
        (("base", "base/a.yaml"), "'base' is a file of the manifest"),
        (("base/crds/a/b.yaml", "Base/crds"), "'Base/crds' is a file of the manifest"),
    ],
)
def test_names_that_cannot_be_files_side_by_side_are_wrong_code(names: tuple[str, ...], said: str) -> None:
    """On a system that ignores case one would replace the other; on none can a file be a folder too."""
    with pytest.raises(ValueError, match=said):
        manifest(*names)


def test_names_that_begin_alike_are_different_files(tmp_path: Path) -> None:
    """A folder is one only up to the next slash, and dots are letters unless they are alone."""
    names = ("base", "base.yaml", "bases/a", "..a", "b..", ".hidden/a")
    assert len(manifest(*names).write(tmp_path)) == len(names)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second cannot be written the first is new, the second is the old one, and no draft is left."""
    manifest("base/a", "base/b").write(tmp_path)
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == "b":
            raise OSError(28, "No space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(InputError, match="No space left"):
        Manifest(target="any", files={"base/a": "new", "base/b": "new"}).write(tmp_path)
    assert [(path.name, path.read_text()) for path in sorted((tmp_path / "base").iterdir())] == [
        ("a", "new"),
        ("b", "base/b"),
    ]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    """Nothing is written, neither there nor here; whether the link's end exists or not."""
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for path in (outside, folder):
        path.mkdir()
    for end in (outside, tmp_path / "absent", Path("..")):
        (folder / "base").symlink_to(end)
        with pytest.raises(InputError, match="is a link to"):
            manifest("first", "base/crds/a").write(folder)
        (folder / "base").unlink()
    assert not list(outside.iterdir())
    assert not list(folder.iterdir())
    assert not (tmp_path / "absent").exists()


def test_a_circle_of_links_is_an_error(tmp_path: Path) -> None:
    """It leads nowhere."""
    (tmp_path / "base").symlink_to("base")
    with pytest.raises(InputError, match="cannot be"):
        manifest("base/a").write(tmp_path)


def test_a_link_in_the_place_of_a_file_is_replaced(tmp_path: Path) -> None:
    """What it points to stays as it is."""
    (tmp_path / "theirs").write_text("theirs")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "theirs")
    manifest("a").write(folder)
    assert not (folder / "a").is_symlink()
    assert ((folder / "a").read_text(), (tmp_path / "theirs").read_text()) == ("a", "theirs")


def test_the_folder_itself_and_links_within_it_may_be_links(tmp_path: Path) -> None:
    """A folder that is named by a link means the link's end."""
    real = tmp_path / "real"
    (real / "overlays").mkdir(parents=True)
    (real / "base").symlink_to("overlays")
    (tmp_path / "link").symlink_to(real)
    manifest("base/a").write(tmp_path / "link")
    assert (real / "overlays" / "a").read_text() == "base/a"


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """Also the other way around; neither is removed."""
    (tmp_path / "base").write_text("mine")
    with pytest.raises(InputError, match="cannot be created"):
        manifest("base/a").write(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        manifest("a").write(tmp_path)
    assert (tmp_path / "base").read_text() == "mine"
    assert not list((tmp_path / "a").iterdir())
