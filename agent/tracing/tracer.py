"""Makes the span of each connection that has ended, and of each judged request.

A request's span is the child of the caller's, by its `traceparent` (W3C Trace Context), and the app gets a
`traceparent` that names this span; `tracestate` is passed on as it is. Whether a trace is sampled is decided
where it begins: by `tracing_sample` here, else by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum

import trio
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from agent import VERSION
from agent.connections.connection import Connection
from agent.connections.records import Direction, Finished
from agent.connections.tracing import RequestSpan
from agent.http1.request_reader import ParsedRequest
from agent.log.connection_log import fields
from agent.relay.splice import Ending
from agent.tracing.spans import SpanQueue

EXPORT_SECONDS = 5.0  # of one request to the collector
CLOSE_SECONDS = 2.0  # at the end, for what is queued
_SERVER_ERROR = 500
SHOWN = 256  # bytes of a path in a span; its query, which may hold secrets, is in none
_TRACEPARENT = re.compile(rb"(?i)\r\ntraceparent:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)")
_TRACESTATE = re.compile(rb"(?i)\r\ntracestate:[ \t]*([^\r\n]*?)[ \t]*(?=\r\n)")
_W3C = TraceContextTextMapPropagator()
_KINDS = {Direction.INBOUND: SpanKind.SERVER, Direction.OUTBOUND: SpanKind.CLIENT}


class Tracer:
    """The tracer of one process (agent.connections.tracing.Tracing)."""

    def __init__(self, exporter: SpanExporter, sample: float, service: str) -> None:
        """`service`: the resource's `service.name`."""
        self._queue = SpanQueue(exporter)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(sample)),
            resource=Resource.create({"service.name": service}),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(self._queue)
        self._tracer = self._provider.get_tracer("connect-sidecar", VERSION)

    def connection_ended(self, finished: Finished) -> None:
        """Make the span of a connection, with the fields of its line in the log."""
        span = self._tracer.start_span(
            f"{finished.direction.value} connection",
            context=Context(),
            kind=_KINDS[finished.direction],
            start_time=_nanoseconds(finished.since),
        )
        if span.is_recording():
            known = fields(finished).items()
            span.set_attributes(
                {f"sidecar.{name}": value for name, value in known if value not in (None, "")}
            )
            if not finished.opened or finished.reason is not Ending.CLEAN:
                span.set_status(StatusCode.ERROR, finished.reason.value)
        span.end(_nanoseconds(finished.until))

    @contextmanager
    def request(self, parsed: ParsedRequest, connection: Connection) -> Iterator[RequestSpan]:
        """Hold the span of a request within the block; the app gets its `traceparent`."""
        span = self._tracer.start_span(
            parsed.method.decode(), context=_caller(parsed.head), kind=SpanKind.SERVER
        )
        parsed.head = _with_span(parsed.head, span)
        if span.is_recording():
            span.set_attributes(_attributes(parsed, connection))
        try:
            yield _Request(span)
        finally:
            span.end()

    def counts(self) -> Mapping[str, int]:
        """Return how many spans were exported, could not be exported, and were dropped."""
        return self._queue.counts()

    async def close(self) -> None:
        """Export what is queued, for CLOSE_SECONDS at most."""
        with trio.move_on_after(CLOSE_SECONDS, shield=True):
            await trio.to_thread.run_sync(self._provider.shutdown, abandon_on_cancel=True)


class _Request:
    """The span of one request (agent.connections.tracing.RequestSpan)."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def passed(self, reason: StrEnum, rule: str) -> None:
        """See RequestSpan."""
        self._span.set_attributes({"sidecar.verdict": reason.value, "sidecar.rule": rule})

    def refused(self, reason: StrEnum, status: int) -> None:
        """See RequestSpan."""
        self._span.set_attribute("http.response.status_code", status)
        self.broken_off(reason)

    def answered(self, status: int) -> None:
        """See RequestSpan. To a server's span an answer from 500 on is an error, by the same conventions."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= _SERVER_ERROR:
            self._span.set_attribute("error.type", str(status))
            self._span.set_status(StatusCode.ERROR)

    def broken_off(self, reason: StrEnum) -> None:
        """See RequestSpan."""
        self._span.set_attributes({"sidecar.reason": reason.value, "error.type": reason.value})
        self._span.set_status(StatusCode.ERROR, reason.value)


def otlp_tracer(endpoint: str, sample: float, service: str) -> Tracer:
    """Return the tracer that exports to a collector by OTLP over HTTP."""
    return Tracer(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS), sample, service)


def _caller(head: bytes) -> Context:
    """Return the context that the caller has sent; an empty one for none, or one that is not valid."""
    parents, states = _TRACEPARENT.findall(head), _TRACESTATE.findall(head)
    if len(parents) != 1:
        return Context()
    carrier = {"traceparent": parents[0].decode("latin-1"), "tracestate": b",".join(states).decode("latin-1")}
    return _W3C.extract(carrier, Context())


def _with_span(head: bytes, span: Span) -> bytes:
    """Return the head with the span's `traceparent` instead of the caller's."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, set_span_in_context(span, Context()))
    if "traceparent" not in carrier:  # OTEL_SDK_DISABLED
        return head
    line, _, rest = _TRACEPARENT.sub(b"", head).partition(b"\r\n")
    return b"%b\r\ntraceparent: %b\r\n%b" % (line, carrier["traceparent"].encode("ascii"), rest)


def _attributes(parsed: ParsedRequest, connection: Connection) -> dict[str, str | int]:
    """Return the attributes by the conventions for spans of HTTP servers, and two of ours.

    https://opentelemetry.io/docs/specs/semconv/http/http-spans/
    """
    return {
        "http.request.method": parsed.method.decode(),
        "url.scheme": "https",
        "network.protocol.version": "1.0" if parsed.http10 else "1.1",
        "client.address": (connection.caller.rpartition(":")[0] or connection.caller).strip("[]"),
        "url.path": parsed.target.sent.partition(b"?")[0][:SHOWN].decode("latin-1"),
        "sidecar.connection_id": connection.id,
        "sidecar.peer": "" if connection.peer is None else str(connection.peer.id),
    }


def _nanoseconds(at: datetime) -> int:
    return int(at.timestamp() * 1_000_000) * 1000
