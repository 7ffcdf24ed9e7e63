"""Tests with the parsers of the tools that files are written for; without them none is collected: make test-targets."""

import os
import tempfile
from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("kubernetes_validate") and find_spec("hcl2") else ["test_*.py", "parsers.py"]
if not collect_ignore_glob:
    # SkyPilot and dstack keep files at home: not at the user's.
    os.environ["HOME"] = tempfile.mkdtemp(prefix="melange-targets-")
    os.environ["SKYPILOT_DISABLE_USAGE_COLLECTION"] = "1"
