"""Answers of our own: words, a reason, and whether the connection can go on."""

from __future__ import annotations

import h11
import pytest
import trio

from agent.http1.fields import framing
from agent.http1.head import read_head
from agent.http1.request_body import CountedBody
from agent.inbound.local_reply import DRAIN_BYTES, answer, drained, linger, worth_draining
from agent.policy.authorize import VerdictReason
from agent.relay.streams import TlsStream
from tests.agent.relay.test_streams import tls_pair

REASON = VerdictReason.PERMISSION_DENY


def test_an_answer_says_why() -> None:
    assert answer(403, REASON, "web may not", close=False) == (
        b"HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 45\r\n\r\n"
        b"403 Forbidden: web may not (permission_deny)\n"
    )


def test_one_to_head_has_no_body() -> None:
    assert answer(403, REASON, "web may not", close=False, bodiless=True).endswith(b": 45\r\n\r\n")


def test_one_to_nothing_readable_closes() -> None:
    raw = answer(405, REASON, "no tunnels", close=True)
    assert b"Connection: close\r\n" in raw
    assert b"Allow: GET" in raw


@pytest.mark.parametrize("status", [400, 403, 405, 408, 413, 417, 431, 502, 503, 505])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_h11_reads_all_of_it(status: int, method: str) -> None:
    http = h11.Connection(h11.CLIENT)
    http.send(h11.Request(method=method, target="/", headers=[("Host", "db")]))
    http.send(h11.EndOfMessage())
    http.receive_data(answer(status, REASON, "é", close=False, bodiless=method == "HEAD"))
    head = http.next_event()
    assert isinstance(head, h11.Response)
    assert head.status_code == status
    if method == "GET":
        body = http.next_event()
        assert isinstance(body, h11.Data)
        assert bytes(body.data).startswith(b"%d " % status)
    assert isinstance(http.next_event(), h11.EndOfMessage)
    assert (http.their_state, http.trailing_data[0]) == (h11.DONE, b"")


@pytest.mark.parametrize(
    ("headers", "worth"),
    [
        (b"", True),
        (b"Content-Length: %d\r\n" % DRAIN_BYTES, True),
        (b"Content-Length: %d\r\n" % (DRAIN_BYTES + 1), False),
        (b"Transfer-Encoding: chunked\r\n", False),
        (b"Content-Length: 5\r\nExpect: 100-continue\r\n", False),
    ],
)
def test_a_short_body_that_must_come_is_worth_reading(headers: bytes, worth: bool) -> None:
    head = read_head(b"POST / HTTP/1.1\r\nHost: db\r\n" + headers + b"\r\n")
    assert worth_draining(framing(head)) is worth


@pytest.mark.parametrize(("body", "whole"), [(b"hello", True), (b"hel", False)])
async def test_draining(body: bytes, whole: bool) -> None:
    async with tls_pair() as (caller, sidecar, _):
        await caller.send(body)
        await caller.send_end()
        assert await drained(CountedBody(5, b""), sidecar) is whole


async def test_draining_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.inbound.local_reply.DRAIN_SECONDS", 0.01)
    async with tls_pair() as (_, sidecar, _):
        assert not await drained(CountedBody(5, b""), sidecar)


async def test_lingering_reads_what_still_comes_for_a_time() -> None:
    async with tls_pair() as (caller, sidecar, _):
        await caller.send(b"x" * 100_000)
        with trio.fail_after(5):
            await linger(sidecar, silence=0.05, longest=5)
        assert await caller.receive() == b""
    async with tls_pair() as (_, sidecar, sock):
        sock.close()
        await linger(sidecar, silence=5, longest=5)


async def test_lingering_ends_though_the_caller_never_stops_writing() -> None:
    async with tls_pair() as (caller, sidecar, _), trio.open_nursery() as nursery:
        nursery.start_soon(writing, caller)
        with trio.fail_after(5):
            await linger(sidecar, silence=5, longest=0.05)
        nursery.cancel_scope.cancel()


async def writing(caller: TlsStream) -> None:
    while True:
        await caller.send(b"x")
        await trio.sleep(0.001)
