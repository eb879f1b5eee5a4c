"""h2spec's suites against the machine of tunnels, in plain text, and against a tunnel to a running sidecar.

h2spec is a program of its own (https://github.com/summerwind/h2spec), built with Go; H2SPEC names it, else
PATH has it. It asks by GET, which a tunnel answers by 405, and so ends each stream; the server in plain text
serves GET, so that the rest can be seen too.
"""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from agent.h2.connection import H2Connection
from agent.h2.faults import ConnectionFault
from agent.h2.header_blocks import Fields
from agent.h2.requests import Request
from agent.h2.stream import Stream
from tests.interop.mesh import Mesh, Sidecar
from tests.interop.nghttp import dialling

BODY = b"x" * 4096
_SUM = "the sum of the multiple DATA frames payload length"
_ONE = "the DATA frame payload length"
# What RFC 9113 no longer asks for, or leaves to the server.
LEFT_OUT = {
    "Sends HEADERS frame that depend on itself",  # priorities are gone: RFC 9113 §5.3.2
    "Sends PRIORITY frame that depend on itself",
    # The bytes of CONNECT are a tunnel's, whatever a content-length says: RFC 9110 §9.3.6.
    f'Sends a HEADERS frame with the "content-length" header field which does not equal {_SUM}',
    f'Sends a HEADERS frame with the "content-length" header field which does not equal {_ONE}',
}
# What a tunnel forestalls: the stream is answered and over before what h2spec does with it next.
FORESTALLED = {
    "Sends a WINDOW_UPDATE frame on half-closed (remote) stream",
    "Sends a PRIORITY frame on half-closed (remote) stream",
    "closed: Sends a DATA frame after sending RST_STREAM frame",
    "closed: Sends a HEADERS frame after sending RST_STREAM frame",
    "Sends HEADERS frames that causes their advertised concurrent stream limit to be exceeded",
    "Sends a WINDOW_UPDATE frame with a flow control window increment of 0 on a stream",
    "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
    "Sends a second HEADERS frame without the END_STREAM flag",
    "Sends a HEADERS frame that contains a pseudo-header field as trailers",
}
SUITES = {"generic": 40, "http2": 80, "hpack": 6}  # and how many cases each has at least


class Answering:
    """Answers each stream with BODY, as far as its window goes."""

    def __init__(self) -> None:
        self.machine = H2Connection(self, time.monotonic, client=False, most_streams=100)
        self.waiting: dict[int, bytes] = {}

    def on_request(self, stream: Stream, request: Request) -> None:
        owner = _Owner(self, stream)
        stream.owner = owner
        self.machine.accept(stream)
        if stream.remote_ended:
            owner.on_end()

    def push(self, stream: Stream) -> None:
        """Send on, as far as the window goes; `room` says 0 once, and then calls again."""
        while stream.id in self.waiting and (room := self.machine.room(stream)):
            body = self.waiting.pop(stream.id)
            self.machine.send(stream, body[:room])
            if body[room:]:
                self.waiting[stream.id] = body[room:]
            else:
                self.machine.end(stream)

    def on_settled(self) -> None:
        pass

    def on_goaway(self, code: int, detail: str) -> None:
        pass

    def on_pong(self) -> None:
        pass

    def on_room(self) -> None:
        for stream in tuple(self.machine.streams.values()):
            self.push(stream)


class _Owner:
    def __init__(self, server: Answering, stream: Stream) -> None:
        self.server = server
        self.stream = stream

    def on_response(self, status: int, fields: Fields) -> None:
        pass

    def on_data(self, data: bytes | memoryview) -> None:
        self.server.machine.consumed(self.stream, len(data))

    def on_end(self) -> None:
        if self.stream.id not in self.server.waiting:
            self.server.waiting[self.stream.id] = BODY
            self.server.push(self.stream)

    def on_reset(self, code: int, detail: str) -> None:
        self.server.waiting.pop(self.stream.id, None)

    def on_room(self) -> None:
        self.server.push(self.stream)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        side = Answering()
        with suppress(OSError):
            self.request.sendall(side.machine.take())
            while data := self.request.recv(65536):
                try:
                    side.machine.receive(data)
                except ConnectionFault as fault:
                    side.machine.close(fault.code, fault.reason.value)
                    self.request.sendall(side.machine.take())
                    return
                self.request.sendall(side.machine.take())


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


@pytest.fixture
def port() -> Iterator[int]:
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def binary() -> str:
    """Skip where h2spec is not."""
    found = os.environ.get("H2SPEC") or shutil.which("h2spec")  # noqa: TID251 - where a program of the tests is
    if found is None:
        pytest.skip("h2spec is not here: H2SPEC names it")
    return found


@pytest.fixture(scope="module")
def ours(mesh: Mesh) -> Iterator[Sidecar]:
    """A sidecar that takes tunnels."""
    with mesh.sidecar("h2spec-tunnels", "dc1", [], "-tunnel", "auto") as running:
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("suite", SUITES)
def test_the_suites_of_h2spec(suite: str, binary: str, port: int, tmp_path: Path) -> None:
    failed, printed = _failed(binary, suite, port, tmp_path)
    assert failed - LEFT_OUT == set(), printed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="no haproxy, which does the TLS: make packages")
@pytest.mark.parametrize("suite", SUITES)
def test_the_suites_of_h2spec_in_a_tunnel(
    suite: str, binary: str, mesh: Mesh, ours: Sidecar, tmp_path: Path
) -> None:
    who = mesh.holder("h2spec-caller", "dc2")
    sni = "tunnel-v1.h2spec-tunnels.default.dc1.internal.11111111.consul"
    with dialling(mesh.place("haproxy"), who, ours.port, sni) as port:
        failed, printed = _failed(binary, suite, port, tmp_path)
    assert failed - LEFT_OUT - FORESTALLED == set(), printed
    assert ours.status()["counters"]["internal_errors"] == {}


def _failed(binary: str, suite: str, port: int, directory: Path) -> tuple[set[str], str]:
    """The cases of a suite that have failed, and what h2spec printed."""
    report = directory / "h2spec.xml"
    done = subprocess.run(
        [binary, suite, "-p", str(port), "-h", "127.0.0.1", "-o", "2", "-j", str(report)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    cases = list(ET.parse(report).iter("testcase"))
    assert len(cases) >= SUITES[suite]
    return {case.get("classname", "") for case in cases if case.find("error") is not None}, done.stdout
