"""The package speaks plain, modern English: no archaic word comes back, and spelling is American."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from documents import PACKAGE, PAGES, ROOT, prose

# Words of another century, and phrases that have to be read twice; each with what to write instead.
ARCHAIC = {
    r"dear(er|est|ly)?": "expensive, more expensive",
    r"anew": "again",
    r"likewise": "the same, also",
    r"so many(?! that)": "N, this many",
    r"tell(s|ing)? apart|told apart": "distinguish",
    r"(in a|last|at any) moment": "in seconds, at any time",
    r"worth most": "most valuable",
    r"as it is worth": "automatic",
    r"cost of not knowing": "cost of uncertainty",
    r"known again": "stable hash, identify",
    r"hitherto|thereof|whereof|wherein|herein|hence|thence|whence|thereby|forthwith": "so, in it, from there",
    r"lest|ere|oft|nought|naught|betwixt|amongst|whilst|whoever|whomever": "modern words",
    r"stands? in the way": "prevents",
    r"for want of": "without",
    r"(is|are|be) had": "available",
    r"per cent": "percent",
    r"hardly right": "implausible",
    r"not even as a gift": "not even for free",
    r"ha(s|ve) no say": "is ignored",
    r"nobody knows": "unknown",
    r"must fall by": "needed cut",
    r"enough to do": "at capacity",
    r"kept free:": "headroom",
    r"chances? in 10": "a probability of 70%",
    r"rests? on estimates": "uses estimates",
    r"which are worth measuring": "suggested measurements",
}
# British spellings of words that occur here.
BRITISH = (
    r"quantis\w+|neighbour\w*|colour\w*|behaviour\w*|favour\w*|utilis\w+|labell(ed|ing)|modell(ed|ing)|"
    r"(optimi|minimi|maximi|normali|summari|recogni)s(e|es|ed|ing|ation)|cancell(ed|ing)|towards|grey"
)
BANNED = re.compile(rf"\b(?:{'|'.join([*ARCHAIC, BRITISH])})\b", re.IGNORECASE)


def words_of(path: Path) -> Iterator[tuple[int, str]]:
    """Comments and texts of a module, each with its line; names of code are not prose."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        is_said = token.type == tokenize.STRING and bool(re.search(r"[ -]", token.string))
        if token.type == tokenize.COMMENT or is_said:
            yield token.start[0], token.string


def found_in(text: str) -> list[str]:
    """The banned words of a text."""
    return [found[0] for found in BANNED.finditer(text)]


@pytest.mark.parametrize("folder", ["src", "tests", "bench", "examples", "docs"])
def test_code_says_it_in_plain_words(folder: str) -> None:
    """Messages, helps, docstrings and comments."""
    files = [path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__)]  # it names the words
    assert files
    faults = [(path.name, line, found) for path in files for line, text in words_of(path) if (found := found_in(text))]
    assert faults == []


def test_documents_are_in_plain_words() -> None:
    """The manual, the README and what goes with them; what programs print is held to it in their own texts."""
    others = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "Dockerfile")]
    texts = {name: prose((ROOT / name).read_text()) for name in PAGES} | {one.name: one.read_text() for one in others}
    assert len(texts) > 20
    assert {name: found for name, text in texts.items() if (found := found_in(text))} == {}


def test_what_people_edit_and_see_is_in_plain_words() -> None:
    """The commented service, the scripts and styles of pages, and services of examples."""
    files = [
        PACKAGE / "service.template.yaml",
        *(PACKAGE / "present").glob("page.*"),
        *(ROOT / "examples").glob("*.yaml"),
    ]
    assert len(files) >= 4
    assert {path.name: found for path in files if (found := found_in(path.read_text()))} == {}


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("dearer than the others, and so many of them", 2),
        ("told apart by what is in it", 1),
        ("so many that they overlap", 0),
        ("an endearing Ere of dearth", 1),
        ("minimise sum_r c_r n_r", 1),
        ("quantised weights and neighbours", 2),
    ],
)
def test_only_whole_words_are_banned(text: str, count: int) -> None:
    """Parts of words and plain uses are no faults."""
    assert len(found_in(text)) == count


def test_the_reader_of_code_sees_comments_and_texts_only(tmp_path: Path) -> None:
    """A name may be whatever it is; what is said of it may not."""
    module = tmp_path / "one.py"
    module.write_text('dear = 1  # dear to us\ntext = f"so many {dear}"\n')
    ast.parse(module.read_text())
    assert [(line, found_in(text)) for line, text in words_of(module)] == [(1, ["dear"]), (2, ["so many", "dear"])]
