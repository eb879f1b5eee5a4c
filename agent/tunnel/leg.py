"""One stream of a tunnel and the plain socket it belongs to; moves bytes between them, and never waits.

    socket ── read, as far as the windows and the tunnel allow ──► DATA
    DATA ──► inbox ── written once the tunnel has read what there is ──► socket
               └─ what the socket does not take stays in `_rest`, and is given back as window once it has gone

END_STREAM and the end of the socket's bytes are each other; so are RST_STREAM and a TCP reset.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from agent.h2.faults import ErrorCode
from agent.h2.frames import RECORD_FRAME
from agent.h2.header_blocks import Fields
from agent.h2.stream import Stream
from agent.relay.pump import explain_system
from agent.relay.relay import Watching
from agent.relay.splice import NONE, READ, WRITE, Ending, Progress, Transfer
from agent.tunnel import records
from agent.tunnel.carrier import Carrier
from agent.tunnel.refusal import reason_of

QUANTUM = 4 * RECORD_FRAME  # bytes read from a socket at once
BURSTS = 4  # times that a socket is read before another stream has its turn
_MOST_CHUNKS = 512  # of one write, below IOV_MAX


class Leg:
    """A stream's owner (agent.h2.stream.StreamOwner). `on_over` is called once, when the stream is over.

    The socket stays open, and belongs to the caller again from then on.
    """

    __slots__ = (
        "_bulk",
        "_fed",
        "_inbox",
        "_on_over",
        "_paused",
        "_plain_ended",
        "_plain_shut",
        "_remote_ended",
        "_rest",
        "_tunnel",
        "_watch",
        "detail",
        "ending",
        "failure",
        "progress",
        "refused",
        "sock",
        "stream",
        "taken",
    )

    def __init__(
        self, tunnel: Carrier, sock: socket.socket, progress: Progress, on_over: Callable[[Leg], None]
    ) -> None:
        self._tunnel = tunnel
        self._on_over = on_over
        self._watch: Watching | None = None
        self._inbox: list[bytes | memoryview] = []
        self._fed = False
        self._bulk = False  # the last read has brought all it could
        self._rest: bytearray | None = None  # what the socket did not take
        self._paused = False  # the tunnel takes nothing of this stream now
        self._plain_ended = self._plain_shut = self._remote_ended = False
        self.sock = sock
        self.progress = progress
        self.stream: Stream
        self.taken = False  # bytes of the socket, or its end, were read
        self.refused = ""  # the status and reason of a refusal
        self.ending: Ending | None = None
        self.detail = ""
        self.failure: Exception | None = None

    def __repr__(self) -> str:
        return f"<Leg {self.stream}>"

    @property
    def over(self) -> bool:
        """Whether the stream is over."""
        return self.ending is not None

    def transfer(self) -> Transfer:
        """Return the summary, once the stream is over."""
        assert self.ending is not None  # set before `on_over`
        broke = self.ending not in (Ending.CLEAN, Ending.PLAIN_RESET)
        return Transfer(
            to_plain=self.progress.to_plain,
            to_tls=self.progress.to_tls,
            ending=self.ending,
            detail=self.detail,
            tls_broke_first=broke and (bool(self.refused) or not (self._plain_ended or self._remote_ended)),
            untouched=not (self.taken or self.progress.to_plain or self._plain_shut),
        )

    def start(self, stream: Stream, *, expects: bool = True) -> None:
        """Move bytes from now on; those that the socket has already go at once, if it `expects` any."""
        self.stream = stream
        self._watch = self._tunnel.relay.attach(self.sock.fileno(), self.on_socket, self.fail)
        if expects:
            self.pull()
        self._settle()

    def cut(self, code: ErrorCode) -> None:
        """End the stream at once, without a call of `on_over`."""
        self._on_over = _nothing
        self._end_both(code, Ending.PLAIN_RESET, "")

    def fail(self, error: Exception) -> None:
        """End the stream for a bug, or since the relay has ended; the tunnel, if the stream is over."""
        if self.ending is not None:
            self._tunnel.fail(error)
            return
        self.failure = error
        self._end_both(ErrorCode.INTERNAL_ERROR, Ending.TLS_FAILED, str(error))

    def lose(self, ending: Ending, detail: str) -> None:
        """End the stream with its tunnel."""
        self._finish(ending, detail)

    # --- the socket ---

    def on_socket(self, events: int) -> None:
        """Handle `events` of the socket."""
        if events == READ:
            for _ in range(BURSTS):
                if self.pull() < QUANTUM:
                    break
            if not (self._paused or self._plain_ended):
                return
        else:
            if events & WRITE:
                self._flush_rest()
            if self.ending is None and events & ~WRITE:
                if not (self._plain_ended or self._paused):
                    self.pull()
                elif events & ~(READ | WRITE):
                    self._hung_up()
        self._settle()

    def pull(self) -> int:
        """Read once and send; return how many bytes. If the tunnel takes nothing now, pause."""
        tunnel, stream = self._tunnel, self.stream
        room = 0 if tunnel.congested else tunnel.h2.room(stream)
        if not room:
            self._paused = True
            if not stream.starved:
                tunnel.waiting.append(self)
            return 0
        bulk, data = self._bulk and room >= RECORD_FRAME, b""
        try:
            if bulk:
                size = records.read(self.sock, room)
            else:
                data = self.sock.recv(min(room, QUANTUM))
                size = len(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            self._end_both(ErrorCode.CONNECT_ERROR, Ending.PLAIN_RESET, explain_system(error))
            return 0
        self.taken, self._bulk = True, size >= QUANTUM
        if size:
            self.progress.add_tls(size)
        if data:
            tunnel.h2.send(stream, data)
        elif size:
            tunnel.send_records(stream, size)
        else:
            self._plain_ended = True
            tunnel.h2.end(stream)
        tunnel.wake()
        return size

    def resume(self) -> None:
        """Read again from now on."""
        if self._paused and self.ending is None:
            self._paused = False
            self._settle()

    def _hung_up(self) -> None:
        """Handle an error, or a hang-up while nothing is read: these wake epoll whatever is watched for."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            detail = explain_system(OSError(code, ""))
            self._end_both(ErrorCode.CONNECT_ERROR, Ending.PLAIN_RESET, detail)
        elif self._wanted() == NONE and self._watch is not None:
            self._watch.park()

    # --- the stream ---

    def on_response(self, status: int, fields: Fields) -> None:
        """See StreamOwner. 2xx: the far app is connected."""
        if not 200 <= status < 300:
            self.refused = reason_of(status, fields)
            self._end_both(ErrorCode.NO_ERROR, Ending.REFUSED, self.refused)

    def on_data(self, data: bytes | memoryview) -> None:
        """See StreamOwner."""
        if self._rest is not None:
            self._rest += data
            return
        self._inbox.append(data)
        self._feed()

    def on_end(self) -> None:
        """See StreamOwner."""
        self._remote_ended = True
        self._feed()

    def on_reset(self, _code: int, detail: str) -> None:
        """See StreamOwner. What came before the reset is written, as far as the socket takes it at once."""
        self._flush_inbox()
        self._finish(Ending.TLS_RESET, detail)

    def on_room(self) -> None:
        """See StreamOwner."""
        self.resume()

    def _feed(self) -> None:
        if not self._fed:
            self._fed = True
            self._tunnel.fed.append(self)

    def deliver(self) -> None:
        """Write what has come, and its end; called once the tunnel has read what there is."""
        self._fed = False
        if self._inbox:
            self._flush_inbox()
        if self._remote_ended or self._rest is not None:
            self._settle()

    def _flush_inbox(self) -> None:
        inbox = self._inbox
        if not inbox:
            return
        try:
            sent = self.sock.send(inbox[0]) if len(inbox) == 1 else self.sock.sendmsg(inbox[:_MOST_CHUNKS])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._write_failed(error)
            return
        if sent < sum(map(len, inbox)):
            self._rest = bytearray(b"".join(inbox))[sent:]
        inbox.clear()
        self._gone(sent)

    def _flush_rest(self) -> None:
        rest = self._rest
        if rest is None:
            return
        try:
            sent = self.sock.send(rest)
        except BlockingIOError:
            return
        except OSError as error:
            self._write_failed(error)
            return
        del rest[:sent]
        if not rest:
            self._rest = None
        self._gone(sent)

    def _gone(self, size: int) -> None:
        """Note that bytes have gone on, so that there is room for others."""
        self.progress.add_plain(size)
        h2 = self._tunnel.h2
        h2.consumed(self.stream, size)
        if h2.queued:
            self._tunnel.wake()

    def _write_failed(self, error: OSError) -> None:
        """End the stream. Bytes that the socket sent before may still be in the kernel, and are passed on."""
        if not (self._plain_ended or self._paused):
            self.pull()
        self._end_both(ErrorCode.CONNECT_ERROR, Ending.PLAIN_RESET, explain_system(error))

    # --- what comes next ---

    def _settle(self) -> None:
        """Pass on an end that is due, then watch for what is wanted next, unless the stream is over."""
        if self.ending is not None:
            return
        if self._remote_ended and not (self._plain_shut or self._inbox or self._rest is not None):
            self._shut()
        if self._plain_ended and self._plain_shut:
            self._finish(Ending.CLEAN, "")
        elif self._watch is not None and not self.over:
            self._watch.want(self._wanted())

    def _wanted(self) -> int:
        reads = NONE if self._plain_ended or self._paused else READ
        return reads if self._rest is None else reads | WRITE

    def _shut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # reset meanwhile; after an end in order nothing was lost
            if not self._plain_ended:
                self._end_both(ErrorCode.CONNECT_ERROR, Ending.PLAIN_RESET, explain_system(error))
                return
        self._plain_shut = True

    def _end_both(self, code: ErrorCode, ending: Ending, detail: str) -> None:
        if self.ending is None:
            self._tunnel.h2.reset(self.stream, code)
            self._tunnel.wake()
            self._finish(ending, detail)

    def _finish(self, ending: Ending, detail: str) -> None:
        """Let go of the socket, and of what it did not take."""
        if self.ending is not None:
            return
        self.ending, self.detail = ending, detail
        if self._watch is not None:
            self._tunnel.relay.detach(self.sock.fileno(), self._watch)
        held = sum(map(len, self._inbox)) + len(self._rest or b"")
        self._inbox.clear()
        self._rest = None
        if held:
            self._tunnel.h2.give_back(held)
            self._tunnel.wake()
        self.stream.owner = None  # no cycle is left to the collector
        on_over, self._on_over = self._on_over, _nothing
        on_over(self)
        self._tunnel.stream_over()


def _nothing(_leg: Leg) -> None:
    pass
