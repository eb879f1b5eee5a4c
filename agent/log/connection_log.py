"""The fields of a connection's log line: source, destination, rule, bytes, and how it ended."""

from __future__ import annotations

from agent.connections.records import Finished


def fields(finished: Finished) -> dict[str, str | int | float | None]:
    """Return the fields in the order in which a person reads them; an unknown one is None.

    `peer` is the other end and `own` this one: inbound, the source is the peer; outbound, we are. Bytes are
    those written to each leg: `to_plain` was sent to our app.
    """
    ours, theirs = finished.ours, finished.theirs
    return {
        "id": finished.id,
        "direction": finished.direction.value,
        "reason": finished.reason.value,
        "detail": finished.detail,
        "caller": finished.caller,
        "upstream": finished.upstream,
        "peer": finished.peer,
        "peer_datacenter": None if theirs is None else theirs.id.datacenter,
        "peer_serial": None if theirs is None else theirs.serial,
        "own": None if ours is None else str(ours.id),
        "own_datacenter": None if ours is None else ours.id.datacenter,
        "own_serial": None if ours is None else ours.serial,
        "rule": finished.rule,
        "dialled": finished.dialled,
        "to_plain": finished.to_plain or None,
        "to_tls": finished.to_tls or None,
        "seconds": round(finished.seconds, 3) if finished.opened else None,
        "handshake_seconds": _milliseconds(finished.handshake_seconds),
        "connect_seconds": _milliseconds(finished.connect_seconds),
        "tls": finished.cipher,
    }


def _milliseconds(seconds: float | None) -> float | None:
    """Return seconds to a tenth of a millisecond."""
    return None if seconds is None else round(seconds, 4)
