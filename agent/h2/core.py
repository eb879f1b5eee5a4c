"""The state of one HTTP/2 connection: its streams, its windows, its output. No bytes are read here.

Flow control (RFC 9113 §5.2). What has come and has not gone on is held in memory, so the connection's window
is given back only for bytes that have gone on: WINDOW bounds what all streams together can make us hold. A
stream begins with the default window, so a reader that never reads holds no more than that; each time a
reader has taken half of its window in, the window is doubled, up to USUAL_STREAM_WINDOW, as long as all
enlargements together are within MOST_EXTRA. Where bytes wait for the network and not for the reader, it is
doubled further, up to MOST_STREAM_WINDOW, as long as they are within half of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.h2.budget import Budget
from agent.h2.faults import ConnectionFault, ErrorCode, FaultReason
from agent.h2.frames import DEFAULT_WINDOW, Setting, rst_stream, settings, window_update
from agent.h2.header_blocks import MOST_FIELDS
from agent.h2.requests import Request
from agent.h2.stream import Stream

WINDOW = 32 * 1024 * 1024  # bytes that all streams of a connection can make us hold
USUAL_STREAM_WINDOW = 1024 * 1024
MOST_STREAM_WINDOW = 4 * USUAL_STREAM_WINDOW  # of which it has half to all in a round trip
MOST_EXTRA = 16 * 1024 * 1024  # bytes of all streams' windows together above the default
MOST_UNREAD = 1024 * 1024  # bytes of output before an answer that is owed to the peer is one too many
REMEMBERED = 1024  # streams that we have reset, whose late frames are no fault

# (burst, per second): what costs us more than it costs the peer.
RESETS = (1000, 200)  # streams that the peer resets before any byte of ours, CVE-2023-44487, or gets wrong
SETTINGS_FRAMES = (32, 2)
PINGS = (64, 10)
EMPTY_FRAMES = (
    2000,
    500,
)  # that carry nothing: empty DATA, PRIORITY, unknown kinds, frames on closed streams


class ConnectionHandler(Protocol):
    """Takes what concerns the whole connection. Must not block."""

    def on_request(self, stream: Stream, request: Request, /) -> None:
        """A client opens a stream; the handler sets its owner, or answers with a refusal."""

    def on_settled(self, /) -> None:
        """The peer has greeted us."""

    def on_goaway(self, code: int, detail: str, /) -> None:
        """The peer takes no more streams; those it has not seen were reset with REFUSED_STREAM."""

    def on_pong(self, /) -> None:
        """The peer has answered a PING."""

    def on_room(self, /) -> None:
        """The connection's window, which was used up, is open again."""


class ConnectionState:
    """What `control.py` and `connection.py` change. `now` returns seconds and never goes back."""

    def __init__(
        self, handler: ConnectionHandler, now: Callable[[], float], *, client: bool, most_streams: int
    ) -> None:
        self.handler = handler
        self.client = client
        self.most_streams = most_streams  # of the peer
        self.streams: dict[int, Stream] = {}
        self.out: list[bytes | memoryview] = []
        self.queued = 0  # bytes in `out`
        self.send_window = DEFAULT_WINDOW
        self.receive_window = DEFAULT_WINDOW
        self.unreturned = 0
        self.peer_window = DEFAULT_WINDOW  # of a new stream, by the peer's settings
        self.peer_most_streams = 2**31
        self.settled = False  # the peer's first frame, SETTINGS, has come
        self.next_id = 1  # of a client's next stream
        self.last_peer_id = 0
        self.peer_left = False  # GOAWAY has come
        self.leaving = False  # GOAWAY was sent
        self.refuses_after: int | None = None  # the last stream that our final GOAWAY has named
        self.resets = Budget(*RESETS, now)
        self.settings_frames = Budget(*SETTINGS_FRAMES, now)
        self.pings = Budget(*PINGS, now)
        self.empty_frames = Budget(*EMPTY_FRAMES, now)
        self._reset_by_us: dict[int, None] = {}
        self._forgotten = False  # some stream that we have reset is remembered no more
        self._extra = 0
        self._begin()

    def _begin(self) -> None:
        values = {Setting.MAX_HEADER_LIST_SIZE: MOST_FIELDS}
        if self.client:
            values[Setting.ENABLE_PUSH] = 0
        else:
            values[Setting.MAX_CONCURRENT_STREAMS] = self.most_streams
        self.queue(settings(values))
        self.queue(window_update(0, WINDOW - DEFAULT_WINDOW))
        self.receive_window = WINDOW

    # --- output ---

    def queue(self, data: bytes) -> None:
        self.out.append(data)
        self.queued += len(data)

    def answer(self, data: bytes) -> None:
        """Queue what the peer has caused. Raises ConnectionFault if the peer takes none of it."""
        if self.queued > MOST_UNREAD:
            raise self.fault(FaultReason.ANSWERS_UNREAD, ErrorCode.ENHANCE_YOUR_CALM)
        self.queue(data)

    def take(self) -> bytes:
        """Return all output, which the caller has to send."""
        data = b"".join(self.out)
        self.out.clear()
        self.queued = 0
        return data

    @staticmethod
    def fault(
        reason: FaultReason, code: ErrorCode = ErrorCode.PROTOCOL_ERROR, detail: str = ""
    ) -> ConnectionFault:
        return ConnectionFault(reason, code, detail)

    # --- streams ---

    def add(self, number: int) -> Stream:
        stream = self.streams[number] = Stream(number, None, self.peer_window, DEFAULT_WINDOW)
        return stream

    def drop(self, stream: Stream) -> None:
        """Forget a stream that is over."""
        if self.streams.pop(stream.id, None) is not None:
            self._extra -= stream.target - DEFAULT_WINDOW

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream at once. Bytes that its owner still holds are to be reported as consumed."""
        if stream.id not in self.streams:
            return
        self.drop(stream)
        self._remember(stream.id)
        self.queue(rst_stream(stream.id, code))

    def _remember(self, number: int) -> None:
        self._reset_by_us[number] = None
        if len(self._reset_by_us) > REMEMBERED:
            del self._reset_by_us[next(iter(self._reset_by_us))]
            self._forgotten = True

    def is_idle(self, number: int) -> bool:
        """Return whether a stream of that number was never opened."""
        if number % 2 == 0:  # a server opens none
            return True
        return number >= self.next_id if self.client else number > self.last_peer_id

    def stream_error(self, stream: Stream, code: ErrorCode, detail: str) -> None:
        """End a stream that the peer has got wrong. Raises ConnectionFault if that happens often."""
        self.spend(self.resets, FaultReason.RESET_FLOOD)
        self.reset(stream, code)
        if stream.owner is not None:
            stream.owner.on_reset(code, detail)

    def spend(self, budget: Budget, reason: FaultReason) -> None:
        if not budget.spend():
            raise self.fault(reason, ErrorCode.ENHANCE_YOUR_CALM)

    def late_frame(self, number: int) -> None:
        """Take a frame on a stream that is over. Raises ConnectionFault unless we have reset the stream."""
        if self.is_idle(number):
            raise self.fault(FaultReason.WRONG_STREAM, detail=f"stream {number} was never opened")
        self.spend(self.empty_frames, FaultReason.FRAME_FLOOD)
        if number not in self._reset_by_us and not self._forgotten:
            raise self.fault(FaultReason.CLOSED_STREAM, ErrorCode.STREAM_CLOSED, f"stream {number}")

    # --- windows ---

    def consumed(self, stream: Stream, size: int) -> None:
        """Note that bytes of a stream have gone on, or were thrown away."""
        self.give_back(size)
        if stream.remote_ended or stream.id not in self.streams:
            return
        stream.unreturned += size
        if stream.unreturned * 2 >= stream.target:
            growth = self._growth(stream)
            stream.target += growth
            self._extra += growth
            increment = stream.unreturned + growth
            stream.receive_window += increment
            stream.unreturned = 0
            self.queue(window_update(stream.id, increment))

    def _growth(self, stream: Stream) -> int:
        """Return by how much a stream's window may grow."""
        window, held = stream.target, stream.target - stream.receive_window - stream.unreturned
        if window < USUAL_STREAM_WINDOW:
            return max(0, min(window, USUAL_STREAM_WINDOW - window, MOST_EXTRA - self._extra))
        if held > DEFAULT_WINDOW:
            return 0
        return max(0, min(window, MOST_STREAM_WINDOW - window, MOST_EXTRA // 2 - self._extra))

    def give_back(self, size: int) -> None:
        """Give bytes back to the connection's window."""
        self.unreturned += size
        if self.unreturned * 4 >= WINDOW:
            self.receive_window += self.unreturned
            self.queue(window_update(0, self.unreturned))
            self.unreturned = 0

    def room(self, stream: Stream) -> int:
        """Return how many bytes may be sent now; if 0, `on_room` is called once there is room again."""
        if stream.send_window <= 0:
            stream.starved = True
            return 0
        return max(0, min(stream.send_window, self.send_window))
