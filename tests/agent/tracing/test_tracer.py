"""The spans of connections and of judged requests, by an exporter in memory."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import h11
import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from agent.connections.ledger import Ledger
from agent.connections.records import Direction
from agent.http1.request_reader import RequestReader
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending
from agent.tracing.tracer import Tracer
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.scenarios.http_app import AppSide, Reached
from tests.scenarios.http_front import allow, front, request
from tests.support.agent_parts import START, agent_bench

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"
UNSAMPLED = f"00-{TRACE}-b7ad6b7169203331-00"


class Bench:
    """A tracer, and what it has exported once it is closed."""

    def __init__(self, sample: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracer = Tracer(self.exporter, sample, "web")

    async def spans(self) -> tuple[ReadableSpan, ...]:
        await self.tracer.close()
        return self.exporter.get_finished_spans()


class Clock:
    def __init__(self) -> None:
        self.now = START


@pytest.fixture
async def bench() -> Bench:
    return Bench()


def head_of(*headers: str) -> bytes:
    return "\r\n".join(("GET /x?token=1 HTTP/1.1", "Host: db", *headers, "", "")).encode()


async def passed_on(bench: Bench, nursery: trio.Nursery, *headers: str) -> bytes:
    """What the app gets of a request."""
    reader = RequestReader(host=b"db", identity=b"By=x", judged=frozenset)
    parsed = reader.read(head_of(*headers), b"")
    with agent_bench(nursery).data.ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        identity = ServiceId(trust_domain=TrustDomain("x.consul"), datacenter="dc1", service="web")
        connection.peer = Peer(id=identity, serial="01", not_after=START, root="")
        with bench.tracer.request(parsed, connection) as span:
            span.passed(VerdictReason.PERMISSION_ALLOW, "web => db")
        connection.end(Ending.CLEAN)
    return parsed.head


def parent_in(head: bytes) -> list[str]:
    """Every traceparent of a head."""
    named = (line.partition(b": ") for line in head.split(b"\r\n"))
    return [value.decode() for name, _, value in named if name.lower() == b"traceparent"]


def is_sampled(parent: str) -> bool:
    """The lowest bit of the flags; the next one says that the trace's ID is random (level 2)."""
    return bool(int(parent.rpartition("-")[2], 16) & 1)


async def test_the_span_of_a_connection_has_its_times_and_the_fields_of_its_line(
    bench: Bench, nursery: trio.Nursery
) -> None:
    clock = Clock()
    ledger = Ledger(lambda: clock.now, agent_bench(nursery).agent.log)
    ledger.tracing = bench.tracer
    with ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
        connection.dialled = "10.0.0.9:20000 (wan_tag)"
        connection.rule = "web => db (allow, precedence 9)"
        connection.relaying()
        clock.now += timedelta(seconds=2)
        connection.end(Ending.CLEAN)
    with ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        connection.end(OutboundReason.DENIED_BY_PEER)
    out, refused = await bench.spans()
    assert (out.name, out.kind, out.parent) == ("outbound connection", SpanKind.CLIENT, None)
    assert out.start_time == int(START.timestamp()) * 10**9
    assert out.end_time == out.start_time + 2 * 10**9
    assert out.resource.attributes["service.name"] == "web"
    told = dict(out.attributes or {})
    assert told["sidecar.upstream"] == "db@dc2"
    assert (told["sidecar.address"], told["sidecar.why"]) == ("10.0.0.9:20000", "wan_tag")
    assert told["sidecar.rule"] == "web => db (allow, precedence 9)"
    assert "sidecar.peer" not in told, "what is not known is not said"
    assert out.status.status_code is StatusCode.UNSET
    assert (refused.kind, refused.status.description) == (SpanKind.SERVER, "denied_by_peer")


async def test_a_requests_span_is_the_child_of_the_callers_and_the_apps_parent(
    bench: Bench, nursery: trio.Nursery
) -> None:
    head = await passed_on(bench, nursery, f"Traceparent: {PARENT}", "Tracestate: a=1,b=2", "Accept: */*")
    (span,) = await bench.spans()
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
    assert parent_in(head) == [f"00-{TRACE}-{span.context.span_id:016x}-01"]
    assert b"Tracestate: a=1,b=2" in head or b"tracestate: a=1,b=2" in head
    assert head.startswith(b"GET /x?token=1 HTTP/1.1\r\n")
    assert head.endswith(b"\r\n\r\n")
    told = dict(span.attributes or {})
    assert told["url.path"] == "/x", "a query may hold secrets"
    assert told["sidecar.verdict"] == "permission_allow"
    assert told["sidecar.peer"] == "spiffe://x.consul/ns/default/dc/dc1/svc/web"


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("traceparent: nonsense",),
        (f"traceparent: 00-{'0' * 32}-b7ad6b7169203331-01",),
        (f"traceparent: {PARENT}", f"Traceparent: {PARENT}"),
        ("x-traceparent: a", f"traceparent: {PARENT}-more"),
    ],
)
async def test_a_trace_begins_here_where_the_caller_names_none_or_not_validly(
    bench: Bench, nursery: trio.Nursery, headers: tuple[str, ...]
) -> None:
    head = await passed_on(bench, nursery, *headers)
    (span,) = await bench.spans()
    assert span.parent is None
    (parent,) = parent_in(head)
    assert parent.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
    assert is_sampled(parent)


async def test_a_trace_that_its_caller_does_not_sample_is_passed_on_and_not_exported(
    bench: Bench, nursery: trio.Nursery
) -> None:
    (parent,) = parent_in(await passed_on(bench, nursery, f"traceparent: {UNSAMPLED}"))
    assert parent.startswith(f"00-{TRACE}-")
    assert not is_sampled(parent)
    assert parent != UNSAMPLED
    assert await bench.spans() == ()


async def test_a_ratio_of_none_exports_nothing_but_what_the_caller_samples(nursery: trio.Nursery) -> None:
    bench = Bench(sample=0.0)
    (parent,) = parent_in(await passed_on(bench, nursery))
    assert not is_sampled(parent)
    await passed_on(bench, nursery, f"traceparent: {PARENT}")
    assert len(await bench.spans()) == 1
    assert bench.tracer.counts() == {"exported": 1, "failed": 0, "dropped": 0}


async def test_judged_requests_are_traced_and_the_app_gets_their_traceparent() -> None:
    bench = Bench()
    async with front(allow(PathPrefix="/api")) as f:
        f.mesh.db.ledger.tracing = bench.tracer
        async with f.caller() as caller:
            for line in ("GET /api/a", "GET /api/b", "GET /admin"):
                await caller.send(request(line, f"traceparent: {PARENT}"))
                with trio.fail_after(10):
                    assert await caller.reply() is not None
    first, second, denied, *rest = await bench.spans()
    paths = [dict(span.attributes or {})["url.path"] for span in (first, second, denied)]
    assert paths == ["/api/a", "/api/b", "/admin"]
    assert denied.status.description == "default_deny"
    told = dict(denied.attributes or {})
    assert (told["http.response.status_code"], told["error.type"]) == (403, "default_deny")
    told = dict(first.attributes or {})
    assert (told["http.response.status_code"], "error.type" in told) == (200, False)
    assert (told["url.scheme"], told["network.protocol.version"]) == ("https", "1.1")
    assert told["client.address"] == "127.0.0.1"
    assert [span.name for span in rest] == ["inbound connection"]
    got = [dict(one.headers)["traceparent"] for one in f.app.reached]
    assert got == [f"00-{TRACE}-{span.context.span_id:016x}-01" for span in (first, second)]


@pytest.mark.parametrize(
    ("lines", "status", "error"),
    [
        (("HTTP/1.1 404 Not Found", "Content-Length: 0"), 404, None),
        (("HTTP/1.1 500 Oh", "Content-Length: 0"), 500, "500"),
        (("HTTP/1.1 503 Oh", "Transfer-Encoding: chunked", "", "0"), 503, "503"),
        (("HTTP/1.0 502 Oh", "Content-Length: 0"), 502, "502"),
        (("HTTP/1.1 200 OK", "Content-Length: 9"), None, "app_closed"),
    ],
)
async def test_a_requests_span_has_the_status_of_the_apps_answer_and_a_servers_error(
    lines: tuple[str, ...], status: int | None, error: str | None
) -> None:
    async def say(side: AppSide, request: Reached) -> None:
        await side.body(request)
        await side.say(*lines)
        raise trio.EndOfChannel

    bench = Bench()
    async with front(allow(PathPrefix="/"), answer=say) as f:
        f.mesh.db.ledger.tracing = bench.tracer
        with suppress(h11.RemoteProtocolError):  # of an answer that is cut off
            await f.ask(request("GET /"))
    span, *_ = await bench.spans()
    told = dict(span.attributes or {})
    assert (told.get("http.response.status_code"), told.get("error.type")) == (status, error)
    assert span.status.status_code is (StatusCode.UNSET if error is None else StatusCode.ERROR)


async def test_without_a_tracer_the_callers_traceparent_reaches_the_app_as_it_is() -> None:
    async with front(allow(PathPrefix="/")) as f:
        await f.ask(request("GET /", f"traceparent: {PARENT}", "tracestate: a=1"))
    (got,) = [dict(one.headers) for one in f.app.reached]
    assert (got["traceparent"], got["tracestate"]) == (PARENT, "a=1")
