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
