"""What the app answers: any bytes, to a request that the first byte chooses, in pieces that the second does.

A plain answer is what h11 makes of it, and so is what goes to the caller of it. One that is not plain is
refused by name or written anew, and h11 reads from it the status and the body that the app has sent; the
pieces make no difference to that, and HTTP/1.0 callers are told nothing of HTTP/1.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import h11

from agent.http1.fields import response_fields
from agent.http1.response_fast import FastResponse, read_fast
from agent.http1.response_h11 import AnswerBroken, H11Response
from agent.http1.usual_answers import UsualAnswers
from tests.fuzz.target import Target

_ASKED = [(b"Host", b"app")]
_UPGRADE = [(b"Connection", b"upgrade"), (b"Upgrade", b"websocket")]


@dataclass(frozen=True)
class Asked:
    """The request that is answered."""

    method: bytes
    old: bool
    upgrades: bool
    close: bool


def fuzz_one(data: bytes) -> None:
    """Read it both ways."""
    if len(data) < 2:
        return
    choice, size, raw = data[0], data[1], data[2:]
    asked = Asked(
        method=(b"GET", b"HEAD", b"POST", b"GET")[choice & 3],
        old=bool(choice & 4),
        upgrades=bool(choice & 8) and choice & 7 == 0,
        close=bool(choice & 4 or choice & 16),
    )
    plain = read_fast(raw, asked.method)
    by_lines = UsualAnswers()
    for _ in range(2):  # the lines that are known by then change nothing
        assert by_lines.read(raw, asked.method) == plain
    if plain is not None:
        _plain(plain, raw, asked.method)
    whole = _odd(raw, asked, 0)
    assert _odd(raw, asked, size) == whole


def _plain(plain: FastResponse, raw: bytes, method: bytes) -> None:
    app = _client(method)
    app.receive_data(raw)
    head = app.next_event()
    assert isinstance(head, h11.Response)
    if not plain.chunked:
        heard = b""
        while isinstance(event := app.next_event(), h11.Data):
            heard += event.data
        assert heard == raw[plain.body_start :][: plain.length]
        assert isinstance(event, h11.EndOfMessage) is (len(raw) - plain.body_start >= plain.length)
        if isinstance(event, h11.EndOfMessage):
            assert plain.keep_alive is (app.their_state is h11.DONE)
    for close in (False, True):
        caller = _client(method)
        caller.receive_data(plain.written(close=close))
        passed = caller.next_event()
        assert isinstance(passed, h11.Response)
        last = [(b"Connection", b"close")] if close else []
        assert list(passed.headers.raw_items()) == [*response_fields(head), *last]
        assert (passed.status_code, passed.reason) == (head.status_code, head.reason)


def _odd(raw: bytes, asked: Asked, size: int) -> object:
    """What the caller hears of an answer that is whole; None if it is refused or not whole."""
    response = H11Response(asked.method, http10=asked.old, upgrades=asked.upgrades)
    written, step = b"", size or max(1, len(raw))
    try:
        for place in range(0, len(raw), step):
            written += response.take(raw[place : place + step], close=asked.close)
        if not (response.ended or response.switched):
            written += response.take(b"", close=asked.close)
    except AnswerBroken:
        return None
    assert response.ended or response.switched
    return _heard_by_caller(written, asked, switched=response.switched)


def _heard_by_caller(written: bytes, asked: Asked, *, switched: bool) -> object:
    caller = _client(asked.method, _UPGRADE if asked.upgrades else [])
    caller.receive_data(written)
    heads: list[tuple[int, list[tuple[bytes, bytes]]]] = []
    body = b""
    while not isinstance(event := caller.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:  # an answer to HTTP/1.0 lasts until the end
            assert asked.old
            caller.receive_data(b"")
        elif event is h11.PAUSED:
            assert switched
            return heads, caller.trailing_data
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.Response | h11.InformationalResponse)
            assert not asked.old or isinstance(event, h11.Response)
            assert not switched or event.status_code == 101 or isinstance(event, h11.InformationalResponse)
            heads.append((event.status_code, list(event.headers.raw_items())))
    assert not asked.old or b"transfer-encoding" not in dict(heads[-1][1])
    return heads, body, list(event.headers.raw_items())


def _client(method: bytes, more: list[tuple[bytes, bytes]] | None = None) -> h11.Connection:
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[*_ASKED, *(more or [])]))
    client.send(h11.EndOfMessage())
    return client


_OK = b"HTTP/1.1 200 OK\r\n"
_CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n"
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"\0\0" + _OK + b"Server: x\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\nhello",
        b"\1\1" + _OK + b"Content-Length: 5\r\nConnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\n",
        b"\0\7" + _OK + _CHUNKS,
        b"\4\1" + b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + _OK + _CHUNKS,
        b"\x02\0HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"Content-Length: 0\r\n\r\n",
        b"\x10\0HTTP/1.0 200 OK\r\nX: y\r\n\r\nto the end",
        b"\x08\2" + _SWITCH + b"first",
        b"\x08\0" + _OK + b"Content-Length: 5\r\nConnection: x-y\r\nX-Y: 1\r\n\r\nhello",
        b"\0\0HTTP/1.1 204 No Content\r\nX: a\r\n b\r\n\r\n",
        b"\0\0HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"\0\0" + _OK + b"Content-Length: 9999999999999999999\r\n\r\n",
        b"\0\0HTTP/1.1 200\r\nContent-Length: 05\r\ncontent-length: 5\r\n\r\nhello",
    ),
    words=(
        *(b"HTTP/1.1 ", b"HTTP/1.0 ", b"200 OK\r\n", b"204 ", b"304 ", b"100 ", b"101 ", b"Content-Length: "),
        *(
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"Connection: keep-alive\r\n",
            b"0\r\n\r\n",
        ),
        *(b"Upgrade: websocket\r\n", b"TE: x\r\n", b"Proxy-Connection: x\r\n", b"\r\n\r\n", b"\r\n ", b": "),
        b"0\r\n\r\n",
    ),
)
