"""The charting library of pages: the bundle that fits Plotly for Python, small enough that pages stay below 1 MB."""

import gzip
import re
from importlib import resources

from plotly.offline import get_plotlyjs_version

from melange.present.pages.packing import library, packed, unpacked


def test_the_bundle_is_of_the_version_that_makes_the_figures() -> None:
    """Its head says so, and under which license it comes; the license's text is beside it."""
    folder = resources.files("melange.present") / "plotly"
    code = gzip.decompress((folder / "plotly-cartesian.min.js.gz").read_bytes()).decode()
    found = re.search(r"plotly\.js \(cartesian - minified\) v([\d.]+)", code[:200])
    assert found
    assert found[1] == get_plotlyjs_version()
    assert "MIT" in code[:400]
    assert "MIT License" in (folder / "LICENSE").read_text()


def test_pages_stay_below_a_megabyte() -> None:
    """The library takes two thirds of it; the largest page (explore) adds 0.16 MB."""
    assert len(library()) < 700_000


def test_texts_come_back_from_a_page() -> None:
    """Letters of base64 alone, the same every time, and the text they stand for."""
    text = '{"<script>": "é & </script>"}' * 1000
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed(text))
    assert packed(text) == packed(text)
    assert unpacked(packed(text)) == text
    assert len(packed(text)) < len(text) / 20
