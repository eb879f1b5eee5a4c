"""Decides which callers have a slot of a listener, which wait in line, and which give a slot up. No IO.

A caller is silent until its first byte, then begun, and settled when its handshake is over. Settled callers
count against `limit` only, the others against `unsettled_limit`. For callers from the mesh (`fair`):

* They wait in a line of our own, not in the kernel's backlog. The backlog does not know sources, so a flood
  from one holds up all others. Here each source (an address; a /64 of IPv6, which one host can have) has its
  own line, and the lines take turns.
* A source has at most half of the slots and of the line, so that the other half is left to others. Further
  callers of it wait, and only those beyond its share of the line are turned away, since a fleet may share one
  address.
* For a waiting caller the slot of the longest silent caller is freed; if no caller is silent, that of the
  caller that began longest ago and owes us bytes. Each has a grace first: GRACE if another source waits,
  OWN_GRACE if only its own source does, since a burst may be as slow as the host it comes from. A caller that
  waits for us keeps its slot.
* Silent callers have no grace while the line or `limit` is full.
* If no caller gives way, the line waits. If the line is full no caller is accepted, and the backlog holds
  them: to accept and close would cut off callers that came during a restart, and can be served soon.
* If `limit` is reached a caller is turned away at once, since a slot may not be free for an hour; it can try
  another instance.

Connections of our own app to an upstream (not `fair`) have a line too, where no caller gives way to another.
Each waits at most `patience` seconds and is then turned away, since its handshake may never come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from enum import StrEnum

import trio

from agent.net.line import UNNAMED, Source, share, source_text

GRACE = 0.5  # seconds for a caller to send what it owes; a round trip across the earth takes 0.3
OWN_GRACE = 3.0  # the same, if only callers of its own source wait for the slot
PRESSED_SECONDS = 60.0  # for which a caller that was turned away is told of


class Overflow(StrEnum):
    """Why a caller is turned away at once: the setting whose limit is reached."""

    CONNECTIONS = "max_connections"
    HANDSHAKES = "max_handshakes"


class Displaced(StrEnum):
    """Why a caller was closed to give its slot to another one."""

    SILENT = "silent"
    STALLED = "stalled"


class Admission:
    """The slots of one listener, and its counters. A limit of None: that of open files alone applies."""

    __slots__ = (
        *("_begun", "_clock", "_grace", "_held", "_own_grace", "_silent"),
        *("admitted", "displaced", "fair", "left", "limit", "live", "most", "most_unsettled", "on_room"),
        *("patience", "pressed_until", "pressing", "refused", "unsettled_limit", "waiting"),
    )

    def __init__(
        self,
        limit: int | None = None,
        unsettled_limit: int | None = None,
        *,
        fair: bool = False,
        grace: float = GRACE,
        own_grace: float = OWN_GRACE,
        patience: float = math.inf,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.limit = limit
        self.unsettled_limit = unsettled_limit
        self.fair = fair
        self._grace = grace
        self._own_grace = own_grace
        self.patience = patience
        self.live = 0
        self.most = 0
        self.most_unsettled = 0
        self.waiting = 0  # callers in line
        self.admitted = 0
        self.left = 0  # callers that left before their turn
        self.refused: Counter[Overflow] = Counter()
        self.pressing: Source = UNNAMED  # the source of the caller that was turned away last in its handshake
        self.pressed_until = -math.inf
        self.displaced: Counter[Displaced] = Counter()
        self.on_room: Callable[[], None] = lambda: None
        self._clock = clock
        self._silent: dict[Slot, float] = {}  # since when, oldest first
        self._begun: dict[Slot, float] = {}  # since when, oldest first
        self._held: Counter[Source] = Counter()  # unsettled slots by source

    def __repr__(self) -> str:
        return f"<Admission live={self.live} limit={self.limit} overflow={self.overflow}>"

    @property
    def overflow(self) -> int:
        """How many callers were turned away."""
        return self.refused.total()

    @property
    def unsettled(self) -> int:
        """How many callers are in their handshake."""
        return len(self._silent) + len(self._begun)

    @property
    def full(self) -> Overflow | None:
        """The limit that is reached; None if none is."""
        if self.limit is not None and self.live >= self.limit:
            return Overflow.CONNECTIONS
        if self.unsettled_limit is not None and self.unsettled >= self.unsettled_limit:
            return Overflow.HANDSHAKES
        return None

    def turn_away(self, reason: Overflow, source: Source) -> None:
        """Count a caller that is turned away."""
        self.refused[reason] += 1
        if reason is Overflow.HANDSHAKES:
            self.pressing, self.pressed_until = source, self._clock() + PRESSED_SECONDS

    @property
    def pressure(self) -> str:
        """Return which source had no room for another handshake within the last minute; empty if none."""
        most = self.unsettled_limit
        if most is None or self._clock() > self.pressed_until:
            return ""
        if not self.fair:
            return f"{most} of {most} handshakes are under way, and further callers are turned away"
        said = f"{source_text(self.pressing)} has its share of the handshakes, {share(most)} of {most}"
        return f"{said}, and its further callers are turned away"

    def crowded(self, source: Source) -> bool:
        """Return whether a source has its full share of the slots."""
        if not self.fair or self.unsettled_limit is None:
            return False
        return self._held[source] >= share(self.unsettled_limit)

    def obstacle(self, source: Source, *, pressed: bool = False) -> Overflow | None:
        """Return what keeps a caller of that source out, after others were made to give way.

        None: it may enter.

        `pressed`: the line is full.
        """
        if self.crowded(source) and not self._displace(self._own_grace, source, pressed=pressed):
            return Overflow.HANDSHAKES
        reason = self.full
        if reason is not None and self.give_way(pressed=pressed or reason is Overflow.CONNECTIONS):
            reason = self.full
        return reason

    def enter(self, source: Source = UNNAMED, owes: Callable[[], bool] = lambda: True) -> Slot:
        """Give a slot to a caller, silent so far. `owes`: whether it has sent nothing that is unread."""
        slot = Slot(self, source, owes)
        self._silent[slot] = self._clock()
        self._hold(source)
        self.live += 1
        self.admitted += 1
        self.most = max(self.most, self.live)
        self.most_unsettled = max(self.most_unsettled, self.unsettled)
        return slot

    def join(self) -> bool:
        """Count another connection of a settled caller, which never gives way; False at the limit."""
        if self.limit is not None and self.live >= self.limit:
            self.give_way(pressed=True)
            if self.live >= self.limit:
                self.refused[Overflow.CONNECTIONS] += 1
                return False
        self.live += 1
        self.admitted += 1
        self.most = max(self.most, self.live)
        return True

    def part(self) -> None:
        """Free what a `join` has taken."""
        self.live -= 1
        self.on_room()

    def next_to_yield(self) -> float:
        """Return when the next grace ends, or has ended, by the clock; infinite if no caller has one."""
        if not self.fair:
            return math.inf
        first = [next(iter(slots.values()), math.inf) for slots in (self._silent, self._begun)]
        return min(first) + self._grace

    def give_way(self, *, pressed: bool = False) -> bool:
        """Free a slot whose caller must give way; return whether there was one."""
        return self.fair and self._displace(self._grace, pressed=pressed)

    def _displace(self, grace: float, source: Source | None = None, *, pressed: bool) -> bool:
        """Free a slot (of that source) for another caller; return whether there was one."""
        for kind, slot in self._yielding(grace, pressed=pressed):
            if source in (None, slot.source) and slot.owes():
                self.displaced[kind] += 1
                slot.leave()
                slot.scope.cancel()
                return True
        return False

    def _yielding(self, grace: float, *, pressed: bool) -> Iterator[tuple[Displaced, Slot]]:
        """Yield the slots whose grace is over, in the order in which they give way."""
        over = self._clock() - grace
        for slot, since in self._silent.items():
            if since > over and not pressed:
                break
            yield Displaced.SILENT, slot
        for slot, since in self._begun.items():
            if since > over:
                break
            yield Displaced.STALLED, slot

    def _begin(self, slot: Slot) -> None:
        if slot in self._silent:
            del self._silent[slot]
            self._begun[slot] = self._clock()

    def _rest(self, slot: Slot) -> None:
        self._settle(slot)
        self._silent[slot] = self._clock()
        self._hold(slot.source)

    def _settle(self, slot: Slot) -> None:
        if self._silent.pop(slot, None) is None and self._begun.pop(slot, None) is None:
            return
        if self.fair:
            self._held[slot.source] -= 1
            if not self._held[slot.source]:
                del self._held[slot.source]
        self.on_room()

    def _hold(self, source: Source) -> None:
        if self.fair:  # else no source has a share
            self._held[source] += 1


class Slot:
    """The slot of one admitted connection. `scope` is cancelled when the slot is needed for another one.

    `waited`: the seconds in line, from accept(2) on; `caller`: its address for a person, empty if not told.
    """

    __slots__ = ("_admission", "_gone", "caller", "owes", "scope", "source", "waited")

    def __init__(self, admission: Admission, source: Source, owes: Callable[[], bool]) -> None:
        self._admission = admission
        self._gone = False
        self.source = source
        self.owes = owes
        self.scope = trio.CancelScope()
        self.waited = 0.0
        self.caller = ""

    def begin(self) -> None:
        """Note that the caller has sent bytes; may be called again."""
        self._admission._begin(self)  # noqa: SLF001 - two halves of one thing

    def settle(self) -> None:
        """Note that the handshake is over, in whatever way; may be called again."""
        self._admission._settle(self)  # noqa: SLF001 - two halves of one thing

    def rest(self) -> None:
        """Note that the caller waits for no answer of ours any more, and counts as silent again."""
        if not self._gone:
            self._admission._rest(self)  # noqa: SLF001 - two halves of one thing

    def join(self) -> bool:
        """Take a place for another connection of this caller, until `part`; False if `limit` is reached."""
        return self._admission.join()

    def part(self) -> None:
        """Free the place of another connection."""
        self._admission.part()

    def leave(self) -> None:
        """Free the slot; may be called again."""
        if self._gone:
            return
        self._gone = True
        self._admission.live -= 1
        self.settle()
        self._admission.on_room()
