"""Requests to the admin endpoint: any bytes on a connection to it, one request behind the other.

Each is answered in HTTP that h11 reads, and the connection ends; nothing is raised.
"""

from __future__ import annotations

import socket

import h11
import msgspec
import trio

from agent.base.undecodable import UNDECODABLE
from agent.net.admission import Admission
from agent.observe.server import JSON, Admin, Reply, Route, text_reply
from agent.policy.explain import Inquiry, InvalidInquiry, question_of
from tests.agent.observe.test_server import Heard
from tests.fuzz.target import Target


def fuzz_one(data: bytes) -> None:
    """Ask it over a unix socket, where everything may be asked."""
    trio.run(_asked, data)


async def _asked(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        await Admin(_ROUTES, Heard())._serve_connection(ours, Admission().enter())
        heard = b""
        while part := theirs.recv(1 << 20):
            heard += part
    _is_http(heard)


def _is_http(heard: bytes) -> None:
    """As many answers as there are; a HEAD's looks like a GET's without a body."""
    while heard:
        client = h11.Connection(h11.CLIENT)
        client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
        client.send(h11.EndOfMessage())
        client.receive_data(heard)
        head = client.next_event()
        assert isinstance(head, h11.Response)
        assert head.status_code in {200, 400, 403, 404, 405, 413, 421, 431, 501}
        begins = heard.index(b"\r\n\r\n") + 4
        whole = begins + int(dict(head.headers)[b"content-length"])
        heard = heard[begins if heard.startswith(b"HTTP/1.1 ", begins) else whole :]


async def _live(_body: bytes) -> Reply:
    return text_reply(200, "alive")


async def _explain(body: bytes) -> Reply:
    try:
        question = question_of(msgspec.json.decode(body, type=Inquiry), "test.consul", "dc1")
    except (*UNDECODABLE, InvalidInquiry) as error:
        return text_reply(400, str(error))
    return Reply(content_type=JSON, body=msgspec.json.encode(str(question.source)))


_ROUTES = [
    Route(method="GET", path="/live", answer=_live),
    Route(method="POST", path="/explain", answer=_explain),
    Route(method="POST", path="/drain", answer=_live, changes=True),
]
_GET = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"


def _post(body: bytes) -> bytes:
    return b"POST /explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _GET * 3,
        _GET.replace(b"GET", b"HEAD") + _GET,
        _GET.replace(b"/live", b"/status?x=1"),
        _post(b'{"source": "web@dc1", "path": "/a", "headers": ["X-Role: root"], "serial": "0a:7f"}') + _GET,
        _post(
            b'{"source": "spiffe://t/ns/default/dc/dc1/svc/web", "method": "PUT", "destination": "db@dc2"}'
        ),
        _post(b"[" * 1200),
        _post(b'{"source": "\xff"}'),
        b"POST /drain HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"GET /live HTTP/1.0\r\n\r\n",
        b"GET http://evil/live HTTP/1.1\r\nHost: evil\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\0\x05\x01\0\0\x01\0",
    ),
    words=(
        *(b"GET ", b"POST ", b"HEAD ", b" HTTP/1.1\r\n", b"Host: localhost\r\n", b"Content-Length: "),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: close\r\n",
            b"\r\n\r\n",
        ),
        *(b"/live", b"/explain", b"/drain", b'"source"', b'"headers"', b'"path"', b"spiffe://", b"0\r\n\r\n"),
    ),
)
