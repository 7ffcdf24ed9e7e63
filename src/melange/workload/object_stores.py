"""The kinds of object storage: how Arrow opens each, where its credentials come from, and the meaning of its errors.

Credentials come from the places where each cloud's own tools look: environment, profile, key file, machine role.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from melange.errors import InputError
from melange.workload.warehouse import without_secrets

# How long Google's client retries a request after a temporary error [s]: longer than a server takes to restart; on a
# machine without credentials the error appears after this time. With the default of 15 minutes, the program seems to
# hang. Chosen by judgment.
_RETRIES_S = 20
_SECRET_KEYS = ("private_key", "private_key_id", "client_secret", "refresh_token")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A known error.

    Parameters
    ----------
    sign
        The pattern in Arrow's message.
    what
        Our message.
    hint
        What to do.
    """

    sign: re.Pattern[str]
    what: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """A kind of object storage.

    Parameters
    ----------
    opened
        Arrow's client for a bucket.
    secrets
        The secrets that no message may contain.
    credentials
        How to provide credentials, instead of in the address.
    refusals
        Known errors; the first match counts.
    hint
        What to check in all other cases.
    has_folders
        Whether Arrow lists subfolders, in a store where folders are only parts of file names.
    """

    opened: Callable[[str], Any]
    secrets: Callable[[], Iterator[str]]
    credentials: str
    refusals: tuple[Refusal, ...]
    hint: str
    has_folders: bool

    def refused(self, url: str, bucket: str, said: str) -> InputError:
        """The error for Arrow's message about an address."""
        for one in self.refusals:
            if one.sign.search(said):
                what = f"{one.what}: {unquote(bucket)}" if "bucket" in one.what else one.what
                return InputError(f"{url}: {what}", hint=one.hint)
        return InputError(f"{url}: cannot be read: {self.without_secrets(said)}", hint=self.hint)

    def without_secrets(self, said: str) -> str:
        """A message without secrets, and without the text that Google's client adds around it."""
        bare = re.search(r"with a last message of (.*?)(?: error_info=|$)", said, re.DOTALL)
        return without_secrets(bare[1] if bare else said, tuple(self.secrets()))


def _s3(bucket: str) -> Any:
    """Open S3 in the region and at the endpoint that the environment names, or in the bucket's own region."""
    from pyarrow import fs

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        scheme, is_url, host = endpoint.rpartition("://")
        return fs.S3FileSystem(region=region, endpoint_override=host.rstrip("/"), scheme=scheme if is_url else "https")
    if region is None and not os.environ.get("AWS_PROFILE"):
        region = fs.resolve_s3_region(bucket)
    return fs.S3FileSystem(region=region)


def _s3_secrets() -> Iterator[str]:
    names = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
    yield from filter(None, map(os.environ.get, names))


def _google(_bucket: str) -> Any:
    """Open with Google's default credentials; without any, at the emulator that the environment names."""
    from pyarrow import fs

    limit = timedelta(seconds=_RETRIES_S)
    emulator = os.environ.get("STORAGE_EMULATOR_HOST")
    if not emulator:
        return fs.GcsFileSystem(retry_time_limit=limit)
    scheme, is_url, host = emulator.rpartition("://")
    return fs.GcsFileSystem(
        anonymous=True,
        endpoint_override=host.rstrip("/"),
        scheme=scheme if is_url else "http",
        retry_time_limit=limit,
    )


def _google_secrets() -> Iterator[str]:
    """Secrets in the key file that the environment names, and in the credentials of a logged-in user."""
    settings = Path(os.environ.get("CLOUDSDK_CONFIG") or Path(os.environ.get("HOME", "."), ".config", "gcloud"))
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    for place in (*([Path(named)] if named else []), settings / "application_default_credentials.json"):
        try:
            content = json.loads(place.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found = [content.get(key) for key in _SECRET_KEYS]
            yield from (one for one in found if isinstance(one, str) and one)


STORES = {
    "s3": Store(
        opened=_s3,
        secrets=_s3_secrets,
        credentials="export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...",
        refusals=(
            Refusal(
                re.compile(r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found|NoSuchBucket", re.IGNORECASE),
                "there is no such bucket",
                "check its name, and AWS_PROFILE, AWS_REGION and AWS_ENDPOINT_URL",
            ),
            Refusal(
                re.compile(
                    r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|INVALID_CLIENT_TOKEN|TOKEN|\b403\b|FORBIDDEN",
                    re.IGNORECASE,
                ),
                "access is denied",
                "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; permission to list and to get "
                "objects is needed",
            ),
        ),
        hint="check the address, the network, AWS_REGION and AWS_ENDPOINT_URL",
        has_folders=True,
    ),
    "gs": Store(
        opened=_google,
        secrets=_google_secrets,
        credentials="export GOOGLE_APPLICATION_CREDENTIALS=key.json",
        refusals=(
            Refusal(
                re.compile("OAuth2 access token|ServiceAccountCredentials"),
                "no usable credentials",
                "export GOOGLE_APPLICATION_CREDENTIALS=key.json, or: gcloud auth application-default login",
            ),
            Refusal(
                re.compile(r"PERMISSION_DENIED|UNAUTHENTICATED|\b40[13]\b"),
                "access is denied",
                "check GOOGLE_APPLICATION_CREDENTIALS; the role Storage Object Viewer suffices",
            ),
            Refusal(
                re.compile(r"NoSuchBucket|NOT_FOUND.*ListObjects", re.DOTALL),
                "there is no such bucket",
                "check its name, and the project",
            ),
        ),
        hint="check the address, the network and STORAGE_EMULATOR_HOST",
        has_folders=False,
    ),
}
