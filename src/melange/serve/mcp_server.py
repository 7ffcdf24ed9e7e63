"""An MCP server with the verbs of the HTTP API, for assistants: each tool call is a job of its queue."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from melange.errors import MelangeError, printable
from melange.files import Json
from melange.installed import version
from melange.serve.brief import brief
from melange.serve.job import Job, Limits, State
from melange.serve.queue import Queue
from melange.serve.tool_inputs import TOOLS, Shelf, ToolInput, schema_of
from melange.units import S_PER_H

# How long results are kept [s]: a user may still work on them.
_KEEP_S = 24 * S_PER_H
_MOST_WAIT_S = 60.0
_RESULT, _TEMPLATE = "melange://results/", "melange://service.yaml"
_OUTPUT: Json = {
    "type": "object",
    "properties": {"id": {"type": "string"}, "answer": {"type": "object"}},
    "required": ["id", "answer"],
}
_INSTRUCTIONS = (
    "Melange finds the cheapest mix of GPUs that serves a language model within its latency objective, and shows by "
    "simulation that the mix meets it. Start with plan; then what-if and explore compare, validate simulates more, "
    f"and deploy writes manifests. {_TEMPLATE} is a commented service.yaml with every key."
)
Context = ServerRequestContext[Queue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Access rights of a server's tools.

    Parameters
    ----------
    folder
        The folder whose files may be read, and where new files may be written; None: no access to files.
    is_remote
        Whether databases and object storage named in a service may be read, with the rights of the server's owner.
    """

    folder: Path | None = None
    is_remote: bool = False


def mcp_server(*, rights: Rights, parallel: int = 2, limits: Limits | None = None) -> Server[Queue]:
    """The server, for any transport.

    Parameters
    ----------
    rights
        Access rights of its tools.
    parallel
        Number of jobs that run at the same time.
    limits
        Limits of each job.
    """

    @asynccontextmanager
    async def lifespan(_: Server[Queue]) -> AsyncIterator[Queue]:
        queue = Queue(parallel=parallel, keep_s=_KEEP_S, limits=limits or Limits())
        loop = asyncio.get_running_loop()
        try:
            if rights.folder is not None:
                # Reading stdin cannot be canceled, and jobs must not outlive their server.
                loop.add_signal_handler(signal.SIGTERM, lambda: loop.create_task(_end(queue)))
            yield queue
        finally:
            await queue.close()

    async def list_tools(_: Context, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_tool(kind, rights) for kind in TOOLS.values()])

    async def call_tool(context: Context, asked: types.CallToolRequestParams) -> types.CallToolResult:
        kind = TOOLS.get(asked.name)
        if kind is None:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {asked.name!r}; known: {', '.join(TOOLS)}")
        return await _answer(context, kind, asked.arguments or {}, rights)

    return Server(
        "melange",
        title="Melange",
        version=version(),
        description="Find the cheapest mix of accelerators that serves a language model within its latency objective.",
        instructions=_INSTRUCTIONS,
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=_list_resources,
        on_list_resource_templates=_list_templates,
        on_read_resource=_read_resource,
    )


async def _end(queue: Queue) -> None:
    await queue.close()
    os._exit(128 + signal.SIGTERM)


def serve_stdio(server: Server[Queue]) -> None:
    """Serve one client over stdin and stdout until it closes them."""

    async def run() -> None:
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())

    asyncio.run(run())


def _tool(kind: type[ToolInput], rights: Rights) -> types.Tool:
    return types.Tool(
        name=kind.verb,
        title=kind.title,
        description=" ".join((kind.__doc__ or "").split()),
        input_schema=schema_of(kind, has_folder=rights.folder is not None),
        output_schema=_OUTPUT,
        annotations=types.ToolAnnotations(
            read_only_hint=kind.only_reads or rights.folder is None,
            destructive_hint=False,
            idempotent_hint=True,
            open_world_hint=rights.is_remote,
        ),
    )


async def _answer(context: Context, kind: type[ToolInput], given: Json, rights: Rights) -> types.CallToolResult:
    """The result of a job, or the error that the command line prints."""
    queue = context.lifespan_context
    try:
        if rights.folder is None and (files_named := sorted(kind.of_folder & given.keys())):
            return _failed(f"{files_named[0]}: this server reads and writes no files", "send the content itself", ())
        shelf = Shelf(root=rights.folder, result_of=lambda number: _kept(queue, number))
        # Plans have half a megabyte, which takes time to read and write.
        command = await asyncio.to_thread(kind.model_validate(given).command, shelf)
        job = queue.add(
            kind.verb,
            command.arguments,
            command.documents,
            {},
            "",
            within=rights.folder if command.reads_folder else None,
            is_remote=rights.is_remote,
            has_text=True,
        )
    except ValidationError as error:
        return _failed("\n".join(_told(error)), "", ())
    except MelangeError as error:
        return _failed(str(error), error.hint, ())
    try:
        await _follow(context, job)
    except asyncio.CancelledError:
        await asyncio.shield(job.cancel())
        raise
    if job.state is not State.DONE:
        found = job.error or {"message": "canceled", "hint": "", "reasons": []}
        return _failed(found["message"], found["hint"], found["reasons"])
    answer = job.result if kind.verb == "deploy" else brief(job.result)
    text = f"{job.text.rstrip()}\n\nid: {job.number}"
    return types.CallToolResult(
        content=[types.TextContent(type="text", text=text)], structured_content={"id": job.number, "answer": answer}
    )


async def _follow(context: Context, job: Job) -> None:
    """Report progress until the job has ended."""
    told = 0
    while not job.is_ended:
        if told == len(job.progress):
            await job.wait_for_news(_MOST_WAIT_S)
        while told < len(job.progress):
            told += 1
            await context.session.report_progress(told, message=job.progress[told - 1])


def _kept(queue: Queue, number: str) -> Json:
    job = queue[number]
    if job.state is not State.DONE:
        raise KeyError(number)
    return dict(job.result)


def _told(error: ValidationError) -> list[str]:
    """What is wrong with a tool's input, one line per fault."""
    return [
        f"{'.'.join(str(part) for part in one['loc']) or 'input'}: {one['msg'][:1].lower()}{one['msg'][1:]}"
        for one in error.errors(include_url=False)
    ]


def _failed(message: str, hint: str, reasons: Any) -> types.CallToolResult:
    """An error as the command line prints it, and divided into its parts."""
    message = printable(message)
    lines = [f"error: {message}", *(f"  - {one}" for one in reasons), *([f"hint: {hint}"] if hint else [])]
    return types.CallToolResult(
        is_error=True,
        content=[types.TextContent(type="text", text="\n".join(lines))],
        structured_content={"error": {"message": message, "hint": hint, "reasons": list(reasons)}},
    )


async def _list_resources(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourcesResult:
    described = "A commented service.yaml: every key, with examples."
    return types.ListResourcesResult(
        resources=[
            types.Resource(uri=_TEMPLATE, name="service.yaml", description=described, mime_type="application/yaml")
        ]
    )


async def _list_templates(_: Context, __: types.PaginatedRequestParams | None) -> types.ListResourceTemplatesResult:
    described = "The whole result of a tool by its id: a plan.json, report.json, ..."
    return types.ListResourceTemplatesResult(
        resource_templates=[
            types.ResourceTemplate(
                uri_template=_RESULT + "{id}", name="result", description=described, mime_type="application/json"
            )
        ]
    )


async def _read_resource(context: Context, asked: types.ReadResourceRequestParams) -> types.ReadResourceResult:
    uri = str(asked.uri)
    if uri == _TEMPLATE:
        text, kind = files("melange").joinpath("service.template.yaml").read_text(encoding="utf-8"), "application/yaml"
    else:
        try:
            found = _kept(context.lifespan_context, uri.removeprefix(_RESULT))
        except KeyError:
            raise MCPError(types.INVALID_PARAMS, f"no such resource: {uri[:200]}") from None
        text, kind = json.dumps(found), "application/json"
    return types.ReadResourceResult(contents=[types.TextResourceContents(uri=uri, mime_type=kind, text=text)])
