"""The HTTP API: every verb is a job, with progress as server-sent events."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, StreamingResponse

from melange.errors import InputError
from melange.files import Json
from melange.installed import version
from melange.serve.asked import Asked, DeployAsked, ExploreAsked, PlanAsked, ValidateAsked, WhatIfAsked
from melange.serve.guard import LOOPBACK, guard, is_same, received
from melange.serve.job import Job, Limits, State
from melange.serve.queue import BusyError, Queue
from melange.units import GIB

_MOST_WAIT_S = 120.0
# Longest time without an event: proxies close silent connections.
_KEEP_ALIVE_S = 15.0
_WAIT = Query(0.0, ge=0, le=_MOST_WAIT_S, description="Time to wait for the result before answering [s].")
_UPLOAD_ID = re.compile(r"upload-[A-Za-z0-9_-]{16}")


def application(
    *,
    token: str = "",
    parallel: int = 2,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = LOOPBACK,
    most_upload_bytes: float = GIB,
) -> FastAPI:
    """The application.

    Parameters
    ----------
    token
        Token that clients must send as ``Authorization: Bearer``; empty: none, for a server on the loopback address.
    parallel
        Number of jobs that run at the same time.
    limits
        Limits of each job.
    hosts
        Host names that requests may use; ``*``: any. Other names are rejected: otherwise a page in a browser could
        reach a server on the loopback address under a name of its own.
    most_upload_bytes
        Largest uploaded file [bytes].
    """
    queue: list[Queue] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue.append(Queue(parallel=parallel, limits=limits or Limits()))
        yield
        await queue.pop().close()

    def jobs() -> Queue:
        return queue[0]

    def authorized(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token and not is_same(given, f"Bearer {token}"):
            raise HTTPException(401, "a bearer token is needed", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(
        title="Melange",
        version=version(),
        description="Find the cheapest mix of accelerators that serves a language model within its latency objective.",
        lifespan=lifespan,
        dependencies=[Depends(authorized)],
    )
    guard(app, hosts, {"/v1/files": most_upload_bytes})
    for kind in (PlanAsked, ValidateAsked, WhatIfAsked, ExploreAsked, DeployAsked):
        _add_verb(app, kind, jobs)
    _add_files(app, jobs, most_upload_bytes)
    _add_jobs(app, jobs)
    return app


def _add_verb(app: FastAPI, kind: type[Asked], jobs: Callable[[], Queue]) -> None:
    async def ask(asked: Any, wait: float = _WAIT) -> JSONResponse:
        try:
            uploads = {name: _upload(jobs(), number) for name, number in asked.uploads().items()}
            job = jobs().add(kind.verb, asked.arguments(), asked.documents(), uploads, kind.page)
        except BusyError as error:
            raise HTTPException(503, str(error), {"Retry-After": "5"}) from error
        except InputError as error:
            raise HTTPException(422, str(error)) from error
        await _wait(job, wait)
        return _shown(job)

    ask.__annotations__["asked"] = kind
    app.post(f"/v1/{kind.verb}", summary=(kind.__doc__ or "").strip(), status_code=202, operation_id=kind.verb)(ask)


def _add_files(app: FastAPI, jobs: Callable[[], Queue], most: float) -> None:
    @app.post("/v1/files", summary="Upload a log, a price list or a model's config.json; the body is the file.")
    async def upload(request: Request) -> Json:
        place = jobs().place_for_upload()
        return {"id": place.name, "bytes": await received(request, place, most)}


def _upload(queue: Queue, number: str) -> Path:
    place = queue.upload(number) if _UPLOAD_ID.fullmatch(number) else None
    if place is None or not place.is_file():
        raise InputError(f"no upload has the id {number[:60]!r}", hint="POST /v1/files returns one")
    return place


def _add_jobs(app: FastAPI, jobs: Callable[[], Queue]) -> None:
    def found(number: str) -> Job:
        try:
            return jobs()[number]
        except KeyError:
            raise HTTPException(404, "no such job: results are kept for an hour") from None

    @app.get("/v1/jobs", summary="All jobs, the newest first, without their results.")
    async def listed() -> list[Json]:
        return [{key: value for key, value in job.to_json().items() if key != "result"} for job in jobs().all()]

    @app.get("/v1/jobs/{number}", summary="A job, with its result once it is done.")
    async def one(number: str, wait: float = _WAIT) -> JSONResponse:
        job = found(number)
        await _wait(job, wait)
        return _shown(job)

    @app.get("/v1/jobs/{number}/page", summary="The page of a job.", response_class=HTMLResponse)
    async def page(number: str) -> HTMLResponse:
        job = found(number)
        if not job.page or job.state is not State.DONE:
            raise HTTPException(404, f"no page: this is {job.verb}, {job.state.value}")
        return HTMLResponse(job.result)

    @app.get("/v1/jobs/{number}/events", summary="Its progress and its end, as server-sent events.")
    async def events(number: str) -> StreamingResponse:
        return StreamingResponse(_events(found(number)), media_type="text/event-stream")

    @app.delete("/v1/jobs/{number}", summary="Cancel a job.")
    async def cancel(number: str) -> Json:
        job = found(number)
        await job.cancel()
        return job.to_json() | {"result": None}


async def _wait(job: Job, wait_s: float) -> None:
    """Wait until the job has ended, with a time limit."""
    end = time.monotonic() + wait_s
    while not job.is_ended and (left := end - time.monotonic()) > 0:
        await job.wait_for_news(left)


def _shown(job: Job) -> JSONResponse:
    status = {State.DONE: 200, State.FAILED: 422, State.CANCELLED: 409}.get(job.state, 202)
    return JSONResponse(job.to_json(), status, {"Location": f"/v1/jobs/{job.number}"})


async def _events(job: Job) -> AsyncIterator[str]:
    """Send progress as it comes, then the result; occasional comments keep the connection open."""
    told = 0
    while True:
        while told < len(job.progress):
            yield f"event: progress\ndata: {json.dumps(job.progress[told])}\n\n"
            told += 1
        if job.is_ended:
            end = {"state": job.state.value, "error": job.error}
            yield f"event: end\ndata: {json.dumps(end)}\n\n"
            return
        await job.wait_for_news(_KEEP_ALIVE_S)
        yield ": \n\n"
