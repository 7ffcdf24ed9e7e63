"""The page's server: the document, answers while users drag, and long jobs as streams of lines."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from melange.errors import InputError, MelangeError
from melange.files import Json
from melange.installed import version
from melange.serve.guard import LOOPBACK, guard, is_same, received
from melange.serve.job import Limits
from melange.serve.queue import BusyError, Queue
from melange.ui import in_workers
from melange.ui.controls import controls_html
from melange.ui.document import document
from melange.ui.followed import FollowedJobs
from melange.ui.opened import Asked, Opened
from melange.ui.states import States
from melange.ui.tab_parts import label_of, pinned_html
from melange.ui.visitors import COOKIE, LOG_IN, check_visitors, cookie_of, log_in_page
from melange.ui.worker_pool import WorkerPool
from melange.units import GIB

_STATIC = {"ui.js": "text/javascript", "ui.css": "text/css"}
_MOST_FLAGS = 12
_Flags = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=_MOST_FLAGS)]


class WhatIf(BaseModel):
    """The request of the what-if tab: values of the flags of ``melange what-if``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    price: _Flags = []
    rate: _Flags = []
    without: _Flags = []
    save: _Flags = []
    is_simulated: bool = False

    def flags(self) -> list[str]:
        """The flags of the command."""
        given = [(name, value) for name in ("price", "rate", "without", "save") for value in getattr(self, name)]
        return [*(f"--{name}={value}" for name, value in given), *_quick(self.is_simulated)]


class LongWork(BaseModel):
    """The request for a schedule or a joint plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    is_simulated: bool = False
    limits: dict[str, Annotated[int, Field(ge=0, le=100_000)]] | None = None


class Deployment(BaseModel):
    """A deployment target and its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: Annotated[str, Field(max_length=60)]
    options: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(max_length=50)] = []


@dataclass(slots=True, eq=False)
class _Running:
    """The state of a running server."""

    states: States
    workers: WorkerPool
    jobs: FollowedJobs

    def certified(self, asked: Asked) -> Json | None:
        """The certified plan for a state, if a job has found it."""
        return self.jobs.result(f"plan|{asked.key}")

    async def answer(self, asked: Asked, pinned: Json | None = None) -> Json:
        """The best answer that is available at once: a certified one from an earlier job, or by closed form."""
        certified = self.certified(asked)
        found = await self.workers.run(in_workers.answer, asked, certified, pinned)
        return found | {"is_certified": certified is not None}

    async def compared_with(self, query: Sequence[tuple[str, str]]) -> Json | None:
        """The summary of the pinned plan to compare with; None: there are no pins."""
        pins, against = self.states.pins(query), dict(query).get("against", "0")
        if not pins:
            return None
        chosen = pins[min(int(against), len(pins) - 1) if against.isdigit() else 0]
        summary: Json = (await self.answer(chosen))["summary"]
        return summary | {"label": label_of(chosen.choices.query())}


def page_application(
    opened: Opened,
    *,
    token: str = "",
    hosts: tuple[str, ...] = LOOPBACK,
    parallel: int = 2,
    limits: Limits | None = None,
    most_upload_bytes: float = GIB,
) -> FastAPI:
    """The application.

    Parameters
    ----------
    opened
        The file of the page.
    token
        Token that users must enter; empty: none, for a server on the loopback address.
    hosts
        Host names that requests may use; ``*``: any.
    parallel
        Number of jobs that run at the same time, and of processes that answer by closed form.
    limits
        Limits of each job; a process has the same memory limit.
    most_upload_bytes
        Largest uploaded log [bytes].
    """
    bounds = limits or Limits()
    running: list[_Running] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        queue = Queue(parallel=parallel, limits=bounds)
        workers = WorkerPool(opened, count=parallel, memory_bytes=bounds.memory_bytes)
        running.append(_Running(states=States(opened), workers=workers, jobs=FollowedJobs(queue)))
        yield
        await queue.close()
        workers.close()
        running.pop().states.close()

    def now() -> _Running:
        return running[0]

    app = FastAPI(title="Melange", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    check_visitors(app, token)
    guard(app, hosts, {"/api/files": most_upload_bytes})
    app.exception_handler(MelangeError)(lambda _, error: _refused(error, now()))
    _add_page(app, now, token)
    _add_answers(app, now)
    _add_long_work(app, now)
    _add_exports(app, now)
    _add_uploads(app, now, most_upload_bytes)
    return app


def _refused(error: Any, server: _Running) -> JSONResponse:
    status = 503 if isinstance(error, BusyError) else 422
    detail = {"message": server.states.shown(str(error)), "hint": server.states.shown(error.hint)}
    return JSONResponse({"error": detail}, status)


def _add_page(app: FastAPI, now: Callable[[], _Running], token: str) -> None:
    @app.get("/", response_class=HTMLResponse)
    async def page(request: Request) -> Response:
        from melange.catalog.catalog import load_catalog

        states, query = now().states, request.query_params.multi_items()
        try:
            asked = states.of(query)
        except InputError as error:
            return HTMLResponse(
                f"<!doctype html><title>Melange</title><p>{_plain(str(error))}</p><p><a href='/'>Start over</a></p>",
                422,
            )
        service = asked.opened.service()
        content = document(
            title=asked.opened.path.name,
            controls=controls_html(service, asked.choices, load_catalog(), list(asked.opened.log_by_name)),
            services=list(states.opened.service_by_name),
            service=_name_of(states, asked),
            has_week=service.workload.over is not None,
            has_pools=states.opened.is_fleet,
            version=version(),
        )
        return HTMLResponse(content)

    @app.get("/static/plotly.js")
    async def library() -> Response:
        file = resources.files("melange.present") / "plotly" / "plotly-cartesian.min.js.gz"
        headers = {"Content-Encoding": "gzip", "Cache-Control": "max-age=86400"}
        return Response(file.read_bytes(), media_type="text/javascript", headers=headers)

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in _STATIC:
            raise HTTPException(404)
        content = (resources.files("melange.ui") / "static" / name).read_bytes()
        return Response(content, media_type=_STATIC[name], headers={"Cache-Control": "no-cache"})

    @app.post(LOG_IN)
    async def log_in(request: Request) -> Response:
        given = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("token", "")
        query = str(request.url.query)
        if not token or not is_same(given, token):
            return log_in_page(query, "Wrong token.")
        response = RedirectResponse(f"/?{query}" if query else "/", 303)
        # Lax: a link to a state from another person opens it. The answers require a header that no other site can send.
        response.set_cookie(
            COOKIE, cookie_of(token), httponly=True, samesite="lax", secure=request.url.scheme == "https"
        )
        return response


def _plain(text: str) -> str:
    from melange.present.pages.html import escape

    return escape(text)


def _name_of(states: States, asked: Asked) -> str:
    return next((name for name, one in states.opened.service_by_name.items() if one is asked.opened), "")


def _add_answers(app: FastAPI, now: Callable[[], _Running]) -> None:
    @app.get("/api/answer")
    async def answer(request: Request) -> JSONResponse:
        server, query = now(), request.query_params.multi_items()
        asked, pinned = server.states.of(query), await server.compared_with(query)
        return _shown(await server.answer(asked, pinned), server)

    @app.get("/api/curves")
    async def curves(request: Request) -> JSONResponse:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        return _shown(await server.workers.run_aside(in_workers.curves, asked, server.certified(asked)), server)

    @app.get("/api/pinned")
    async def pinned(request: Request) -> JSONResponse:
        server, query = now(), request.query_params.multi_items()
        states = [server.states.of(query), *server.states.pins(query)]
        found = [(await server.answer(one))["summary"] for one in states]
        labels = [label_of(one.choices.query()) for one in states]
        labels[0] = f"Now: {labels[0]}"
        return _shown({"html": pinned_html(list(zip(labels, found, strict=True)))}, server)


def _shown(content: Json, server: _Running) -> JSONResponse:
    return JSONResponse(json.loads(server.states.shown(json.dumps(content))))


def _add_long_work(app: FastAPI, now: Callable[[], _Running]) -> None:
    @app.post("/api/certify")
    async def certify(request: Request) -> StreamingResponse:
        server, query = now(), request.query_params.multi_items()
        asked = server.states.of(query)
        arguments = [*await _arguments(server, asked), "--json"]

        async def made(result: Json) -> Json:
            return (await server.answer(asked, await server.compared_with(query))) | {"is_certified": True}

        return _stream(server, f"plan|{asked.key}", "plan", arguments, made)

    @app.post("/api/what-if")
    async def what_if(request: Request, wanted: WhatIf) -> StreamingResponse:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        flags = wanted.flags()
        arguments = [*await _arguments(server, asked), *flags, "--json"]
        command = await server.workers.run(in_workers.command, asked, "what-if", tuple(flags))

        async def made(result: Json) -> Json:
            return (await server.workers.run(in_workers.what_if_part, result)) | {"command": command}

        return _stream(server, f"what-if|{asked.key}|{flags}", "what-if", arguments, made)

    @app.post("/api/week")
    async def week(request: Request, wanted: LongWork) -> StreamingResponse:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        flags = _quick(wanted.is_simulated)
        arguments = [*await _arguments(server, asked), *flags, "--json"]
        command = await server.workers.run(in_workers.command, asked, "schedule", tuple(flags))

        async def made(result: Json) -> Json:
            return (await server.workers.run(in_workers.schedule_part, result)) | {"command": command}

        return _stream(server, f"schedule|{asked.key}|{flags}", "schedule", arguments, made)

    @app.post("/api/pools")
    async def pools(wanted: LongWork) -> StreamingResponse:
        server = now()
        fleet = server.states.opened
        if not fleet.is_fleet:
            raise InputError("this page has no services with shared pools", hint="melange ui fleet.yaml")
        chosen = [] if wanted.limits is None else [f"offers.max={json.dumps(wanted.limits)}"]
        flags = _quick(wanted.is_simulated)
        settings = [f"--set={one}" for one in fleet.with_choices(chosen)]
        command = fleet.command("plan", chosen, *flags)

        async def made(result: Json) -> Json:
            return (await server.workers.run(in_workers.pools_part, result)) | {"command": command}

        arguments = [str(fleet.path), *settings, *flags, "--json"]
        return _stream(server, f"fleet|{fleet.stamp}|{settings}|{flags}", "plan", arguments, made)


def _quick(is_simulated: bool) -> list[str]:
    return [] if is_simulated else ["--quick"]


async def _arguments(server: _Running, asked: Asked) -> list[str]:
    """The service and its settings as command-line arguments."""
    settings = await server.workers.run(in_workers.chosen, asked)
    return [str(asked.opened.path), *(f"--set={one}" for one in asked.opened.with_choices(settings))]


def _stream(
    server: _Running, key: str, verb: str, arguments: list[str], made: Callable[[Json], Any]
) -> StreamingResponse:
    """The lines of a job: progress, then a part of the page with its result, or the error."""

    async def lines() -> AsyncIterator[str]:
        try:
            async for event in server.jobs.follow(key, verb, arguments):
                told = {"done": await made(event["result"])} if "result" in event else event
                yield server.states.shown(json.dumps(told)) + "\n"
        except MelangeError as error:
            fault = {"message": str(error), "hint": error.hint, "reasons": []}
            yield server.states.shown(json.dumps({"error": fault})) + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _add_exports(app: FastAPI, now: Callable[[], _Running]) -> None:
    @app.get("/service.yaml")
    async def service(request: Request) -> Response:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        text = server.states.shown(await server.workers.run(in_workers.service_text, asked))
        return _attached(text, "service.yaml", "application/yaml")

    @app.get("/plan.json")
    async def plan(request: Request) -> Response:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        certified = server.certified(asked)
        text = json.dumps(certified) if certified else await server.workers.run(in_workers.plan_text, asked)
        return _attached(server.states.shown(text), "plan.json", "application/json")

    @app.post("/api/report")
    async def report(request: Request) -> JSONResponse:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        return _shown(await server.workers.run_aside(in_workers.report, asked, server.certified(asked)), server)

    @app.post("/api/manifests")
    async def manifests(request: Request, wanted: Deployment) -> JSONResponse:
        server = now()
        asked = server.states.of(request.query_params.multi_items())
        given = (asked, server.certified(asked), wanted.target, tuple(wanted.options))
        return _shown(await server.workers.run(in_workers.manifests, *given), server)


def _attached(text: str, name: str, kind: str) -> Response:
    return PlainTextResponse(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _add_uploads(app: FastAPI, now: Callable[[], _Running], most: float) -> None:
    @app.post("/api/files")
    async def upload(request: Request, name: str) -> Json:
        place, number = now().states.place_for_upload(name)
        return {"traffic": number, "bytes": await received(request, place, most)}
