"""Pictures as files: what is missing is said before any work is done."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from melange.errors import InputError
from melange.present.figures import images
from melange.present.figures.images import check_images, write_images
from melange.present.figures.pictures import picture_of_winners
from melange.present.study import Study


def test_unknown_formats_are_refused(tmp_path: Path) -> None:
    """With those that there are."""
    with pytest.raises(InputError, match="png or svg, got 'gif'"):
        check_images(tmp_path, "gif")


def test_without_kaleido_the_hint_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``pip install '.[images]'``."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="kaleido") as found:
        check_images(tmp_path, "png")
    assert "pip install '.[images]'" in found.value.hint


def test_without_a_browser_the_hint_names_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chromium, or the program that BROWSER_PATH names."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(images, "find_browser", lambda: None)
    with pytest.raises(InputError, match="Chromium") as found:
        check_images(tmp_path, "png")
    assert "BROWSER_PATH" in found.value.hint


@pytest.mark.skipif(importlib.util.find_spec("kaleido") is None, reason="needs the extra images")
def test_a_vector_picture_is_drawn(study: Study, tmp_path: Path) -> None:
    """SVG with the figure's own words in it."""
    if images.find_browser() is None:
        pytest.skip("needs Chrome or Chromium")
    (path,) = write_images([picture_of_winners(study)], tmp_path / "pictures", "svg")
    assert path.name == "winners-by-size.svg"
    assert "Input length" in path.read_text()
