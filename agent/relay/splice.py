"""The decisions of one two-way copy, as a state machine without IO: what is blocked, has ended, is next.

Two directions share one connection: to the plain leg (TLS → plain) and to the TLS leg (plain → TLS). While
bytes flow freely `pump.py` asks the machine nothing; it reports only exceptions to that: a write that
blocked, an end of stream, a failure. The machine answers with the interest of each leg and the next step.

    OPEN ──source ended──► ENDING ──rest flushed, end passed on──► SHUT         (each direction separately)
    both SHUT: clean. Any failure ends the connection at once, in whatever state the directions are.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum, auto

import msgspec

NONE = 0x0
READ = 0x1  # EPOLLIN
WRITE = 0x4  # EPOLLOUT


class Ending(StrEnum):
    """How a relayed connection ended."""

    CLEAN = "clean"  # both sides ended their streams in order
    PLAIN_RESET = "plain_reset"  # the local leg was reset, or took no more bytes
    TLS_RESET = "tls_reset"  # TCP reset beneath TLS
    TLS_TRUNCATED = "tls_truncated"  # TCP ended without close_notify
    TLS_FAILED = "tls_failed"  # a fatal alert, or bytes that are not TLS
    REFUSED = "stream_refused"  # the far sidecar has answered that it does not serve this stream of a tunnel
    NO_RESOURCES = "out_of_resources"  # this process has no memory for the connection


_OF_THE_TLS_SIDE = frozenset({Ending.TLS_RESET, Ending.TLS_TRUNCATED, Ending.TLS_FAILED, Ending.REFUSED})


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """What a relayed connection carried, in bytes, and how it ended.

    `tls_broke_first`: the TLS side failed before either side had ended. `untouched`: neither a byte nor an
    end of stream was passed on, so another connection can still serve the plain leg.
    """

    to_plain: int
    to_tls: int
    ending: Ending
    detail: str = ""
    tls_broke_first: bool = False
    untouched: bool = False

    @property
    def refused(self) -> bool:
        """Whether the far side has refused us after the handshake.

        With TLS 1.3 our handshake ends before the far side has verified our certificate, so a refusal fails
        our first read. An orderly end without a byte is no refusal, whatever comes after it: an app that
        closes an idle connection ends so, and the far side is not the cause of what our app does then.
        """
        return self.tls_broke_first and self.to_plain == 0

    @property
    def answered(self) -> bool:
        """Whether the far side has shown that it serves: by a byte, or by an orderly end."""
        return self.to_plain > 0 or self.ending is Ending.CLEAN


class Progress:
    """Bytes written so far. Any task may read them; only the task that owns the connection changes them.

    `plain_since`, `tls_since`: when the first byte was written to that leg, by `now`; 0 before it, and where
    no clock is given.
    """

    __slots__ = ("now", "plain_since", "tls_since", "to_plain", "to_tls")

    def __init__(self, now: Callable[[], float] = float) -> None:
        self.now = now
        self.to_plain = 0
        self.to_tls = 0
        self.plain_since = 0.0
        self.tls_since = 0.0

    def add_plain(self, size: int) -> None:
        """Count bytes that were written to the plain leg."""
        if not self.to_plain:
            self.plain_since = self.now()
        self.to_plain += size

    def add_tls(self, size: int) -> None:
        """Count bytes that were written to the TLS leg."""
        if not self.to_tls:
            self.tls_since = self.now()
        self.to_tls += size

    def __repr__(self) -> str:
        return f"<Progress to_plain={self.to_plain} to_tls={self.to_tls}>"


class Step(Enum):
    """What the pump has to do now, besides waiting."""

    SHUT_PLAIN = auto()  # SHUT_WR
    SHUT_TLS = auto()  # close_notify
    FINISH = auto()


class Splice:
    """The state of one connection. It holds unsent bytes only while their target is blocked."""

    __slots__ = (
        "detail",
        "ending",
        "lost",
        "plain_ended",
        "plain_rest",
        "plain_shut",
        "tls_broke_first",
        "tls_ended",
        "tls_read_wants",
        "tls_rest",
        "tls_shut",
        "tls_write_wants",
    )

    def __init__(self) -> None:
        self.plain_rest: bytes | memoryview = b""  # still to be written to the plain leg
        self.tls_rest = (
            b""  # still to be written to the TLS leg: a blocked write is retried with the same bytes
        )
        self.plain_ended = False  # the plain leg's end of stream was read
        self.tls_ended = False  # close_notify was received
        self.plain_shut = False
        self.tls_shut = False
        self.tls_read_wants = READ  # the readiness OpenSSL needs, which may be WRITE
        self.tls_write_wants = NONE  # NONE: no TLS write is blocked
        self.lost = False  # bytes were read from a leg and never reached the other
        self.tls_broke_first = False
        self.ending: Ending | None = None
        self.detail = ""

    # What happened.

    def plain_blocked(self, rest: bytes | memoryview) -> None:
        """Note that the plain leg took a part only; `rest` is still to be written."""
        self.plain_rest = rest

    def plain_flushed(self) -> None:
        """Note that the plain leg has taken all bytes."""
        self.plain_rest = b""

    def tls_blocked(self, rest: bytes, wants: int) -> None:
        """Note a TLS write (of close_notify, if `rest` is empty) that needs the socket ready for `wants`."""
        self.tls_rest = rest
        self.tls_write_wants = wants

    def tls_flushed(self) -> None:
        """Note that the TLS leg has taken all bytes."""
        self.tls_rest = b""
        self.tls_write_wants = NONE

    def plain_gave_end(self) -> None:
        """Note the end of stream of the plain leg."""
        self.plain_ended = True

    def tls_gave_end(self) -> None:
        """Note the close_notify of the TLS leg."""
        self.tls_ended = True

    def plain_was_shut(self) -> None:
        """Note that the end of the TLS leg was passed on."""
        self.plain_shut = True

    def tls_was_shut(self) -> None:
        """Note that the end of the plain leg was passed on."""
        self.tls_shut = True
        self.tls_write_wants = NONE

    def fail(self, ending: Ending, detail: str) -> None:
        """Note that a leg broke, which ends the connection. The first failure is the one that is kept."""
        if self.ending is None:
            self.ending = ending
            self.detail = detail
            ended = self.plain_ended or self.tls_ended
            self.tls_broke_first = ending in _OF_THE_TLS_SIDE and not ended

    def shut_failed(self, ending: Ending, detail: str) -> None:
        """Note that a leg did not take the end of the other one.

        If that leg had itself ended in order before, it has closed, nothing was lost, and this is no failure.
        """
        if ending is Ending.PLAIN_RESET and self.plain_ended:
            self.plain_was_shut()
        elif ending is not Ending.PLAIN_RESET and self.tls_ended:
            self.tls_was_shut()
        else:
            self.fail(ending, detail)

    # What comes next.

    def due(self) -> Step | None:
        """Return the next step, or None to wait for either leg."""
        if self.ending is not None:
            return Step.FINISH
        if self.tls_ended and not self.plain_rest and not self.plain_shut:
            return Step.SHUT_PLAIN
        if self.plain_ended and not self.tls_write_wants and not self.tls_shut:
            return Step.SHUT_TLS
        if self.plain_shut and self.tls_shut:
            self.ending = Ending.CLEAN
            return Step.FINISH
        return None

    @property
    def reads_plain(self) -> bool:
        """Whether to read the plain leg: it has not ended, and the TLS leg takes bytes."""
        return not self.plain_ended and not self.tls_write_wants

    @property
    def reads_tls(self) -> bool:
        """Whether to read the TLS leg: it has not ended, and the plain leg takes bytes."""
        return not self.tls_ended and not self.plain_rest

    def plain_interest(self) -> int:
        """Return what to watch the plain leg for: READ, WRITE, both or NONE."""
        return (READ if self.reads_plain else NONE) | (WRITE if self.plain_rest else NONE)

    def tls_interest(self) -> int:
        """Return what to watch the TLS leg for: what OpenSSL needs, for each direction that is wanted."""
        return (self.tls_read_wants if self.reads_tls else NONE) | self.tls_write_wants

    def transfer(self, progress: Progress) -> Transfer:
        """Return the summary, once `due` has returned FINISH. Raises RuntimeError before that."""
        if self.ending is None:
            raise RuntimeError("the splice has not ended")
        # Bytes that wait for one leg were read from the other, and a part of them may have been written
        # already.
        taken = bool(self.lost or self.plain_rest or self.tls_rest)
        passed_on = self.plain_shut or self.tls_shut
        return Transfer(
            to_plain=progress.to_plain,
            to_tls=progress.to_tls,
            ending=self.ending,
            detail=self.detail,
            tls_broke_first=self.tls_broke_first,
            untouched=not (taken or passed_on or progress.to_plain or progress.to_tls),
        )
