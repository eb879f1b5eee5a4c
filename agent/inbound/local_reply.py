"""The sidecar's own answers, in words for a person, and the end of a refused request."""

from __future__ import annotations

from enum import StrEnum
from http import HTTPStatus

import trio

from agent.http1.fields import Framing
from agent.http1.request_body import BodyBroken, RequestBody
from agent.relay.streams import CallerStream, StreamBroken

DRAIN_SECONDS = 5.0
DRAIN_BYTES = 64 * 1024  # of a refused request's body, read so that the connection can go on


METHODS = "GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, TRACE"


def answer(
    status: int, reason: StrEnum, text: str, *, close: bool, bodiless: bool = False, allow: str = METHODS
) -> bytes:
    """Return a complete answer; `bodiless`: to HEAD. `allow`: the methods that a 405 names.

    The request is not quoted, since its text may be hostile.
    """
    phrase = HTTPStatus(status).phrase
    body = f"{status} {phrase}: {text} ({reason.value})\n".encode()
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(body)}",
        *(["Connection: close"] if close else []),
        *([f"Allow: {allow}"] if status == 405 else []),
    ]
    return "\r\n".join((*lines, "", "")).encode() + (b"" if bodiless else body)


def worth_draining(framing: Framing) -> bool:
    """Return whether the rest of a refused request is short and certain to come, so that it may be read."""
    return not framing.chunked and not framing.expects_continue and framing.length <= DRAIN_BYTES


async def drained(body: RequestBody, caller: CallerStream) -> bool:
    """Read the rest of a request and drop it; return whether it came completely. Raises StreamBroken."""
    with trio.move_on_after(DRAIN_SECONDS):
        try:
            body.start()
            while not body.ended:
                body.take(await caller.receive())
        except BodyBroken:
            return False
    return body.ended


async def linger(caller: CallerStream, silence: float, longest: float) -> None:
    """Send close_notify, then drop what still comes until `silence` seconds pass without a byte.

    Closing with unread bytes would reset the connection, and a reset overtakes the answer before it: a caller
    within a long body may read only after it has written all (RFC 9112 §9.6).
    """
    with trio.move_on_after(longest):
        try:
            await caller.send_end()
            while await _comes(caller, silence):
                pass
        except StreamBroken:
            return


async def _comes(caller: CallerStream, seconds: float) -> bool:
    with trio.move_on_after(seconds):
        return bool(await caller.receive())
    return False
