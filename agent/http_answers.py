"""The answers the sidecar gives itself, in words a person can read, and the end of a request nobody wants."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus

import h11
import trio

from agent.http_streams import StreamBroken, TlsStream

DRAIN_SECONDS = 5.0
DRAIN_BYTES = 64 * 1024  # of a refused request's body, read so that the connection can go on


def answer(
    http: h11.Connection, status: int, reason: StrEnum, text: str, *, close: bool, bodiless: bool = False
) -> bytes:
    """A whole answer; `bodiless`: to HEAD. What was asked is not repeated: it may be made to be shown."""
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}: {text} ({reason.value})\n".encode()
    fields = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    fields += [("Connection", "close")] if close else []
    fields += [("Allow", "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE")] if status == 405 else []
    parts: list[h11.Event] = [h11.Response(status_code=status, headers=fields, reason=phrase)]
    parts += [h11.Data(data=body)] if not bodiless else []
    return b"".join(http.send(part) or b"" for part in (*parts, h11.EndOfMessage()))


def worth_draining(request: h11.Request) -> bool:
    """Whether the rest of a refused request is so short, and so certain to come, that it may be read."""
    headers = dict(request.headers)
    if b"transfer-encoding" in headers or b"expect" in headers:
        return False
    return int(headers.get(b"content-length", b"0")) <= DRAIN_BYTES


async def drained(http: h11.Connection, caller: TlsStream) -> bool:
    """Read the rest of a request and drop it; whether it came to its end. Raises StreamBroken."""
    with trio.move_on_after(DRAIN_SECONDS):
        while http.their_state is h11.SEND_BODY:
            try:
                if http.next_event() is h11.NEED_DATA:
                    http.receive_data(await caller.receive())
            except h11.RemoteProtocolError:
                return False
    return http.their_state is h11.DONE


async def linger(caller: TlsStream, seconds: float) -> None:
    """Say that we have ended, then drop what still comes.

    To close on unread bytes would reset the connection, and a reset overtakes the answer before it.
    """
    with trio.move_on_after(seconds):
        try:
            await caller.send_end()
            while await caller.receive():
                pass
        except StreamBroken:
            return
