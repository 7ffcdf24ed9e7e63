"""Spans of requests for OpenTelemetry, if its SDK is installed and the environment names a collector."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melange.deploy.live.headers import Fields
    from melange.deploy.live.receive import Request

log = logging.getLogger("melange.balance")

# Each of them names a collector; without any, the SDK is not loaded.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_OFF, _NAME, _SERVICE = "OTEL_SDK_DISABLED", "OTEL_SERVICE_NAME", "melange-balance"
# Header fields of W3C Trace Context.
_PARENT, _STATE = b"traceparent", b"tracestate"
# Time limit for sending the last spans when a process ends [ms].
_LAST_MS = 3000


class Trace:
    """The span of one request, from its arrival to its end.

    Parameters
    ----------
    span
        Span of the SDK.
    fields
        Header lines that make the replica's spans its children.
    """

    __slots__ = ("_span", "fields")

    def __init__(self, span: Any, fields: bytes) -> None:
        self._span, self.fields = span, fields

    def end(
        self, status: int, replica_type: str, url: str, retries: int, input_tokens: int, output_tokens: int
    ) -> None:
        """End the span, with an HTTP status (0: no complete response was sent) and a replica (empty: none)."""
        span = self._span
        for name, value in (
            ("http.response.status_code", status),
            ("melange.replica_type", replica_type),
            ("melange.replica_url", url),
            ("melange.retries", retries),
            ("gen_ai.usage.input_tokens", input_tokens),
            ("gen_ai.usage.output_tokens", output_tokens),
        ):
            if value:
                span.set_attribute(name, value)
        if status == 0 or status >= 500:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR))
        span.end()


class Tracing:
    """Creates spans and sends them from a thread of the SDK.

    Parameters
    ----------
    provider
        Tracer provider of the SDK.
    """

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._tracer = provider, provider.get_tracer("melange.balance")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, request: Request) -> Trace:
        """The span of a request, as a child of the client's span if there is one."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        parent = self._propagator.extract(_carried(request.fields))
        path = request.path.decode("ascii")
        attributes = {"http.request.method": "POST", "url.path": path}
        if request.tenant is not None:
            attributes["melange.tenant"] = request.tenant.name
        span = self._tracer.start_span(f"POST {path}", parent, SpanKind.SERVER, attributes)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, set_span_in_context(span))
        return Trace(span, "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode("latin-1"))

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.force_flush(_LAST_MS)
        self._provider.shutdown()


def tracing_of_environment() -> Tracing | None:
    """Tracing as configured by the SDK's variables; None without a collector or if the SDK is not installed."""
    if os.environ.get(_OFF, "").lower() == "true" or not any(os.environ.get(name) for name in _ENDPOINTS):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("traces are configured but not sent: pip install '.[otel]'")
        return None
    named = {} if os.environ.get(_NAME) else {"service.name": _SERVICE}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)


def without_context(lines: bytes) -> bytes:
    """Fields without the client's trace context, which ours replaces."""
    kept = (
        line for line in lines.splitlines(keepends=True) if line.partition(b":")[0].lower() not in {_PARENT, _STATE}
    )
    return b"".join(kept)


def _carried(fields: Fields) -> dict[str, str]:
    """The client's trace context; empty if there is none, or more than one."""
    if fields.repeated is not None and not fields.repeated.isdisjoint((_PARENT, _STATE)):
        return {}
    named = fields.named
    return {name.decode(): named[name].decode("latin-1") for name in (_PARENT, _STATE) if name in named}
