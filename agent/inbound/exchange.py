"""Passes one request on to the app and its answer back, both as they come; neither is buffered completely.

Two tasks: one sends the request's body to the app and then watches whether the caller leaves; the other sends
the answer to the caller. The exchange is over with the answer: an app may answer before it has read the whole
request, and the rest of the request is then not waited for. A short request with a prompt answer, the usual
case, needs no second task: if the caller leaves, sending the answer fails.

The request's framing is written anew (`request_body.py`). A usual answer is passed on with its counted bytes
or its chunks (`response_fast.py`); any other is parsed and written anew by h11 (`response_h11.py`). Memory
per exchange: one read, and one read of the caller's next requests.
"""

from __future__ import annotations

from enum import Enum, StrEnum, auto

import trio

from agent.http1.chunked import Chunks, ChunksBroken
from agent.http1.fields import trailer_fields
from agent.http1.request_body import BodyBroken, RequestBody
from agent.http1.request_reader import ParsedRequest
from agent.http1.response_fast import FastResponse, read_fast
from agent.http1.response_h11 import AnswerBroken, AnswerReason, H11Response
from agent.inbound.app_connection import AppConnection
from agent.relay.splice import Ending
from agent.relay.streams import CHUNK, ByteStream, CallerStream, StreamBroken, pour

PROMPT_SECONDS = 0.5  # an answer that begins within this time needs no second task


class Outcome(Enum):
    """How an exchange ended without a failure."""

    ANSWERED = auto()
    CLOSING = auto()  # answered, and the answer says that the caller's connection ends with it
    SWITCHED = auto()  # both sides switched to another protocol
    STALE = auto()  # the app had closed the kept connection before it could read the request


class ExchangeFailed(Exception):
    """The exchange has failed. `answering`: part of an answer was sent, so no other answer can be."""

    def __init__(self, reason: StrEnum, detail: str, *, answering: bool) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
        self.answering = answering


class Exchange:
    """One allowed request and its answer."""

    def __init__(self, caller: CallerStream, app: AppConnection, parsed: ParsedRequest) -> None:
        self.first_bytes = b""  # of the app, in the protocol it switched to
        self.status = 0  # of the app's answer, once it has begun
        self._caller = caller
        self._app = app
        self._parsed = parsed
        self._body = parsed.body
        self._outcome = Outcome.ANSWERED
        self._failure: ExchangeFailed | None = None
        self._scope: trio.CancelScope | None = None
        self._answering = False
        self._closing = False
        self._came: bytes | None = None  # of the answer, before this exchange was resumed
        self._unsent = b""  # of the request's bytes that were taken before

    async def run(self) -> Outcome:
        """Run the exchange. Raises ExchangeFailed. `body` and `app` then know what can be reused."""
        if not await self._send_head():
            return Outcome.STALE
        if self._body.ended and await self._app.stream.readable_within(PROMPT_SECONDS):
            await self._download()
        else:
            await self._both_ways()
        return self._ended()

    async def resume(self, unsent: bytes, answer: bytes | None) -> Outcome:
        """Go on with an exchange; what has come of its request has been sent, but for `unsent`.

        `answer`: the first bytes of the answer, empty at the app's end; None if nothing has come. Raises
        ExchangeFailed.
        """
        self._unsent, self._came = unsent, answer
        if answer is None or not self._body.ended:
            await self._both_ways()
        else:
            await self._download()
        return self._ended()

    def _ended(self) -> Outcome:
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure  # its traceback refers to it: a cycle that holds both connections
        if self._outcome is Outcome.ANSWERED and self._closing:
            return Outcome.CLOSING
        return self._outcome

    async def _both_ways(self) -> None:
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._upload)
            await self._download()
            nursery.cancel_scope.cancel()

    async def _send_head(self) -> bool:
        """Send the head and what has come of the body; return False if the kept connection is stale."""
        try:
            data = self._parsed.head + self._body.start()
        except BodyBroken as broken:
            raise ExchangeFailed(broken.reason, broken.detail, answering=False) from broken
        return await self._send(data)

    async def _send(self, data: bytes) -> bool:
        try:
            await self._app.send(data, last=self._body.ended)
        except StreamBroken as broken:
            if self._app.used:
                return False
            raise ExchangeFailed(AnswerReason.CLOSED, broken.detail, answering=False) from broken
        return True

    # The request.

    async def _upload(self) -> None:
        try:
            if self._unsent:
                await self._app.send(self._unsent, last=self._body.ended)
            while not self._body.ended:
                part = self._body.take(await _next(self._body, self._caller))
                if part:
                    await self._app.send(part, last=self._body.ended)
            await self._listen()
        except BodyBroken as broken:
            self._fail(broken.reason, broken.detail)
        except StreamBroken as broken:
            if broken.ending is not Ending.PLAIN_RESET:
                self._fail(broken.ending, broken.detail)
            # else the app reads no more; `_download` gets its answer, or its reset

    async def _listen(self) -> None:
        """Read the caller's next requests, at most CHUNK bytes, to notice if it leaves."""
        while len(self._body.rest) < CHUNK:
            data = await self._caller.receive()
            if not data:
                return
            self._body.take(data)

    # The answer.

    async def _download(self) -> None:
        try:
            await self._answer()
        except AnswerBroken as broken:
            self._fail(broken.reason, broken.detail)
        except StreamBroken as broken:
            reason = AnswerReason.CLOSED if broken.ending is Ending.PLAIN_RESET else broken.ending
            self._fail(reason, broken.detail)

    async def _answer(self) -> None:
        data = await self._first()
        if data is None:
            self._outcome = Outcome.STALE
            return
        fast = read_fast(data, self._parsed.method)
        if fast is None or (fast.chunked and self._parsed.http10):
            await self._pass_h11(data)
        elif fast.chunked:
            await self._pass_chunks(fast, data)
        else:
            await self._pass_fast(fast, data)

    async def _first(self) -> bytes | None:
        """Return the first bytes, or b"" at the end; None if the kept connection is stale."""
        try:
            data = await self._app.stream.receive() if self._came is None else self._came
        except StreamBroken:
            if not self._app.used:
                raise
            data = b""
        return data if data or not self._app.used else None

    def _closes(self) -> bool:
        """Return whether the caller's connection ends with the answer that begins now; note it in `_closing`.

        It must also end if the request has not been read completely (RFC 9112 §9.3, §9.6): the app may never
        read the rest, and the start of the next request is known only after it.
        """
        self._closing = self._parsed.framing.closes or not self._body.ended
        return self._closing

    async def _pass_fast(self, fast: FastResponse, data: bytes) -> None:
        self._answering, self.status = True, fast.status
        body = data[fast.body_start : fast.body_start + fast.length]
        await self._caller.send(fast.written(close=self._closes()) + body)
        if missing := fast.length - len(body):
            missing = await pour(self._app.stream, self._caller, missing)
            if missing:
                raise AnswerBroken(AnswerReason.CLOSED, f"{missing} bytes of the answer are missing")
        self._answer_ended(exact=len(data) <= fast.body_start + fast.length, keep_alive=fast.keep_alive)

    async def _pass_chunks(self, fast: FastResponse, data: bytes) -> None:
        self._answering, self.status = True, fast.status
        chunks = Chunks(trailer_fields)
        written = fast.written(close=self._closes()) + _taken(chunks, data[fast.body_start :])
        await self._caller.send(written)
        while not chunks.ended:
            data = await _next(chunks, self._app.stream)
            if not data and not chunks.more:
                raise AnswerBroken(AnswerReason.CLOSED, "the last chunk of the answer is missing")
            await self._caller.send(_taken(chunks, data))
        self._answer_ended(exact=not chunks.rest, keep_alive=fast.keep_alive)

    async def _pass_h11(self, data: bytes) -> None:
        answer = H11Response(self._parsed.method, http10=self._parsed.http10, upgrades=self._parsed.upgrades)
        while True:
            try:
                written = answer.take(data, close=not answer.begun and self._closes())
            finally:
                self._answering, self.status = answer.begun, answer.status
            await self._caller.send(written)
            if answer.ended or answer.switched:
                break
            data = await self._app.stream.receive()
        self._answer_ended(exact=not answer.rest, keep_alive=answer.keep_alive)
        if answer.switched:
            self._outcome = Outcome.SWITCHED
            self.first_bytes = answer.rest

    def _answer_ended(self, *, exact: bool, keep_alive: bool) -> None:
        """Note the answer's end. `exact`: no byte followed it; `keep_alive`: the app keeps the connection."""
        self._app.answered = exact
        self._app.keep_alive = keep_alive

    def _fail(self, reason: StrEnum, detail: str) -> None:
        if self._failure is None:
            self._failure = ExchangeFailed(reason, detail, answering=self._answering)
        if self._scope is not None:
            self._scope.cancel()


async def _next(body: RequestBody | Chunks, stream: ByteStream) -> bytes:
    """Return new bytes for a body, or b"" if it can go on with the bytes that have come."""
    if not body.more:
        return await stream.receive()
    await trio.lowlevel.checkpoint()
    return b""


def _taken(chunks: Chunks, data: bytes) -> bytes:
    try:
        return chunks.take(data)
    except ChunksBroken as error:
        raise AnswerBroken(AnswerReason.MALFORMED, str(error)) from error
