"""Text and the charting library inside a page: gzip in base64, which browsers can unpack.

Plotly's whole library takes 4.8 MB, and its bundle for Cartesian charts 1.5 MB, which packs to 0.66 MB. The bundle is
npm's ``plotly.js-cartesian-dist-min`` (MIT, ``present/plotly/LICENSE``), in the version that Plotly for Python uses;
``make plotly`` fetches it.
"""

from __future__ import annotations

import base64
import gzip
from importlib import resources


def packed(text: str) -> str:
    """A text as base64 of its gzip; the same text always gives the same result.

    >>> unpacked(packed("a < b"))
    'a < b'
    """
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def unpacked(letters: str) -> str:
    """The inverse of :func:`packed`."""
    return gzip.decompress(base64.b64decode(letters)).decode()


def library() -> str:
    """The charting library, packed."""
    file = resources.files("melange.present") / "plotly" / "plotly-cartesian.min.js.gz"
    return base64.b64encode(file.read_bytes()).decode()
