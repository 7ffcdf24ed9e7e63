"""The jobs of the HTTP API: a few run at a time, the others wait, and results are kept for a limited time."""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from melange.errors import InputError, MelangeError
from melange.serve.job import Job, Limits

# Most bytes of one argument of a command and of all together: Linux allows 128 KiB, and 2 MB with the environment.
_LONGEST_ARGUMENT = 100_000
_MOST_ARGUMENTS = 1_000_000


class BusyError(MelangeError):
    """Too many jobs are waiting."""


class Queue:
    """Jobs by number.

    Parameters
    ----------
    parallel
        Number of jobs that run at the same time.
    waiting
        Number of jobs that may wait.
    keep_s
        How long results and uploads are kept [s].
    limits
        Limits of each job.
    """

    def __init__(self, *, parallel: int = 2, waiting: int = 50, keep_s: float = 3600.0, limits: Limits) -> None:
        self._room, self._waiting, self._keep_s, self._limits = asyncio.Semaphore(parallel), waiting, keep_s, limits
        self._jobs: dict[str, Job] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._root = tempfile.TemporaryDirectory(prefix="melange-serve-")

    def __getitem__(self, number: str) -> Job:
        return self._jobs[number]

    def all(self) -> list[Job]:
        """All kept jobs, newest first."""
        self._forget()
        return sorted(self._jobs.values(), key=lambda job: -job.created_s)

    def add(
        self,
        verb: str,
        arguments: Sequence[str],
        documents: Mapping[str, object],
        uploads: Mapping[str, Path],
        page: str,
        *,
        within: Path | None = None,
        is_confined: bool = True,
        is_remote: bool = False,
        has_text: bool = False,
    ) -> Job:
        """Create a job.

        Parameters
        ----------
        verb, arguments
            The command.
        documents
            Files of the job, by name: text unchanged, anything else as JSON.
        uploads
            Earlier uploads, by their file names in the job.
        page
            The file that the command writes instead of JSON; empty: none.
        within
            The folder whose files it may read; None: its own.
        is_confined
            Whether all other files are refused, because a client sent the input.
        is_remote
            Whether the job may read databases and object storage.
        has_text
            Whether the terminal output is also kept.

        Raises
        ------
        BusyError
            Too many jobs are waiting.
        InputError
            Two files have the same name, or a command line or file cannot hold a text.
        """
        check_texts(arguments, documents)
        self._forget()
        if sum(not job.is_ended for job in self._jobs.values()) > self._waiting:
            raise BusyError("too many jobs wait", hint="try again later")
        if both := set(documents) & set(uploads):
            raise InputError(f"{sorted(both)[0]} is sent twice")
        number = secrets.token_urlsafe(12)
        folder = Path(self._root.name) / f"job-{number}"
        folder.mkdir()
        for name, content in documents.items():
            (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
        for name, path in uploads.items():
            (folder / name).hardlink_to(path)
        words = [verb, *arguments]
        job = Job(
            number=number,
            verb=verb,
            arguments=words,
            folder=folder,
            page=page,
            within=(within or folder) if is_confined else None,
            is_remote=is_remote,
            has_text=has_text,
        )
        self._jobs[number] = job
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _run(self, job: Job) -> None:
        try:
            async with self._room:
                await job.run(self._limits)
        except Exception as error:  # clients get the reason, and the server logs it
            await job.fail(f"the job could not be run: {error}")
            raise
        finally:
            job.remove()

    def _forget(self) -> None:
        """Drop old results and uploads; an upload that a job uses is kept."""
        oldest = time.time() - self._keep_s
        for number, job in list(self._jobs.items()):
            if job.ended_s is not None and job.ended_s < oldest:
                del self._jobs[number]
        for place in Path(self._root.name).glob("upload-*"):
            if place.stat().st_mtime < oldest:
                place.unlink()

    async def close(self) -> None:
        """End all jobs and remove their files."""
        for job in self._jobs.values():
            if not job.is_ended:
                await job.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._root.cleanup()

    def place_for_upload(self) -> Path:
        """A new file for an upload."""
        return self.upload(f"upload-{secrets.token_urlsafe(12)}")

    def upload(self, number: str) -> Path:
        """The file of an upload."""
        return Path(self._root.name) / number


def check_texts(arguments: Sequence[str], documents: Mapping[str, object]) -> None:
    """Reject arguments that the operating system would cut off or not accept."""
    texts = [*arguments, *(text for text in documents.values() if isinstance(text, str))]
    try:
        sizes = [len(text.encode()) for text in texts]
    except UnicodeEncodeError as error:
        raise InputError(f"a text holds {error.object[error.start]!r}, which is not a valid character") from None
    if any("\0" in text for text in arguments):
        raise InputError("a value holds the character NUL")
    words = sizes[: len(arguments)]
    if max(words, default=0) > _LONGEST_ARGUMENT or sum(words) + 8 * len(words) > _MOST_ARGUMENTS:
        raise InputError(
            f"settings and options may have {_LONGEST_ARGUMENT:,} bytes each and {_MOST_ARGUMENTS:,} together",
            hint="write them into the service",
        )
