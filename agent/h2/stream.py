"""One stream of an HTTP/2 connection: its windows and which sides have ended. The connection changes it."""

from __future__ import annotations

from typing import Protocol


class StreamOwner(Protocol):
    """Takes what arrives on a stream. Called from within `H2Connection.receive`; must not block."""

    def on_response(self, status: int, fields: list[tuple[bytes, bytes]], /) -> None:
        """The server has answered; at a client's streams only, once, before any data."""

    def on_data(self, data: bytes | memoryview, /) -> None:
        """Bytes have come; `H2Connection.consumed` is to be told when they have gone on."""

    def on_end(self, /) -> None:
        """The peer sends no more bytes."""

    def on_reset(self, code: int, detail: str, /) -> None:
        """The stream is over, and bytes may be lost; also if we have found fault with it."""

    def on_room(self, /) -> None:
        """The stream can be written to again, after `H2Connection.room` was 0."""


class Stream:
    """Windows in bytes. `receive_window` is what the peer may still send, `target` the size it is kept at."""

    __slots__ = (
        "answered",
        "id",
        "local_ended",
        "owner",
        "receive_window",
        "remote_ended",
        "send_window",
        "sent",
        "starved",
        "target",
        "unreturned",
    )

    def __init__(self, number: int, owner: StreamOwner | None, send_window: int, receive_window: int) -> None:
        self.id = number
        self.owner = owner
        self.send_window = send_window
        self.receive_window = self.target = receive_window
        self.unreturned = 0  # bytes that have gone on and were not yet given back as window
        self.local_ended = False
        self.remote_ended = False
        self.answered = False  # the response was sent, or has come
        self.sent = False  # a byte of ours
        self.starved = False  # the owner waits for room in this stream's own window

    def __repr__(self) -> str:
        return f"<Stream {self.id}>"

    @property
    def ended(self) -> bool:
        """Whether both sides have ended in order."""
        return self.local_ended and self.remote_ended
