"""Shapes that are read, against models that transformers builds on the meta device (``make test-models``)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from built_models import CONFIG_MAPPING, TYPES, Built, CannotBuildError, build, default_config, patience
from chosen_configs import KEYS_BY_TYPE
from drawn_configs import changed, draw, draw_any

from melange.catalog.huggingface import read_model
from melange.catalog.model import Model
from melange.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")

SEEDS = (1,)
# Types that transformers can neither build nor run with its own defaults, or that need another package.
UNBUILT_AT_MOST = 20


def read(config: dict[str, Any], folder: Path) -> Model | str:
    """The model, or why it is refused."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    try:
        return read_model(folder)
    except InputError as error:
        return str(error)


def build_drawn(kind: str, seed: int) -> Built:
    """A model of that type with keys drawn at random."""
    config = default_config(kind)
    with patience():
        drawn = changed(config, draw(config, seed))
    return build(drawn)


def build_any(kind: str, seed: int) -> Built:
    """A model of that type with whatever can be changed drawn at random."""
    config = default_config(kind)
    with patience():
        drawn = changed(config, draw_any(config, kind, seed))
    return build(drawn)


def check(built: Built, folder: Path) -> str:
    """Compare, and say what was found: ``read``, or why it is refused."""
    found = read(built.config, folder)
    if isinstance(found, str):
        assert re.search(r"config\.json: ([\w.]+: )?\w+", found), found
        return found
    assert found.parameters() == pytest.approx(built.parameters, rel=0.01)
    for tokens, held in built.cache_bytes.items():
        assert found.kv_bytes(tokens) == pytest.approx(held, rel=0.02), tokens
    return "read"


@pytest.mark.parametrize("kind", TYPES)
def test_what_a_type_says_by_default_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    """Parameters within 1 %, caches within 2 %, or a reason that names a key."""
    try:
        built = build(default_config(kind))
    except CannotBuildError as error:
        pytest.skip(f"transformers cannot build it: {error}")
    check(built, tmp_path)


@pytest.mark.parametrize("kind", KEYS_BY_TYPE)
def test_what_published_models_say_is_read(kind: str, tmp_path: Path) -> None:
    """Patterns, states and experts that defaults leave out; none of these is refused."""
    with patience():
        config = CONFIG_MAPPING[kind](**KEYS_BY_TYPE[kind])
    assert check(build(config), tmp_path) == "read"


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", TYPES)
def test_what_a_type_says_otherwise_is_read_or_refused(kind: str, seed: int, tmp_path: Path) -> None:
    """The same around the defaults: other widths, heads, experts, windows and patterns."""
    try:
        built = build_drawn(kind, seed)
    except CannotBuildError as error:
        pytest.skip(f"transformers cannot build it: {error}")
    check(built, tmp_path)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", TYPES)
def test_whatever_is_changed_is_read_or_refused(kind: str, seed: int, tmp_path: Path) -> None:
    """Any numbers, flags and activations: the count is right, or a key is named."""
    try:
        built = build_any(kind, seed)
    except CannotBuildError as error:
        pytest.skip(f"transformers cannot build it: {error}")
    check(built, tmp_path)


def test_most_types_can_be_built() -> None:
    """Else the tests above would compare nothing."""
    failed = []
    for kind in TYPES:
        try:
            build(default_config(kind), with_cache=False)
        except CannotBuildError as error:
            failed.append(f"{kind}: {error}")
    assert len(failed) <= UNBUILT_AT_MOST, "\n".join(failed)
