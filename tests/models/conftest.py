"""Tests against models that transformers builds; where it is not installed none of them is collected."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("transformers") and find_spec("torch") else ["*.py"]
