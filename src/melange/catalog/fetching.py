"""Download one file over HTTP: the whole file or an error."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
import zlib
from urllib.parse import urlsplit

from melange.errors import InputError
from melange.units import MB

# Download timeout and largest price list. SkyPilot's file for AWS has 10 MB. Chosen by judgment.
_TIMEOUT_S = 30.0
MOST_BYTES = int(64 * MB)
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class UnreachableError(InputError):
    """The server itself does not answer, so its other files need not be tried."""


def fetch(url: str, *, timeout_s: float = _TIMEOUT_S) -> bytes:
    """The content of a URL; redirects are followed, and gzipped content is decompressed.

    Parameters
    ----------
    url
        ``http://`` or ``https://``; a proxy from the environment is used, except for this machine.
    timeout_s
        Timeout for the server's answer and for each part of the content; the whole download may take four times this
        [s].

    Raises
    ------
    InputError
        The server cannot be reached, answers with an error or a web page, or sends no content, less than it announced,
        a damaged gzip file, or more than 64 MB.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InputError(f"{url}: must be a URL that starts with http:// or https://")
    handlers = [urllib.request.ProxyHandler({})] if parts.hostname in _LOOPBACK else []
    request = urllib.request.Request(url, headers={"User-Agent": "melange", "Accept": "*/*"})
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            content = _read(answer, 4 * timeout_s)
            whole = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        error.close()
        reason, _, _ = str(error.reason).partition("\n")
        raise InputError(f"{url}: the server answered {error.code} {reason}") from error
    except http.client.IncompleteRead as error:
        raise InputError(f"{url}: the connection broke after {len(error.partial):,} bytes") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise UnreachableError(f"{url}: cannot be reached: {_reason(error)}") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{url}: holds more than {MOST_BYTES / MB:g} MB, too large for a price list")
    if whole.isdecimal() and len(content) < int(whole):
        raise InputError(f"{url}: the connection broke after {len(content):,} of {int(whole):,} bytes")
    content = _unzipped(content, url)
    if not content.strip():
        raise InputError(f"{url}: the answer is empty")
    if content.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        raise InputError(f"{url}: the answer is a web page, not prices")
    return content


def _read(answer: http.client.HTTPResponse, limit_s: float) -> bytes:
    """The server's response, up to the largest price list; slow servers time out."""
    content, end_s = bytearray(), time.monotonic() + limit_s
    while len(content) <= MOST_BYTES and (part := answer.read1(1 << 16)):
        content += part
        if time.monotonic() > end_s:
            raise TimeoutError(f"not finished after {limit_s:g} s")
    return bytes(content)


def _unzipped(content: bytes, url: str) -> bytes:
    """Decompress a gzipped file, or an answer that the server compressed without being asked."""
    if not content.startswith(b"\x1f\x8b"):
        return content
    packed = zlib.decompressobj(wbits=31)
    try:
        found = packed.decompress(content, MOST_BYTES + 1)
    except zlib.error as error:
        raise InputError(f"{url}: a damaged gzip file: {error}") from error
    if len(found) > MOST_BYTES:
        raise InputError(f"{url}: unpacks to more than {MOST_BYTES / MB:g} MB, too large for a price list")
    if not packed.eof:
        raise InputError(f"{url}: a truncated gzip file, after {len(found):,} bytes")
    return found


def _reason(error: Exception) -> str:
    """The reason, in a few words."""
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
