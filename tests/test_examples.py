import runpy
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("[0-9]_*.py")), ids=lambda path: path.stem)
def test_an_example_prints_what_is_stored_beside_it(example: Path) -> None:
    """What a reader sees in the repository is what they get."""
    done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
    assert done.stdout == example.with_suffix(".out").read_text()


def test_every_target_has_an_example_that_is_what_it_writes() -> None:
    """File by file, and no other file beside them."""
    folder = EXAMPLES / "deploy"
    written = runpy.run_path(str(folder / "write.py"))["manifests"]()
    stored = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
    del stored["write.py"]
    assert stored == {
        f"{target}/{name}": text for target, manifest in written.items() for name, text in manifest.files.items()
    }
