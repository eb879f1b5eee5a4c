"""An app answers before it has read the whole request: the answer arrives, says that it is the last, and is.

RFC 9112 §9.3 and §9.6: a connection with an unread request on it is of no more use; and it is not reset while
its caller may still be writing, for that would take the answer away.
"""

from __future__ import annotations

import pytest
import trio

from tests.scenarios.http_app import AppSide, Reached
from tests.scenarios.http_front import allow, front, request

EVERYTHING = allow(PathPrefix="/")


@pytest.mark.parametrize("framing", ["Content-Length: 20000000", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("chunked_answer", [False, True])
async def test_an_answer_before_the_end_of_the_request_arrives_and_says_that_it_is_the_last(
    framing: str, chunked_answer: bool
) -> None:
    async def impatient(side: AppSide, asked: Reached) -> None:
        if chunked_answer:
            chunks = b"3\r\nno!\r\n0\r\n\r\n"
            await side.say("HTTP/1.1 413 Too Large", "Transfer-Encoding: chunked", body=chunks)
        else:
            await side.say("HTTP/1.1 413 Too Large", "Content-Length: 3", body=b"no!")
        await trio.sleep_forever()

    async with front(EVERYTHING, answer=impatient) as f, f.caller() as caller:
        await caller.send(request("PUT /", framing))
        with trio.fail_after(10):
            reply = await caller.reply()
            assert reply is not None
            assert (reply.status, reply.body, reply.headers["connection"]) == (413, b"no!", "close")
            assert await caller.ended()
        await caller.stream.send_end()
        await f.mesh.db.ledger.empty()
        assert f.mesh.db.ledger.recent()[-1].reason.value == "clean"


async def test_a_caller_who_reads_only_when_it_has_written_all_still_gets_that_answer() -> None:
    async def impatient(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 413 Too Large", "Content-Length: 3", body=b"no!")
        await trio.sleep_forever()

    size, piece = 40 << 20, b"x" * 65536  # more than the kernel's buffers take
    async with front(EVERYTHING, answer=impatient) as f, f.caller() as caller:
        with trio.fail_after(20):
            await caller.send(request("PUT /", f"Content-Length: {size}"))
            for _ in range(size // len(piece)):
                await caller.send(piece)
            reply = await caller.reply()
        assert reply is not None
        assert (reply.status, reply.headers["connection"]) == (413, "close")


async def test_what_follows_a_request_that_was_answered_too_early_is_no_request() -> None:
    async def impatient(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 413 Too Large", "Content-Length: 0")
        await trio.sleep_forever()

    async with front(EVERYTHING, answer=impatient) as f, f.caller() as caller:
        await caller.send(request("PUT /", "Content-Length: 100", body=b"x" * 10))
        reply = await caller.reply()
        assert reply is not None
        assert reply.status == 413
        await caller.send(b"x" * 90 + request("GET /next"))
        assert await caller.ended()
        await caller.stream.send_end()
        await f.mesh.db.ledger.empty()
        assert [r.target for r in f.app.reached] == ["/"]


async def test_an_answer_amid_an_upload_does_not_end_it() -> None:
    """An app that answers as it reads: both go on to their ends."""

    async def echo(side: AppSide, asked: Reached) -> None:
        await side.say("HTTP/1.1 200 OK", "Content-Length: 10")
        for _ in range(10):
            await side.stream.send_all(await side.exactly(1))

    async with front(EVERYTHING, answer=echo) as f, f.caller() as caller:
        await caller.send(request("POST /", "Content-Length: 10"))
        for letter in b"abcdefghij":
            await trio.testing.wait_all_tasks_blocked(0.01)
            await caller.send(bytes([letter]))
        reply = await caller.reply()
        assert reply is not None
        assert (reply.body, reply.headers["connection"]) == (b"abcdefghij", "close")
