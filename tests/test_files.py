import stat
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.files import read_document, read_json, write_document, write_text, write_texts
from melange.workload.workload import Workload


def test_a_document_comes_back_as_it_was_written(tmp_path: Path) -> None:
    """What is written is read, and the tag says what it is."""
    path = write_document(tmp_path / "plan.json", "plan", {"cost_per_h": 4.68})
    assert read_document(path, "plan") == {"melange": "plan/1", "cost_per_h": 4.68}


def test_a_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    """NaN is no JSON: the write fails, the file that was there stays, and nothing half-written lies beside it."""
    path = write_document(tmp_path / "plan.json", "plan", {"cost_per_h": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_document(path, "plan", {"cost_per_h": float("nan")})
    assert read_document(path, "plan")["cost_per_h"] == 1.0
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_an_unwritable_path_is_an_input_error(tmp_path: Path) -> None:
    """A folder that is absent is named, with what to do."""
    with pytest.raises(InputError, match="cannot be written: No such file") as caught:
        write_text(tmp_path / "absent" / "plan.json", "{}")
    assert "folder" in caught.value.hint


def test_a_path_that_is_a_folder_is_an_input_error_and_leaves_no_draft(tmp_path: Path) -> None:
    """A folder in the place of the file is refused, and no draft stays beside it."""
    (tmp_path / "plan.json").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_text(tmp_path / "plan.json", "{}")
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    """A draft is private; the file that replaces it follows the umask like any other."""
    (tmp_path / "ordinary").touch()
    written = write_text(tmp_path / "written", "")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE((tmp_path / "ordinary").stat().st_mode)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"a": 1,\n "b" 2}', r"x\.json:2: not valid JSON"),
        ("[1]", "must hold a JSON object, got list"),
        ('{"a": 1}', "not a melange plan file"),
        ('{"melange": "profile/1"}', "is a profile file; a plan is needed"),
        ('{"melange": "operate-state/1"}', "is an operate-state file; a plan is needed"),
        ('{"melange": "plan/2"}', "newer than this release reads"),
    ],
)
def test_bad_documents_are_refused_with_the_reason(tmp_path: Path, text: str, complaint: str) -> None:
    """Each kind of wrong file gets its own sentence."""
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=complaint):
        read_document(tmp_path / "x.json", "plan")


@pytest.mark.parametrize(
    ("text", "names", "kind"),
    [
        ('{"melange": "disaggregated/1"}', ("prefill", "decode"), "pool"),
        ('{"melange": "fleet/1", "services": [{"name": "chat"}, {"name": "code"}]}', ("chat", "code"), "service"),
        ('{"melange": "regions/1", "plans": {"us-east-1": {}, "eu-west-1": {}}}', ("us-east-1", "eu-west-1"), "region"),
    ],
)
def test_plans_beside_a_document_of_several_are_named(
    tmp_path: Path, text: str, names: tuple[str, ...], kind: str
) -> None:
    """Those that are there; if there is none, how to write them."""
    (tmp_path / "x.json").write_text(text)

    def hint(wanted: str = "plan") -> str:
        with pytest.raises(InputError, match=f"a {wanted} is needed") as error:
            read_document(tmp_path / "x.json", wanted)
        return error.value.hint

    assert hint().endswith(f"--out FILE also writes the plan of each {kind}, beside FILE")
    beside = [tmp_path / f"x-{name}.json" for name in names]
    beside[0].touch()
    assert hint() == f"give the plan of one {kind}: {beside[0]}"
    beside[1].touch()
    assert hint() == f"give the plan of one {kind}: {beside[0]} or {beside[1]}"
    assert hint("profile") == ""


@pytest.mark.parametrize("held", ["5", "null", '"../../etc"', '[{"name": "../x"}, 5, {"name": [1]}, null]'])
def test_damaged_documents_of_several_plans_name_no_file(tmp_path: Path, held: str) -> None:
    """Names that are none are left out."""
    (tmp_path / "x.json").write_text(f'{{"melange": "fleet/1", "services": {held}}}')
    with pytest.raises(InputError, match="is a fleet file; a plan is needed"):
        read_document(tmp_path / "x.json", "plan")


def test_absent_and_binary_files_are_refused(tmp_path: Path) -> None:
    """A path that leads nowhere, and bytes that are no text."""
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        read_json(tmp_path / "binary.json")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({}, "the key 'input_edges' is missing"),
        ({"input_edges": 5, "output_edges": [1]}, "input_edges must be a list, got 5"),
        ({"input_edges": [10, 5], "output_edges": [1]}, r"w\.json: buckets\.input: edges must ascend"),
    ],
)
def test_a_document_with_something_wrong_inside_names_file_and_fault(
    tmp_path: Path, content: dict, complaint: str
) -> None:
    """Absent keys, values of the wrong kind, and values that mean nothing."""
    with pytest.raises(InputError, match=complaint):
        Workload.read(write_document(tmp_path / "w.json", "workload", content))


def test_of_several_files_none_is_replaced_where_one_cannot_be_written(tmp_path: Path) -> None:
    """Half of a deployment is none; no draft stays."""
    kept = tmp_path / "a.yaml"
    kept.write_text("old")
    with pytest.raises(InputError, match=r"absent/b\.yaml: cannot be written"):
        write_texts({kept: "new", tmp_path / "absent" / "b.yaml": "new"})
    assert kept.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]
    write_texts({kept: "new", tmp_path / "b.yaml": "more"})
    assert (kept.read_text(), (tmp_path / "b.yaml").read_text()) == ("new", "more")


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("plan.json", '{\n  "melange": "plan/1", "x": 1}', "a plan file"),
        ("service.yaml", "model: m\n", "no melange file"),
        ("log.csv", "a,b\n", "no melange file"),
    ],
)
def test_a_file_of_another_kind_is_not_replaced(tmp_path: Path, name: str, text: str, what: str) -> None:
    """The one copy of a plan is no place for its report; an empty file and one of the same kind are."""
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=f"is {what}, which a report would replace"):
        write_document(path, "report", {})
    assert path.read_text() == text
    path.write_text("")
    write_document(path, "report", {"x": 1})
    write_document(path, "report", {"x": 2})
    assert read_document(path, "report")["x"] == 2


def test_a_file_that_is_replaced_keeps_its_mode(tmp_path: Path) -> None:
    """A private plan stays private, also when it is written again with other content."""
    path = tmp_path / "plan.json"
    path.write_text("old")
    path.chmod(0o600)
    write_text(path, "new")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("new", 0o600)


@pytest.mark.parametrize("is_there", [True, False])
def test_a_symbolic_link_stays_and_its_target_is_written(tmp_path: Path, is_there: bool) -> None:
    """Also if the target does not exist yet, and no draft remains in either folder."""
    (tmp_path / "kept").mkdir()
    target, link = tmp_path / "kept" / "plan.json", tmp_path / "plan.json"
    if is_there:
        target.write_text("old")
        target.chmod(0o640)
    link.symlink_to("kept/plan.json")
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert not is_there or stat.S_IMODE(target.stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "plan.json", "plan.json"]
