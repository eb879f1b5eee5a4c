"""Asks whether the public listener serves, as a caller of the mesh would: by a handshake with ourselves.

Such a caller is known by its SNI, which only the processes of this agent know: it is counted as a health
check, and neither judged nor logged. What keeps a handshake from succeeding though the listener is alive (no
valid leaf, every place taken, no descriptor left) is no failure: another start would cure none of it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import trio

from agent.base.address import ANY_ADDRESS, ANY_ADDRESS_6, Address, TcpAddress
from agent.net.bind import address_of
from agent.net.dial import DialFailed, DialReason, dial
from agent.net.handshake import HandshakeFailed, HandshakeReason, client_handshake
from agent.net.listeners import Opening
from certs.contexts import Contexts
from upstreams.spec import LOOPBACK

_REACHED_BY = {ANY_ADDRESS: LOOPBACK, ANY_ADDRESS_6: "::1"}
_OURS = frozenset({DialReason.NO_RESOURCES, HandshakeReason.NO_RESOURCES})


def new_name() -> str:
    """Return a name for SNI (RFC 6066 section 3) that no caller can know."""
    return f"{os.urandom(16).hex()}.beat.invalid"


async def failure(
    opening: Opening | None, contexts: Contexts | None, now: datetime, name: str, seconds: float
) -> str:
    """Handshake with the public listener; return what has failed, empty if nothing has or can be asked."""
    if opening is None or opening.problem or contexts is None or contexts.credentials.fault(now):
        return ""
    try:
        place = _place(opening)
    except OSError as error:
        return f"the public listener is closed: {error.strerror}"
    if place is None:
        return ""
    with trio.move_on_after(seconds):
        return await _handshake(place, contexts, name, seconds)
    return f"no handshake with our own public listener within {seconds:g} s"


async def _handshake(place: Address, contexts: Contexts, name: str, seconds: float) -> str:
    try:
        sock = await dial(place, seconds)
        with sock:
            await client_handshake(sock, contexts.client, name, seconds)
    except (DialFailed, HandshakeFailed) as error:
        return "" if error.reason in _OURS else f"our own public listener: {error}"
    return ""


def is_full(listener: Mapping[str, Any] | None) -> bool:
    """Return whether a listener, by its row of `/status`, has no place for a caller."""
    if listener is None:
        return False
    pairs = (("live", "limit"), ("handshakes", "handshakes_limit"))
    return any(listener[limit] is not None and listener[live] >= listener[limit] for live, limit in pairs)


def _place(opening: Opening) -> Address | None:
    """Return where the listener is reached from here; None where that is not known. Raises OSError."""
    if not opening.bound:
        raise OSError(0, "it has no socket")
    found = address_of(opening.bound[0].sock)
    if not isinstance(found, TcpAddress) or ipaddress.ip_address(found.host.partition("%")[0]).is_link_local:
        return None
    return TcpAddress(_REACHED_BY.get(found.host, found.host), found.port)
