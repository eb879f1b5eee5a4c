"""The callers that wait for a slot of a listener, by the source they come from. No IO."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

SHARES = 2  # a source has at most the slots divided by this
LINE = 4096  # callers: the kernel's largest backlog, so that all of it is accepted after a restart

Source = str | bytes
UNNAMED = ""  # of a unix socket

_MAPPED = bytes(10) + b"\xff\xff"  # before an IPv4 address in an IPv6 socket: RFC 4291 §2.5.5.2
_PREFIX = 8  # bytes of an IPv6 address that identify a network


def source_of(address: object) -> Source:
    """Return the source of a caller, from the address that accept(2) returns."""
    if not isinstance(address, tuple):
        return UNNAMED
    host: str = address[0]
    if len(address) == 2:  # IPv4
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return packed if packed.startswith(_MAPPED) else packed[:_PREFIX]


def source_text(source: Source) -> str:
    """Return a source for a person."""
    if isinstance(source, bytes):
        packed = source if len(source) != _PREFIX else source + bytes(16 - _PREFIX)
        text = socket.inet_ntop(socket.AF_INET6, packed)
        return f"{text}/{8 * _PREFIX}" if len(source) == _PREFIX else text.removeprefix("::ffff:")
    return source or "a unix socket"


def share(count: int) -> int:
    """Return the share of one source."""
    return max(1, count // SHARES)


Caller = TypeVar("Caller")


class Line(Generic[Caller]):
    """The callers that wait for a slot: in order of arrival for each source, the sources by turns."""

    def __init__(self, limit: int = LINE, *, fair: bool = True) -> None:
        self._limit = limit
        self._share = share(limit) if fair else limit
        self._of: dict[Source, deque[Caller]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def full(self) -> bool:
        """Whether no more callers are to be accepted."""
        return self._count >= self._limit

    def join(self, source: Source, caller: Caller) -> bool:
        """Add a caller at the end; return False if the source has its share of the line."""
        callers = self._of.setdefault(source, deque())
        if len(callers) >= self._share:
            return False
        callers.append(caller)
        self._count += 1
        return True

    def sources(self) -> Iterator[Source]:
        """Yield the sources in the order of their turns; stop iterating after a call of `call`."""
        return iter(self._of)

    def call(self, source: Source) -> Caller:
        """Return the first caller of a source, whose turn is over with it."""
        callers = self._of.pop(source)
        caller = callers.popleft()
        self._count -= 1
        if callers:
            self._of[source] = callers
        return caller

    def first(self, source: Source) -> Caller | None:
        """Return the first caller of a source, who stays in line; None without one."""
        return next(iter(self._of.get(source, ())), None)

    def rest(self) -> Iterator[tuple[Source, Caller]]:
        """Yield all callers, in the order of their turns."""
        while self._of:
            source = next(iter(self._of))
            yield source, self.call(source)
