"""Tests on a real Ray; where it is not installed none of them is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]
