import subprocess
import sys

import melange


def test_every_public_name_can_be_had() -> None:
    """Each of them loads, and a wrong one is an AttributeError like any other."""
    assert all(getattr(melange, name) is not None for name in melange.__all__)
    assert dir(melange) == sorted(melange.__all__)
    assert not hasattr(melange, "no_such_name")


def test_importing_melange_imports_nothing_heavy() -> None:
    """What is not used is not paid for."""
    code = (
        "import sys, melange; print([m for m in ('numpy', 'ibis', 'duckdb', 'highspy', 'plotly') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
