"""What one side of an HTTP/2 connection says of its own accord: streams, bytes, ends, farewells."""

from __future__ import annotations

from agent.h2 import control
from agent.h2.core import ConnectionState
from agent.h2.faults import ErrorCode
from agent.h2.frames import (
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEAD_SIZE,
    LARGEST_WINDOW,
    RECORD_FRAME,
    Kind,
    frame,
    goaway,
)
from agent.h2.header_blocks import OK, Fields, request_block, response_block
from agent.h2.stream import Stream, StreamOwner

_DATA, _HEADERS = int(Kind.DATA), int(Kind.HEADERS)
_PING_DATA = b"liveness"


class Calls(ConnectionState):
    """The half of `H2Connection` that its user calls."""

    @property
    def takes_streams(self) -> bool:
        """Whether a client may open another stream."""
        return (
            not self.peer_left
            and len(self.streams) < self.peer_most_streams
            and self.next_id <= LARGEST_WINDOW
        )

    def open(self, block: bytes, owner: StreamOwner) -> Stream:
        """Open a stream by a request's header block; a client's call, while `takes_streams`."""
        number = self.next_id
        self.next_id += 2
        stream = self.add(number)
        stream.owner = owner
        self.queue(frame(_HEADERS, END_HEADERS, number, block))
        return stream

    def connect(self, authority: bytes, owner: StreamOwner) -> Stream:
        """Open a stream by CONNECT."""
        return self.open(request_block(authority), owner)

    def accept(self, stream: Stream) -> None:
        """Answer 200: the bytes that follow are the app's."""
        stream.answered = True
        self.queue(frame(_HEADERS, END_HEADERS, stream.id, OK))

    def refuse(self, stream: Stream, status: int, fields: Fields) -> None:
        """Answer with a refusal, which ends the stream; what the peer still sends on it is thrown away."""
        self.answer(frame(_HEADERS, END_HEADERS | END_STREAM, stream.id, response_block(status, fields)))
        stream.answered = stream.local_ended = True
        if stream.remote_ended:
            self.drop(stream)
        else:
            self.reset(stream, ErrorCode.NO_ERROR)  # RFC 9113 §8.1: the request need not be sent to its end

    def send(self, stream: Stream, data: bytes) -> None:
        """Send bytes, at most `room` of them."""
        size = len(data)
        self.sending(stream, size)
        out, number = self.out, stream.id
        if size <= RECORD_FRAME:
            out.append(HEAD.pack(size >> 8, size & 0xFF, 0, 0, number))
            out.append(data)
            self.queued += HEAD_SIZE + size
            return
        view = memoryview(data)
        for at in range(0, size, RECORD_FRAME):
            piece = view[at : at + RECORD_FRAME]
            length = len(piece)
            out.append(HEAD.pack(length >> 8, length & 0xFF, 0, 0, number))
            out.append(piece)
            self.queued += HEAD_SIZE + length

    def sending(self, stream: Stream, size: int) -> None:
        """Note that the caller sends so many bytes, as frames of its own making; at most `room`."""
        stream.sent = True
        stream.send_window -= size
        self.send_window -= size

    def end(self, stream: Stream) -> None:
        """Send the end of our bytes."""
        self.queue(frame(_DATA, END_STREAM, stream.id))
        stream.local_ended = True
        if stream.remote_ended:
            self.drop(stream)

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.queue(frame(Kind.PING, 0, 0, _PING_DATA))

    def retire(self) -> None:
        """Say that no more streams are taken; those that are on their way still are (RFC 9113 §6.8)."""
        if not self.leaving:
            self.leaving = True
            self.queue(goaway(LARGEST_WINDOW, ErrorCode.NO_ERROR))
            self.queue(frame(Kind.PING, 0, 0, control.LEAVING))

    def close(self, code: ErrorCode, detail: str = "") -> None:
        """Say that the connection ends at once."""
        self.leaving = True
        self.queue(goaway(self.last_peer_id, code, detail.encode("ascii", "replace")))
