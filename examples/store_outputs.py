"""Run every example and store what it prints beside it; the tests compare (tests/test_examples.py)."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    for example in sorted(HERE.glob("[0-9]_*.py")):
        done = subprocess.run([sys.executable, example], capture_output=True, text=True, check=True)
        example.with_suffix(".out").write_text(done.stdout)
        print(f"{example.name}: {len(done.stdout.splitlines())} lines")
