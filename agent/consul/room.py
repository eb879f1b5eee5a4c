"""Fits the connections of one sidecar to the room that its host has at the agent.

The agent counts the connections of one client address, all processes together, and says so only by refusing.
So the sidecar counts them itself, where the kernel lists those of its network namespace.

Sixty sidecars with three connections each are within the 200 that Consul allows, and no lock keeps them from
deciding at one moment by the same count. So each takes little at a time, and what all take by one count fits:

- A sidecar starts with one connection (`FIRST`), and takes the others of its least step by step: below
  `CROWDED` at once, since 139 and one for each of sixty are within 200. In a crowd it first gives those that
  have more than their least the time to give it back (`OTHERS_SECONDS`), and then takes one with a likelihood
  that falls with the room up to `FULL`, and rises with the time between two looks. On a full host it stays as
  it is: better asked in turn than refused.
- Below `SPARSE` it takes more than its least, a small part of the room at a time. From `CROWDED` on it goes
  back to its least at once. It looks every few seconds while it has more.
- After a refusal it has its least at most, for a minute first, and for twice as long after each further one,
  an hour at most.
"""

from __future__ import annotations

import ipaddress
import math
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import thread_time

import trio

from agent.config.parsers import ConsulAddress
from agent.consul.budget import Budget

FIRST = 1  # the connections of a sidecar that has not counted yet
# Connections of the host to its agent, which allows 200. Below QUIET a sidecar that starts takes its whole
# least, below SPARSE one takes more, a PART of the room at a time. What is left is for the CLI.
QUIET, SPARSE, CROWDED, FULL, PART = 60, 120, 140, 190, 24
STARTING, EXCEEDING = 40, 30  # connections of room, for which one is taken for certain
# Seconds between two looks. Quick: while more is to be had, but not for the first beyond the least, since a
# watch that is given a connection asks at once. Later: where nothing is to be had or given back.
QUICK, SOON, LATER = 1.0, 3.0, 15.0
OTHERS_SECONDS = 10.0  # in which the others have given back what a sidecar that starts in a crowd needs
STALE = 2.0  # seconds after which what a look has seen is too old to take anything by it
SPARING = 200.0  # times the CPU of a look pass until the next one: tens of thousands of sockets take 40 ms
FIRST_REST, LONGEST_REST = 60.0, 3600.0  # seconds with the least connections after a refusal
NAMES_SECONDS = 60.0  # for which the addresses of the agent's name are remembered
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
MOST_READ = 4 << 20  # bytes of both: some 25,000 connections. A host with more is not looked at
_READ = 64 << 10
# Established; and those that this side has closed and the agent has not yet, so that it counts them (proc(5);
# include/net/tcp_states.h of Linux: TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2)
COUNTED = ("01", "04", "05")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`host`: the connections of this host, None where that is unknown; `cost`: seconds of CPU."""

    host: int | None
    cost: float = 0.0


Count = Callable[[], Awaitable[Look]]


def sized(now: int, *, least: int, wanted: int, host: int, chance: float = 0.5) -> int:
    """Return how many connections a sidecar of `now`, at least its `least`, is to have.

    `wanted`: what it could use; `host`: those of all processes of this host, its own among them; `chance`:
    uniform in [0, 1), for the part of a connection, so that sidecars which look at one moment take together
    no more than there is.
    """
    if host >= CROWDED:
        return least
    step = math.floor((SPARSE - host) / PART + chance) if host < SPARSE else 0
    return max(least, min(wanted, now + step))


def risen(now: int, *, least: int, host: int, waited: float, chance: float) -> int:
    """Return how many connections a sidecar is to have which has not had its least yet, and began `waited`
    seconds ago."""
    if host < QUIET:
        return least
    if host >= CROWDED and (waited < OTHERS_SECONDS or chance >= (FULL - host) / STARTING):
        return now
    return min(least, now + max(1, least // 2))


class Room:
    """Keeps one budget fitted; `count` counts the connections of this host."""

    def __init__(
        self, budget: Budget, keep: Callable[[int], Awaitable[None]], count: Count, rng: Random
    ) -> None:
        self._budget = budget
        self._keep = keep
        self._count = count
        self._rng = rng
        self._rest = FIRST_REST
        self._least_until = -math.inf
        self._rises_from = -math.inf
        self._rarity = 1.0  # the seconds between two looks, of the shortest
        self.host: int | None = None  # as counted last
        budget.has_room = self.has_room

    def refused(self) -> None:
        """Go back to the least at once: the agent has refused a question for the number of them."""
        now = trio.current_time()
        if now >= self._least_until:
            self._least_until = now + self._rest
            self._rest = min(LONGEST_REST, 2 * self._rest)
        self._rises_from = now
        self._budget.resize(min(self._budget.connections, self._budget.least))

    async def has_room(self) -> bool:
        """Return whether the host has room for one connection beyond the budget."""
        host = (await self._count()).host
        return host is None or self._rng.random() < (FULL - host) / EXCEEDING

    async def follow(self) -> None:
        """Fit the budget again and again, until cancelled or until nothing more is to be had."""
        budget = self._budget
        self._rises_from = trio.current_time()
        budget.resize(min(FIRST, budget.least))
        while budget.connections < budget.least or budget.most > budget.least:
            before = budget.connections
            cost = await self._fit()
            budget.joined = trio.Event()
            await self._pause(before, SPARING * cost)

    async def _pause(self, before: int, sparing: float) -> None:
        budget = self._budget
        now, least = budget.connections, budget.least
        pause = QUICK if now < least or now > max(before, least) else SOON
        pause = min(LATER, max(pause, sparing))
        self._rarity = pause / QUICK
        await trio.sleep(pause * self._rng.uniform(0.7, 1.3))
        if before >= budget.connections == least:
            with trio.move_on_after((LATER - SOON) * self._rng.uniform(0.7, 1.3)):
                await budget.joined.wait()

    async def _fit(self) -> float:
        """Look, resize the budget, and return the CPU seconds of the look."""
        began = trio.current_time()
        look = await self._count()
        self.host = look.host
        size = self._size(look.host, trio.current_time(), is_stale=trio.current_time() > began + STALE)
        self._budget.resize(size)
        await self._keep(size)
        return look.cost

    def _size(self, host: int | None, now: float, *, is_stale: bool) -> int:
        budget = self._budget
        if host is None:
            return budget.least
        chance = self._rng.random()
        if budget.connections < budget.least:
            waited = now - self._rises_from
            chance /= self._rarity  # where looks are dear, and so rare, few decide at one moment
            size = risen(budget.connections, least=budget.least, host=host, waited=waited, chance=chance)
        elif now < self._least_until:
            size = budget.least
        else:
            wanted = budget.wanted
            size = sized(budget.connections, least=budget.least, wanted=wanted, host=host, chance=chance)
        return min(size, budget.connections) if is_stale else size


def counting(address: ConsulAddress) -> Count:
    """Return what counts the connections of this host to an agent; those to a unix socket are unknown."""
    known: list[str] = []
    stale_at = -math.inf

    async def count() -> Look:
        nonlocal known, stale_at
        if address.socket is not None:
            return Look(host=None)
        now = trio.current_time()
        if now >= stale_at:
            try:
                found = await trio.socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
            except (OSError, ValueError):  # gaierror; a label too long for DNS
                return Look(host=None)
            known, stale_at = [str(place[0]) for *_, place in found], now + NAMES_SECONDS
        return await connections(known, address.port)

    return count


async def connections(hosts: Iterable[str], port: int, tables: Iterable[Path] = TABLES) -> Look:
    """Count the connections of this network namespace to a port of these addresses, as the agent counts.

    Unknown: the tables cannot be read, or are too long to be read often. The kernel walks the sockets of
    every namespace for it, 20 ms for 20,000, which a thread waits for.
    """
    ends = [end for host in set(hosts) for end in _ends(host, port)]
    return await trio.to_thread.run_sync(_look, ends, tables, abandon_on_cancel=True)


def _look(ends: Sequence[bytes], tables: Iterable[Path]) -> Look:
    began = thread_time()
    host = _found(ends, tables)
    return Look(host=host, cost=thread_time() - began)


def _found(ends: Sequence[bytes], tables: Iterable[Path]) -> int | None:
    found, size = 0, 0
    for lines in _whole_lines(tables):
        if lines is None or size > MOST_READ:
            return None
        size += len(lines)
        found += sum(lines.count(end) for end in ends)
    return found


def _whole_lines(tables: Iterable[Path]) -> Iterator[bytes | None]:
    """Yield the tables piece by piece, lines undivided; None where one cannot be read."""
    for table in tables:
        try:
            with table.open("rb", buffering=0) as file:
                rest = b""
                while data := file.read(_READ):
                    lines, _, rest = (rest + data).rpartition(b"\n")
                    yield lines
        except FileNotFoundError:  # a kernel without IPv6
            continue
        except OSError:
            yield None


def _ends(host: str, port: int) -> list[bytes]:
    """Return how the kernel writes a connection to that end (proc(5), /proc/net/tcp)."""
    packed = ipaddress.ip_address(host.partition("%")[0]).packed
    forms = [packed] if len(packed) == 16 else [packed, bytes(10) + b"\xff\xff" + packed]
    words = [b"".join(b"%08X" % word for word in struct.unpack(f"={len(one) // 4}I", one)) for one in forms]
    return [b" %b:%04X %b " % (word, port, state.encode()) for word in words for state in COUNTED]
