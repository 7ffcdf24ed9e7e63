"""Tests of the documentation as a whole; where the site's packages are absent none is collected: make test-docs."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("zensical") else ["test_*.py"]
