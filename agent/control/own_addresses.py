"""What only this machine knows of addresses: those of names, the targets of paths, its own."""

from __future__ import annotations

import os.path
import socket
from collections.abc import Iterable, Sequence

import trio

from agent.base.address import Address, TcpAddress, UnixAddress, is_local, literal
from agent.config.collisions import Known, unknown_names

LOOKUP_SECONDS = 5.0  # for all names together; a name without an answer by then stands only for itself


async def look_up(addresses: Sequence[Address]) -> Known:
    """Return what decides whether these addresses collide; waits only for names that share a port."""
    hosts: dict[str, frozenset[str]] = {}

    async def resolve(name: str) -> None:
        try:
            found = await trio.socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except (OSError, ValueError):  # gaierror; a label too long for DNS
            return
        hosts[name] = frozenset(literal(str(place[0])) or str(place[0]) for *_, place in found)

    with trio.move_on_after(LOOKUP_SECONDS):
        async with trio.open_nursery() as nursery:
            for name in unknown_names(addresses):
                nursery.start_soon(resolve, name)
    return known_now(addresses, hosts)


def known_now(addresses: Iterable[Address], hosts: dict[str, frozenset[str]] | None = None) -> Known:
    """Return what is known without waiting, with the given addresses of names."""
    hosts, listed = hosts or {}, list(addresses)
    places = {address for one in listed if isinstance(one, TcpAddress) if (address := literal(one.host))}
    places = places.union(*hosts.values())
    return Known(
        hosts=hosts,
        paths={one.path: os.path.realpath(one.path) for one in listed if isinstance(one, UnixAddress)},
        ours=frozenset(place for place in places if is_local(place)),
    )
