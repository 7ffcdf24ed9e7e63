"""Tests with the parsers of the tools that files are written for; without them none is collected: make test-targets."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("kubernetes_validate") and find_spec("hcl2") else ["test_*.py"]
