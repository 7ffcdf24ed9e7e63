"""Tests of the documentation as a whole, in its own virtual environment; without it none is collected: make test-docs."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("zensical") else ["test_*.py"]
