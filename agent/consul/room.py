"""Fits the connections of one sidecar to the room that its host has at the agent.

The agent counts the connections of one client address, all processes together, and says so only by refusing.
So the sidecar counts them itself, where the kernel lists those of its network namespace, and takes more while
there are few. It gives them back when there are many, which is how those that start later find room: each
sidecar looks again every few seconds while it has more than its least. After a refusal it has its least, for
a minute first, and for twice as long after each further one, an hour at most.
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

# Connections of the host to its agent, which allows 200. Below SPARSE a sidecar takes more, by a small part
# of the room, since others look at the same moment; from CROWDED on each goes back to its least. The rest is
# room for sidecars that start, and for the CLI.
SPARSE, CROWDED, PART = 120, 160, 16
SOON, LATER = 3.0, 15.0  # seconds between two looks; later: where nothing is to be had or given back
SPARING = 200.0  # times the CPU of a look pass until the next one: tens of thousands of sockets take 40 ms
FIRST_REST, LONGEST_REST = 60.0, 3600.0  # seconds with the least connections after a refusal
NAMES_SECONDS = 60.0  # for which the addresses of the agent's name are remembered
TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
MOST_READ = 4 << 20  # bytes of both: some 25,000 connections. A host with more is not looked at
_READ = 64 << 10
# Established; and those that this side has closed and the agent has not yet, so that it counts them (proc(5);
# include/net/tcp_states.h of Linux: TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2)
_COUNTED = (b" 01 ", b" 04 ", b" 05 ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """`host`: the connections of this host, None where that is unknown; `cost`: seconds of CPU."""

    host: int | None
    cost: float = 0.0


Count = Callable[[], Awaitable[Look]]


def sized(now: int, *, least: int, wanted: int, host: int) -> int:
    """Return how many connections a sidecar of `now` is to have, at least `least`.

    `wanted`: what it could use; `host`: those of all processes of this host, its own among them.
    """
    if host >= CROWDED:
        return least
    step = max(1, (SPARSE - host) // PART) if host < SPARSE else 0
    return max(least, min(wanted, now + step))


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
        self.host: int | None = None  # as counted last

    def refused(self) -> None:
        """Go back to the least at once: the agent has refused a question for the number of them."""
        now = trio.current_time()
        if now >= self._least_until:
            self._least_until = now + self._rest
            self._rest = min(LONGEST_REST, 2 * self._rest)
        self._budget.resize(self._budget.least)

    async def follow(self) -> None:
        """Fit the budget again and again, until cancelled."""
        pause = SOON
        while self._budget.most > self._budget.least:
            await trio.sleep(pause * self._rng.uniform(0.7, 1.3))
            pause = min(LATER, max(SOON, SPARING * await self._fit()))
            if self._budget.connections == self._budget.least:
                with trio.move_on_after((LATER - SOON) * self._rng.uniform(0.7, 1.3)):
                    await self._budget.joined.wait()
            self._budget.joined = trio.Event()

    async def _fit(self) -> float:
        """Look, resize the budget, and return the CPU seconds of the look."""
        budget, look = self._budget, await self._count()
        self.host = look.host
        size = budget.least
        if self.host is not None and trio.current_time() >= self._least_until:
            size = sized(budget.connections, least=budget.least, wanted=budget.wanted, host=self.host)
        budget.resize(size)
        await self._keep(size)
        return look.cost


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
    return [b" %b:%04X%b" % (word, port, state) for word in words for state in _COUNTED]
