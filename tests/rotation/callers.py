"""Callers in a process of their own, by one epoll: new connections at a rate, and ones that stay.

callers.py '{"ports": [9191], "per_second": 200, "lasting": 2, "beat": 1.0, "patience": 30}'

Each says words that must come back as they are. Until standard input ends; what is under way then is let
finish. A line of JSON is printed when every lasting connection has had its first answer or has failed, then
every 0.2 s, and one with everything (the fields of tests.rotation.load.Load) is the last.
"""

from __future__ import annotations

import heapq
import json
import select
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from os import strerror
from time import monotonic

MOST_AT_ONCE = 400  # new connections that have not been answered yet
REPORT_SECONDS = 0.2
FULL_SECONDS = 0.005  # until it is seen again whether there is room for a new one
STDIN = 0
COUNTS = ("made", "answered", "lasting", "words")
LISTS = ("failed", "late", "broken", "latencies", "seconds")

_Ended = Callable[["Conversation", str], None]


class Timers:
    """What is to be done at a moment."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def at(self, moment: float, act: Callable[[], None]) -> None:
        """Call `act` at that moment of the monotonic clock."""
        heapq.heappush(self._due, (moment, next(self._numbers), act))

    def run(self) -> float:
        """Call what is due; return the seconds until the next."""
        while self._due and self._due[0][0] <= monotonic():
            heapq.heappop(self._due)[2]()
        return max(0.0, self._due[0][0] - monotonic()) if self._due else REPORT_SECONDS


class Conversation:
    """One connection. `on_end` hears of each word: an empty text once it has come back, else what happened.

    `late`: it was its patience that ended.
    """

    __slots__ = ("_heard", "_on_end", "_poll", "began", "late", "number", "port", "said", "sock", "word")

    def __init__(self, port: int, number: int, poll: select.epoll, on_end: _Ended) -> None:
        self.port, self.number, self._poll, self._on_end = port, number, poll, on_end
        self.began, self.said, self.late = monotonic(), 0, False
        self.word, self._heard = b"", b""
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.sock.connect_ex(("127.0.0.1", port))
        self._poll.register(self.sock, select.EPOLLOUT)

    def say(self, word: bytes) -> None:
        """Say the next word, once the connection is there."""
        self.word, self._heard = word, b""
        if self.said:
            self._send()

    def ready(self) -> None:
        """Go on where the socket lets it."""
        try:
            if not self.said and (error := self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)):
                self._on_end(self, repr(OSError(error, strerror(error))))
            elif not self.said:
                self._poll.modify(self.sock, select.EPOLLIN)
                self._send()
            else:
                self._hear(self.sock.recv(4096))
        except OSError as error:
            self._on_end(self, repr(error))

    def give_up(self, seconds: float) -> None:
        """Wait no more for this word, since so many seconds were enough."""
        self.late = True
        self._on_end(self, f"no answer within {seconds:g} s")

    def close(self) -> None:
        """Leave."""
        self._poll.unregister(self.sock)
        self.sock.close()

    def _send(self) -> None:
        self.said += 1
        with suppress(BrokenPipeError):  # the reading says how it has ended
            self.sock.send(self.word)

    def _hear(self, data: bytes) -> None:
        self._heard += data
        if not data:
            self._on_end(self, "closed without an answer")
        elif not self.word.startswith(self._heard):
            self._on_end(self, f"{self._heard!r} for {self.word!r}")
        elif self._heard == self.word:
            self._on_end(self, "")


class Callers:
    """All of them, and what has become of them."""

    def __init__(
        self, ports: Sequence[int], per_second: float, lasting: int, beat: float, patience: float
    ) -> None:
        self._ports, self._per_second, self._wanted = ports, per_second, lasting
        self._beat, self._patience = beat, patience
        self._poll, self._timers = select.epoll(), Timers()
        self._open: dict[int, Conversation] = {}
        self._numbers, self._new, self._began, self._stopped = count(), 0, 0.0, False
        self.made = self.answered = self.lasting = self.words = 0
        self.failed, self.late, self.broken = list[str](), list[str](), list[str]()
        self.latencies = list[float]()
        self.seconds = 0.0

    def run(self) -> None:
        """Call until standard input ends, and then until none is under way."""
        self._poll.register(STDIN, select.EPOLLIN | select.EPOLLHUP)
        began = monotonic()
        for number in range(self._wanted):  # not all in one instant
            self._timers.at(began + number * 0.01, partial(self._last, number))
        self._timers.at(began, self._begin)
        while self._open or not self._stopped:
            for descriptor, _ in self._poll.poll(self._timers.run()):
                if descriptor == STDIN:
                    self._stop()
                elif (one := self._open.get(descriptor)) is not None:
                    one.ready()
        self._say(*COUNTS, *LISTS)

    def _say(self, *names: str) -> None:
        sys.stdout.write(json.dumps({name: getattr(self, name) for name in names}) + "\n")
        sys.stdout.flush()

    def _stop(self) -> None:
        self._stopped = True
        self._poll.unregister(STDIN)
        self.seconds = monotonic() - self._began if self._began else 0.0
        for one in [one for one in self._open.values() if not one.word]:
            self._close(one)

    def _begin(self) -> None:
        """Make new ones once every lasting one has had an answer, or has failed."""
        if self.lasting + len(self.broken) + len(self.late) < self._wanted:
            self._timers.at(monotonic() + 0.05, self._begin)
            return
        self._began = monotonic()
        self._report()
        self._make()

    def _report(self) -> None:
        if not self._stopped:
            self._say(*COUNTS)
            self._timers.at(monotonic() + REPORT_SECONDS, self._report)

    # --- new ones ---

    def _make(self) -> None:
        if self._stopped:
            return
        if self._new >= MOST_AT_ONCE:
            self._timers.at(monotonic() + FULL_SECONDS, self._make)
            return
        self._new += 1
        self._ask(self._connect(self.made, self._answered), b"new")
        self.made += 1
        self._timers.at(self._began + self.made / self._per_second, self._make)

    def _answered(self, one: Conversation, what: str) -> None:
        self._close(one)
        self._new -= 1
        self.latencies.append(round(monotonic() - one.began, 6))
        if one.late:
            self.late.append(f"{one.port}: {what}")
        elif what:
            self.failed.append(f"{one.port}: {what}")
        else:
            self.answered += 1

    # --- lasting ones ---

    def _last(self, number: int) -> None:
        if not self._stopped:
            self._ask(self._connect(number, self._heard), b"%d.0;" % number)

    def _heard(self, one: Conversation, what: str) -> None:
        one.word = b""
        if what:
            self._close(one)
            where = f"{one.number} on {one.port} after {max(0, one.said - 1)} words: {what}"
            (self.late if one.late else self.broken).append(where)
            return
        self.lasting += one.said == 1
        self.words += 1
        if self._stopped:
            self._close(one)
        else:
            self._timers.at(monotonic() + self._beat, lambda: self._say_more(one))

    def _say_more(self, one: Conversation) -> None:
        if self._is_open(one):
            self._ask(one, b"%d.%d;" % (one.number, one.said))

    # --- either ---

    def _connect(self, number: int, on_end: _Ended) -> Conversation:
        one = Conversation(self._ports[number % len(self._ports)], number, self._poll, on_end)
        self._open[one.sock.fileno()] = one
        return one

    def _ask(self, one: Conversation, word: bytes) -> None:
        """Say a word, and give the connection up if it does not come back in time."""

        def look() -> None:
            if self._is_open(one) and one.word == word:
                one.give_up(self._patience)

        one.say(word)
        self._timers.at(monotonic() + self._patience, look)

    def _is_open(self, one: Conversation) -> bool:
        return one is self._open.get(one.sock.fileno())

    def _close(self, one: Conversation) -> None:
        del self._open[one.sock.fileno()]
        one.close()


if __name__ == "__main__":
    Callers(**json.loads(sys.argv[1])).run()
