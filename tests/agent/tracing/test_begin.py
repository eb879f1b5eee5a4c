"""Spans reach a collector by OTLP over HTTP; without a setting for one the SDK is not even loaded."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from agent.connections.records import Direction
from agent.observe.metrics import families
from agent.relay.splice import Ending
from agent.tracing.begin import traced
from tests.support.agent_parts import agent_bench, settings


class Collector(ThreadingHTTPServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.paths: list[str] = []
        self.got: list[ExportTraceServiceRequest] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/traces"


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        self.server.got.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_spans_reach_a_collector_and_are_counted(nursery: trio.Nursery, collector: Collector) -> None:
    bench = agent_bench(nursery, settings(tracing_endpoint=collector.url))
    async with traced(bench.data.ledger, bench.control.settings):
        with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
            connection.relaying()
            connection.end(Ending.CLEAN)
    (request,) = collector.got
    (of_resource,) = request.resource_spans
    assert [a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name"] == [
        "web"
    ]
    (of_scope,) = of_resource.scope_spans
    assert [span.name for span in of_scope.spans] == ["outbound connection"]
    assert collector.paths == ["/v1/traces"]
    (counted,) = [one for one in await families(bench.agent) if one.name == "sidecar_spans_total"]
    found = {labels["result"]: count for labels, count in counted.samples}
    assert found == {"exported": 1, "failed": 0, "dropped": 0}


async def test_a_collector_that_is_away_ends_nothing_but_the_spans(nursery: trio.Nursery) -> None:
    with Collector() as gone:
        url = gone.url
    bench = agent_bench(nursery, settings(tracing_endpoint=url))
    with trio.fail_after(30):
        async with traced(bench.data.ledger, bench.control.settings):
            with bench.data.ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
                connection.end(Ending.CLEAN)
    assert bench.data.ledger.counters() == {(Direction.OUTBOUND, "clean"): 1}
    exporting = [each for each in threading.enumerate() if each.name.startswith("OtelBatch")]
    for (
        each
    ) in exporting:  # it outlives CLOSE_SECONDS, and draws random numbers, which no other test may meet
        await trio.to_thread.run_sync(each.join)


async def test_without_an_endpoint_nothing_is_traced(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    async with traced(bench.data.ledger, bench.control.settings):
        assert bench.data.ledger.tracing is None


def test_an_agent_that_traces_nothing_does_not_load_the_sdk() -> None:
    code = "import sys, agent.run, agent.workers.worker; print([m for m in sys.modules if 'telemetry' in m])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "[]\n"
