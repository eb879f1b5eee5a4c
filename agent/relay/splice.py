"""The decisions of one two-way copy, as a machine without IO: what is blocked, what has ended, what is next.

Two directions share one connection: to the plain leg (TLS → plain) and to the TLS leg (plain → TLS). While
bytes flow freely the machine is not asked anything; `pump.py` tells it only what is out of the ordinary: a
write that blocked, an end of stream, a failure. It answers with the interest of each leg and the next step.

    OPEN ──source ended──► ENDING ──rest flushed, end passed on──► SHUT         (each direction alone)
    both SHUT: clean. Any failure: over at once, whatever the directions are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

NONE = 0x0
READ = 0x1  # EPOLLIN
WRITE = 0x4  # EPOLLOUT


class Ending(StrEnum):
    """How a connection that was relayed came to its end."""

    CLEAN = "clean"  # both sides ended their streams in order
    PLAIN_RESET = "plain_reset"  # the local leg was reset, or took no more bytes
    TLS_RESET = "tls_reset"  # TCP reset beneath TLS
    TLS_TRUNCATED = "tls_truncated"  # TCP ended without close_notify
    TLS_FAILED = "tls_failed"  # a fatal alert, or bytes that are not TLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What a relayed connection carried, in bytes, and how it ended.

    `tls_broke_first`: the TLS side failed before either side had ended. `untouched`: not a byte and no end
    was passed on, so that the plain leg can still be served by another connection.
    """

    to_plain: int
    to_tls: int
    ending: Ending
    detail: str = ""
    tls_broke_first: bool = False
    untouched: bool = False

    @property
    def refused(self) -> bool:
        """With TLS 1.3 our handshake ends before the far side has judged us: a refusal is our first read.

        An orderly end without a byte is none, whatever comes after it: an app that closes an idle connection
        ends so, and what our app does then is not the far side's doing.
        """
        return self.tls_broke_first and self.to_plain == 0

    @property
    def answered(self) -> bool:
        """Whether the far side has shown that it serves: by a byte, or by an end in order."""
        return self.to_plain > 0 or self.ending is Ending.CLEAN


class Progress:
    """Bytes written so far; read by anybody, changed only by whoever owns the connection."""

    __slots__ = ("to_plain", "to_tls")

    def __init__(self) -> None:
        self.to_plain = 0
        self.to_tls = 0

    def __repr__(self) -> str:
        return f"<Progress to_plain={self.to_plain} to_tls={self.to_tls}>"


class Step(Enum):
    """What is to be done now, besides waiting."""

    SHUT_PLAIN = auto()  # SHUT_WR
    SHUT_TLS = auto()  # close_notify
    FINISH = auto()


class Splice:
    """The state of one connection. Unsent bytes live here, only while their target is blocked."""

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
        self.plain_rest: bytes | memoryview = b""  # owed to the plain leg
        self.tls_rest = b""  # owed to the TLS leg: the very bytes of the write to be retried
        self.plain_ended = False  # the plain leg gave its end of stream
        self.tls_ended = False  # close_notify was received
        self.plain_shut = False
        self.tls_shut = False
        self.tls_read_wants = READ  # OpenSSL's wish, which need not be the direction
        self.tls_write_wants = NONE  # NONE: no TLS write is waiting
        self.lost = False  # bytes were taken from a leg and never reached the other
        self.tls_broke_first = False
        self.ending: Ending | None = None
        self.detail = ""

    # What happened.

    def plain_blocked(self, rest: bytes | memoryview) -> None:
        """The plain leg took only part; `rest` is still owed to it."""
        self.plain_rest = rest

    def plain_flushed(self) -> None:
        """The plain leg has all it was owed."""
        self.plain_rest = b""

    def tls_blocked(self, rest: bytes, wants: int) -> None:
        """A TLS write (of close_notify, if `rest` is empty) waits for the socket to be ready for `wants`."""
        self.tls_rest = rest
        self.tls_write_wants = wants

    def tls_flushed(self) -> None:
        """The TLS leg has all it was owed."""
        self.tls_rest = b""
        self.tls_write_wants = NONE

    def plain_gave_end(self) -> None:
        """The plain leg has nothing more to say."""
        self.plain_ended = True

    def tls_gave_end(self) -> None:
        """The TLS leg has nothing more to say, and has said so."""
        self.tls_ended = True

    def plain_was_shut(self) -> None:
        """The end of the TLS leg was passed on."""
        self.plain_shut = True

    def tls_was_shut(self) -> None:
        """The end of the plain leg was passed on."""
        self.tls_shut = True
        self.tls_write_wants = NONE

    def fail(self, ending: Ending, detail: str) -> None:
        """One leg broke: all is over. The first failure is the reason."""
        if self.ending is None:
            self.ending = ending
            self.detail = detail
            ended = self.plain_ended or self.tls_ended
            self.tls_broke_first = ending is not Ending.PLAIN_RESET and not ended

    def shut_failed(self, ending: Ending, detail: str) -> None:
        """A leg did not take the end of the other one.

        That is no loss if it had ended in order before: it has left, with nothing owed to it.
        """
        if ending is Ending.PLAIN_RESET and self.plain_ended:
            self.plain_was_shut()
        elif ending is not Ending.PLAIN_RESET and self.tls_ended:
            self.tls_was_shut()
        else:
            self.fail(ending, detail)

    # What comes next.

    def due(self) -> Step | None:
        """The next step, or None to wait for either leg."""
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
        """Whether the TLS leg could take more from the plain leg."""
        return not self.plain_ended and not self.tls_write_wants

    @property
    def reads_tls(self) -> bool:
        """Whether the plain leg could take more from the TLS leg."""
        return not self.tls_ended and not self.plain_rest

    def plain_interest(self) -> int:
        """What the plain leg is watched for: READ, WRITE, both or NONE."""
        return (READ if self.reads_plain else NONE) | (WRITE if self.plain_rest else NONE)

    def tls_interest(self) -> int:
        """What the TLS leg is watched for: what OpenSSL asked for, of each direction that is wanted."""
        return (self.tls_read_wants if self.reads_tls else NONE) | self.tls_write_wants

    def transfer(self, progress: Progress) -> Transfer:
        """The summary, once `due` says FINISH."""
        if self.ending is None:
            raise RuntimeError("the splice has not ended")
        # What waits for a leg to take more was taken from the other, and some of it may have gone already.
        taken = bool(self.lost or self.plain_rest or self.tls_rest)
        told = self.plain_shut or self.tls_shut
        return Transfer(
            to_plain=progress.to_plain,
            to_tls=progress.to_tls,
            ending=self.ending,
            detail=self.detail,
            tls_broke_first=self.tls_broke_first,
            untouched=not (taken or told or progress.to_plain or progress.to_tls),
        )
