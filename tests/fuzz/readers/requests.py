"""A caller's requests, one behind the other, as the public listener reads them.

The first byte says which names fields may have. Each request is refused by name, or read so that what goes on
to the app has one reading: h11's, which is that of the rules, with the caller's identity in it once. What was
remembered of the request before changes nothing, and neither does reading the headers line by line. A head
that comes byte by byte is no more work than it is long.
"""

from __future__ import annotations

import re

import h11

from agent.http1.fields import IDENTITY
from agent.http1.head import MAX_FIELDS, FieldNames, HeadRefused, find_end, read_head
from agent.http1.request_body import BodyBroken
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.http1.target import TargetRefused
from tests.fuzz.metered import Metered
from tests.fuzz.target import Target
from tests.scenarios.attempts import AGAINST_ALLOWANCES, AGAINST_DENIALS, SMUGGLING
from tests.support.careful_reader import CarefulReader

MOST = 4  # requests
_HOST, _IDENTITY = b"127.0.0.1:80", b"By=spiffe://t/ns/d/dc/d/svc/db;URI=spiffe://t/ns/d/dc/d/svc/web"
_PLAIN_NAME = re.compile(rb"[0-9A-Za-z-]{1,256}")


def fuzz_one(data: bytes) -> None:
    """Read them with one reader, as one connection does."""
    names = FieldNames.UNDERSCORES if data[:1] == b"_" else FieldNames.PLAIN
    reader, received = _reader(names), data[1:]
    for _ in range(MOST):
        try:
            end = find_end(received)
            _comes_bytewise(received, end)
            if end is None:
                return
            call = reader.read(received[:end], received[end:])
        except (HeadRefused, TargetRefused) as refused:
            assert 400 <= refused.status < 600
            return
        body = _body(call)
        _as_if_alone(call, body, received[:end], received[end:], names)
        _has_one_reading(call, body)
        if not call.body.ended:
            return
        received = call.body.rest


def _reader(names: FieldNames) -> RequestReader:
    return RequestReader(host=_HOST, identity=_IDENTITY, judged=lambda: ("x-role",), names=names)


def _comes_bytewise(received: bytes, end: int | None) -> None:
    """It ends at the same place, or is refused before, where nothing could become of it; at no more cost."""
    Metered.looked = 0
    size = min(len(received) if end is None else end, 512)
    found = None
    for length in range(size + 1):
        try:
            found = find_end(Metered(received[:length]), max(length - 1, 0))
        except HeadRefused:
            assert end is None or not _is_head(received[:end])
            break
        if found is not None:
            break
    assert found is None or found == end
    assert Metered.looked <= 16 * size + 64, (Metered.looked, size)


def _is_head(head: bytes) -> bool:
    try:
        read_head(head, FieldNames.UNDERSCORES)
    except HeadRefused:
        return False
    return True


def _body(call: ParsedRequest) -> bytes:
    """What is written of it to the app, as far as it has come."""
    try:
        written = call.body.start()
        while call.body.more:
            written += call.body.take(b"")
    except BodyBroken:
        return b""
    return written


def _as_if_alone(call: ParsedRequest, body: bytes, head: bytes, came: bytes, names: FieldNames) -> None:
    alone = CarefulReader(host=_HOST, identity=_IDENTITY, judged=lambda: ("x-role",), names=names).read(
        head, came
    )
    assert (alone.head, alone.request, alone.framing) == (call.head, call.request, call.framing)
    assert _body(alone) == body
    assert (alone.body.ended, alone.body.rest) == (call.body.ended, call.body.rest)


def _has_one_reading(call: ParsedRequest, body: bytes) -> None:
    request, heard = _by_h11(call.head + body)
    assert (request.method, request.target) == (call.method, call.target.sent)
    assert list(request.headers.raw_items()) == call.fields
    assert len(call.fields) <= MAX_FIELDS + 4
    if len(call.fields) <= MAX_FIELDS:  # with those that the sidecar adds
        again = read_head(call.head, FieldNames.UNDERSCORES)
        assert (again.fields, again.target) == (call.fields, call.target.sent)
    told = [value for name, value in call.fields if _folded(name) == IDENTITY.lower()]
    assert told == [_IDENTITY]
    if not any(b"_" in name for name, _ in call.fields):
        assert all(_PLAIN_NAME.fullmatch(name) for name, _ in call.fields)
    assert len([name for name, _ in call.fields if _folded(name) == "host"]) == 1
    if not call.framing.chunked:
        assert heard == body


def _by_h11(raw: bytes) -> tuple[h11.Request, bytes]:
    http = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    http.receive_data(raw)
    request, heard = http.next_event(), b""
    assert isinstance(request, h11.Request)
    while isinstance(event := http.next_event(), h11.Data):
        heard += event.data
    return request, heard


def _folded(name: bytes) -> str:
    """As a gateway to CGI writes it, in small letters (RFC 3875 §4.1.18)."""
    return re.sub(r"[^0-9a-z]", "-", name.decode().lower())


_GET = b"GET /a?b HTTP/1.1\r\nHost: db\r\n\r\n"
_CRAFTED = [case.raw for case in (*AGAINST_DENIALS, *SMUGGLING, *AGAINST_ALLOWANCES)]

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"-" + _GET * 3,
        b"-POST / HTTP/1.1\r\nHost: db\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + _GET,
        b"-PUT /x HTTP/1.1\r\nHost: db\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: 1\r\n\r\n"
        + _GET,
        b"-GET / HTTP/1.0\r\n\r\n",
        b"-GET http://db/../x HTTP/1.1\r\nHost: DB\r\n\r\n",
        b"-GET /chat HTTP/1.1\r\nHost: db\r\nConnection: Upgrade, x\r\nUpgrade: websocket\r\nX: y\r\n\r\n",
        b"_GET / HTTP/1.1\r\nHost: db\r\nX_Forwarded_Client_Cert: a\r\nX-A_B: c\r\nCONTENT_LENGTH: 1\r\n\r\n",
        b"-GET / HTTP/1.1\r\nHost: db\r\n" + b"a:\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"-OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\nX-Forwarded-Client-Cert: By=x\r\n\r\n",
        *(b"-" + raw for raw in _CRAFTED[::7]),
    ),
    words=(
        *(b"GET ", b"POST ", b"HEAD ", b"OPTIONS ", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n\r\n", b"\r\n"),
        *(b"Host: db\r\n", b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
        *(
            b"Expect: 100-continue\r\n",
            b"Upgrade: websocket\r\n",
            b"X-Role: user, admin\r\n",
            b"TE: trailers\r\n",
        ),
        *(
            b"X-Forwarded-Client-Cert: ",
            b"SCRIPT_NAME: ",
            b"Proxy-Connection: ",
            b"Trailer: X\r\n",
            b"0\r\n\r\n",
        ),
        *(b"0\r\n\r\n", b"http://", b"/../", b"%2e", b"%2F", b";x", b"//", b"\n", b"\r", b"\0", b"\x80"),
    ),
)
