"""What an app leaves of a request's body is never its next request."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from agent.base.address import TcpAddress
from tests.scenarios.http_front import allow, deny, front, request

EVERYTHING = allow(PathPrefix="/")
METHODS = ("GET", "POST", "DELETE")
HIDDEN = request("GET /admin")


class Unreading(BaseHTTPRequestHandler):
    """Python's own server, with connections that are kept: it reads no body by itself."""

    protocol_version = "HTTP/1.1"
    served: list[str]

    def answer(self) -> None:
        """Say what was asked for."""
        self.served.append(f"{self.command} {self.path}")
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing."""


@contextlib.contextmanager
def unreading() -> Iterator[tuple[TcpAddress, list[str]]]:
    """Where it listens, and what it has served."""
    served: list[str] = []
    methods = {f"do_{method}": Unreading.answer for method in METHODS}
    handler = type("Handler", (Unreading,), {"served": served, **methods})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield TcpAddress("127.0.0.1", server.server_port), served
        finally:
            server.shutdown()
            thread.join(10)


def test_the_server_by_itself_does() -> None:
    with unreading() as (address, served), socket.create_connection((address.host, address.port)) as sock:
        sock.sendall(request("POST /form", f"Content-Length: {len(HIDDEN)}", body=HIDDEN))
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(4096):
            pass
    assert served == ["POST /form", "GET /admin"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_pythons_http_server_serves_no_request_out_of_a_body(method: str, chunked: bool) -> None:
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(HIDDEN)}"
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN) if chunked else HIDDEN
    with unreading() as (address, served):
        async with front(deny(PathPrefix="/admin"), EVERYTHING) as f:
            f.mesh.app.address = address
            async with f.caller() as caller:
                await caller.send(request(f"{method} /form", framing, body=body) + request("GET /next"))
                replies = [reply.text for _ in range(2) if (reply := await caller.reply())]
    assert replies == ["/form", "/next"]
    assert served == [f"{method} /form", "GET /next"]


@pytest.mark.parametrize("framing", ["Content-Length: 4", "Transfer-Encoding: chunked"])
async def test_a_request_with_a_body_is_the_last_on_its_connection_to_the_app(framing: str) -> None:
    async with front(EVERYTHING) as f, f.caller() as caller:
        for number in range(3):
            body = b"2\r\nhi\r\n0\r\n\r\n" if "chunked" in framing else b"hi!!"
            await caller.send(request("GET /") + request(f"POST /{number}", framing, body=body))
            for _ in range(2):
                reply = await caller.reply()
                assert reply is not None
                assert (reply.body, "connection" in reply.headers) == (b"ok", False)
        assert f.app.connections == 3
        assert [r.last for r in f.app.reached] == [False, True] * 3
