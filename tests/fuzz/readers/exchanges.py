"""What a server says to the agent's questions: any bytes on a connection to Consul, in any pieces.

The first byte is how long the pieces are, 0 for one whole. Every exchange ends in an answer or in
RequestFailed, every question of a watch in an answer or in ConsulError, and the pieces make no difference.
"""

from __future__ import annotations

from datetime import UTC, datetime

import trio

from agent.consul.api import Answer, Blocking, Consul, Json
from agent.consul.errors import ConsulError
from agent.consul.http import Client, Request, RequestFailed, Response
from agent.consul.token import TokenSource
from agent.consul.watch import Cursor, advance
from agent.control.clock_skew import ClockSkew
from tests.fuzz.target import Target
from tests.recorded import RECORDINGS

MOST_BODY = 4096


class _Said(trio.abc.Stream):
    """A connection whose far end has said all that and left, whatever it hears."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data = data
        self._size = size or len(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        piece, self._data = self._data[: self._size], self._data[self._size :]
        return piece

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Not heard."""

    async def wait_send_all_might_not_block(self) -> None:
        """Never."""

    async def aclose(self) -> None:
        """Nothing is open."""


def fuzz_one(data: bytes) -> None:
    """Two exchanges on one connection, then a watch's question."""
    if data:
        trio.run(_exchanges, data[1:], data[0])


async def _exchanges(data: bytes, size: int) -> None:
    whole = await _plain(data, 0)
    assert size == 0 or await _plain(data, size) == whole
    await _watched(data, size)


async def _plain(data: bytes, size: int) -> list[Response]:
    """The answers to two questions."""
    client = _client(data, size)
    answers = []
    for _ in range(2):
        try:
            answers.append(await client.exchange(Request(method="GET", target="/v1/x"), 5))
        except RequestFailed:
            break
    await client.aclose()
    return answers


async def _watched(data: bytes, size: int) -> None:
    client = _client(data, size)
    consul = Consul(client, TokenSource(None, None))
    skew = ClockSkew(lambda: datetime(2031, 1, 1, tzinfo=UTC), lambda _seconds, _notable: None)
    consul.on_date = skew.take
    try:
        answer = await consul.roots(Blocking(index=7, wait=1))
    except ConsulError as failed:
        assert len(str(failed)) < 1000
    else:
        _goes_on(answer)
    await client.aclose()


def _goes_on(answer: Answer[Json]) -> None:
    for cursor in Cursor:
        at = advance(cursor, Blocking(index=7), answer.index, answer.content_hash)
        assert at.index >= 0
        assert at.params is not None


def _client(data: bytes, size: int) -> Client:
    left = [_Said(data, size)]

    async def dial() -> trio.abc.Stream:
        if not left:
            raise ConnectionRefusedError  # what a connection has left is no other one's
        return left.pop()

    return Client(dial, host="consul", max_body=MOST_BODY)


_OK = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
_HEADS = sorted({path.read_bytes().split(b"\r\n\r\n")[0] for path in RECORDINGS.glob("health-*.http")})

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"\0" + _OK + b"Content-Length: 2\r\n\r\n{}" + _OK + b"Content-Length: 2\r\n\r\n{}",
        b"\1" + _OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"\0HTTP/1.1 100 Continue\r\n\r\n" + _OK + b"\r\n{}",
        b"\3HTTP/1.0 403 Forbidden\r\n\r\nPermission denied",
        b"\0HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"\0" + _OK.replace(b"7\r", b"9" * 4301 + b"\r") + b"Content-Length: 2\r\n\r\n{}",
        b"\0" + _OK.replace(b"Sun, 06", b"Sun, 99") + b"\r\n" + b"[" * 1200,
        b"\0" + _OK + b'\r\n{"a": "\xff"}',
        b"\0" + _OK + b"Content-Length: 9999\r\n\r\n" + b"x" * (MOST_BODY + 1),
        *(b"\0" + head + b"\r\nContent-Length: 4\r\n\r\nnull" for head in _HEADS[:12]),
    ),
    words=(
        *(
            b"HTTP/1.1 ",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"\r\n\r\n",
        ),
        *(b"X-Consul-Index: ", b"X-Consul-Contenthash: ", b"X-Consul-Default-Acl-Policy: ", b"Date: "),
        *(b"X-Consul-Results-Filtered-By-Acls: true", b"Sun, 06 Nov 1994 08:49:37 GMT", b" -0000", b" +9999"),
        *(b"Upgrade: ", b"100 ", b"204 ", b"304 ", b"500 ", b"0\r\n\r\n", b"18446744073709551616"),
    ),
    longest=8192,
)
