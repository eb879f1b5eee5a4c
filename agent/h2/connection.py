"""An HTTP/2 connection for CONNECT as a machine without IO: bytes in, callbacks; calls, bytes out.

`receive` cuts frames out of whatever bytes have come. DATA is passed on at once, without waiting for the rest
of its frame; any other frame is collected first, and is at most MAX_FRAME long. After a ConnectionFault the
connection is over: `close` queues the GOAWAY that names the fault, and nothing more is to be received.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.h2 import control
from agent.h2.calls import Calls
from agent.h2.core import ConnectionHandler
from agent.h2.faults import ErrorCode, FaultReason
from agent.h2.frames import (
    END_HEADERS,
    END_STREAM,
    HEAD,
    HEAD_SIZE,
    LARGEST_WINDOW,
    MAX_FRAME,
    PADDED,
    PREFACE,
    PRIORITY,
    Kind,
)
from agent.h2.header_blocks import MOST_FIELDS, BlockReader, Fields
from agent.h2.requests import Malformed, Request, read_request, read_status
from agent.h2.stream import Stream

MOST_STREAMS = 16384  # that a peer may have open
COPIED = 2048  # bytes below which a copy costs less than a view
MOST_CONTINUATIONS = 8  # frames of one header block, CVE-2024-27316 among others

_DATA, _HEADERS, _CONTINUATION = int(Kind.DATA), int(Kind.HEADERS), int(Kind.CONTINUATION)
_PING_DATA = b"liveness"


class H2Connection(Calls):
    """One side of a connection. The caller sends what `take` returns."""

    def __init__(
        self,
        handler: ConnectionHandler,
        now: Callable[[], float],
        *,
        client: bool,
        most_streams: int = MOST_STREAMS,
    ) -> None:
        super().__init__(handler, now, client=client, most_streams=most_streams)
        self._partial = b""  # of a frame that has not come completely
        self._left = 0  # bytes of a DATA frame that are still to come
        self._reading: Stream | None = None  # whose they are; None: they are thrown away
        self._ends = False  # the frame has END_STREAM
        self._preface = not client  # is still to come
        self._blocks = BlockReader()
        self._block: bytearray | None = None  # a header block that goes on in CONTINUATION
        self._block_frames = 0
        self._block_stream = self._block_flags = 0
        self._usual: Request | None = None  # what the last request was, and by which fields
        self._usual_fields: Fields = []
        if client:
            self.out.insert(0, PREFACE)
            self.queued += len(PREFACE)

    # --- bytes ---

    def receive(self, data: bytes) -> None:
        """Take bytes that have come. Raises ConnectionFault."""
        if self._partial:
            data, self._partial = self._partial + data, b""
        at = self._take_preface(data) if self._preface else 0
        end = len(data)
        unpack = HEAD.unpack_from
        while at < end:
            if self._left:
                at = self._data(data, at, end)
                continue
            if end - at < HEAD_SIZE:
                break
            high, low, kind, flags, number = unpack(data, at)
            length = high << 8 | low
            if kind == 0 and not flags & PADDED and self._block is None and self.settled:
                if not flags and self._whole_data(data, at + HEAD_SIZE, length, number):
                    at += HEAD_SIZE + length
                    continue
                at += HEAD_SIZE
                self._begin_data(number & LARGEST_WINDOW, length, ends=flags & END_STREAM != 0)
                continue
            if length > MAX_FRAME:
                raise self.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, f"{length} octets")
            after = at + HEAD_SIZE + length
            if after > end:
                break
            self._frame(kind, flags, number & LARGEST_WINDOW, data[at + HEAD_SIZE : after])
            at = after
        if at < end:
            self._partial = data[at:]

    def _take_preface(self, data: bytes) -> int:
        """Return where the frames begin."""
        if not PREFACE.startswith(data[: len(PREFACE)]):
            raise self.fault(FaultReason.BAD_PREFACE, detail="the first bytes are not those of HTTP/2")
        if len(data) < len(PREFACE):
            self._partial = data
            return len(data)
        self._preface = False
        return len(PREFACE)

    def _whole_data(self, data: bytes, at: int, length: int, number: int) -> bool:
        """Pass on a DATA frame that is in order and has come whole; return whether it was one."""
        stream, end = self.streams.get(number), at + length
        if stream is None or stream.remote_ended or end > len(data) or not 0 < length <= MAX_FRAME:
            return False
        if length > self.receive_window or length > stream.receive_window:
            return False
        self.receive_window -= length
        stream.receive_window -= length
        assert stream.owner is not None  # a handler gives each stream one, or refuses it
        stream.owner.on_data(data[at:end] if length < COPIED else memoryview(data)[at:end])
        return True

    def _begin_data(self, number: int, length: int, *, ends: bool) -> None:
        if length > MAX_FRAME:
            raise self.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, f"{length} octets")
        stream = self.streams.get(number)
        self.receive_window -= length
        if self.receive_window < 0:
            raise self.fault(FaultReason.WINDOW_EXCEEDED, ErrorCode.FLOW_CONTROL_ERROR, "the connection")
        if stream is None:
            self.late_frame(number)
        elif stream.remote_ended:
            self.stream_error(stream, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
            stream = None
        else:
            stream.receive_window -= length
            if stream.receive_window < 0:
                detail = f"stream {number}"
                raise self.fault(FaultReason.WINDOW_EXCEEDED, ErrorCode.FLOW_CONTROL_ERROR, detail)
        if length:
            self._left, self._reading, self._ends = length, stream, ends
        elif not ends:
            self.spend(self.empty_frames, FaultReason.FRAME_FLOOD)
        elif stream is not None:
            self._remote_end(stream)

    def _data(self, data: bytes, at: int, end: int) -> int:
        """Pass on what has come of a DATA frame; return where the next byte is."""
        size = min(end - at, self._left)
        self._left -= size
        stream = self._reading
        if not self._left:
            self._reading = None
        if stream is None or stream.id not in self.streams:  # reset while its frame was coming
            self.give_back(size)
            return at + size
        assert stream.owner is not None  # a handler gives each stream one, or refuses it
        stream.owner.on_data(data[at : at + size])
        if not self._left and self._ends:
            self._remote_end(stream)
        return at + size

    def _remote_end(self, stream: Stream) -> None:
        stream.remote_ended = True
        if stream.local_ended:
            self.drop(stream)
        if stream.owner is not None:
            stream.owner.on_end()

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and (kind != _CONTINUATION or number != self._block_stream):
            raise self.fault(FaultReason.INTERRUPTED_BLOCK, detail=f"by a frame of kind {kind}")
        if not self.settled:
            if kind != Kind.SETTINGS or flags & 1:
                raise self.fault(FaultReason.BAD_PREFACE, detail="the first frame is not SETTINGS")
            control.take(self, kind, flags, number, payload)
            self.settled = True
            self.handler.on_settled()
            return
        if kind == _HEADERS:
            self._headers(flags, number, payload)
        elif kind == _CONTINUATION and self._block is not None:
            self._continuation(flags, payload)
        elif kind == _DATA:
            self._padded_data(flags, number, payload)
        else:
            control.take(self, kind, flags, number, payload)

    def _padded_data(self, flags: int, number: int, payload: bytes) -> None:
        """Take a whole DATA frame with padding, which counts against the windows as well."""
        content = self._unpadded(flags, payload)
        self._begin_data(number, len(payload), ends=False)
        stream, self._reading, self._left = self._reading, None, 0
        if stream is None or stream.id not in self.streams:
            self.give_back(len(payload))
            return
        assert stream.owner is not None  # a handler gives each stream one, or refuses it
        if content:
            stream.owner.on_data(content)
        self.consumed(stream, len(payload) - len(content))
        if flags & END_STREAM and stream.id in self.streams:
            self._remote_end(stream)

    def _unpadded(self, flags: int, payload: bytes) -> bytes:
        if not flags & PADDED:
            return payload
        if not payload or payload[0] >= len(payload):
            raise self.fault(FaultReason.PADDING)
        return payload[1 : len(payload) - payload[0]]

    # --- header blocks ---

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if number % 2 == 0:
            raise self.fault(FaultReason.WRONG_STREAM, detail=f"HEADERS on stream {number}")
        block = self._unpadded(flags, payload)
        if flags & PRIORITY:
            if len(block) < 5:
                raise self.fault(FaultReason.FRAME_SIZE, ErrorCode.FRAME_SIZE_ERROR, "HEADERS")
            block = block[5:]
        if flags & END_HEADERS:
            self._block_of(number, flags, block)
            return
        self._block, self._block_frames = bytearray(block), 0
        self._block_stream, self._block_flags = number, flags

    def _continuation(self, flags: int, payload: bytes) -> None:
        assert self._block is not None  # looked at by `_frame`
        self._block += payload
        self._block_frames += 1
        if self._block_frames > MOST_CONTINUATIONS or len(self._block) > MOST_FIELDS:
            raise self.fault(FaultReason.CONTINUATION_FLOOD, ErrorCode.ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            block, self._block = bytes(self._block), None
            self._block_of(self._block_stream, self._block_flags, block)

    def _block_of(self, number: int, flags: int, block: bytes) -> None:
        """Take a whole header block, which must be read in any case, for the sake of HPACK's table."""
        fields = self._blocks.read(block)
        ends = flags & END_STREAM != 0
        stream = self.streams.get(number)
        if stream is not None:
            self._response(stream, fields, ends=ends)
        elif self.client or number <= self.last_peer_id:
            self.late_frame(number)
        else:
            self.last_peer_id = number
            self._request(number, fields, ends=ends)

    def _request(self, number: int, fields: Fields, *, ends: bool) -> None:
        full = len(self.streams) >= self.most_streams
        stream = self.add(number)
        if full or (self.refuses_after is not None and number > self.refuses_after):
            self.stream_error(stream, ErrorCode.REFUSED_STREAM, "no more streams")
            return
        request = self._usual
        if request is None or fields != self._usual_fields:
            try:
                request = read_request(fields)
            except Malformed as wrong:
                self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, str(wrong))
                return
            self._usual, self._usual_fields = request, fields
        stream.remote_ended = ends
        self.handler.on_request(stream, request)
        if ends and stream.owner is not None and stream.id in self.streams:
            stream.owner.on_end()

    def _response(self, stream: Stream, fields: Fields, *, ends: bool) -> None:
        """Take the response of a server; any other block on a connected stream is a fault of the stream."""
        if stream.remote_ended or not self.client or stream.answered:
            code = ErrorCode.STREAM_CLOSED if stream.remote_ended else ErrorCode.PROTOCOL_ERROR
            self.stream_error(stream, code, "HEADERS on a connected stream")  # RFC 9113 §8.5
            return
        try:
            status = read_status(fields)
        except Malformed as wrong:
            self.stream_error(stream, ErrorCode.PROTOCOL_ERROR, str(wrong))
            return
        if status < 200:
            self.spend(self.empty_frames, FaultReason.FRAME_FLOOD)
            return
        stream.answered = True
        assert stream.owner is not None  # `open` has set it
        stream.owner.on_response(status, fields)
        if ends and stream.id in self.streams:
            self._remote_end(stream)
