"""The fields of a connection's log line: source, destination, rule, bytes, times, and how it ended."""

from __future__ import annotations

from agent.connections.records import Finished, address_and_why


def fields(finished: Finished) -> dict[str, str | int | float | None]:
    """Return the fields in the order in which a person reads them; an unknown one is None.

    `peer` is the other end and `own` this one: inbound, the source is the peer; outbound, we are. Bytes are
    those written to each leg: `to_plain` was sent to our app. `queue_seconds` and `first_byte_seconds` begin
    with the accept, `seconds` with the end of the queue.
    """
    ours, theirs = finished.ours, finished.theirs
    address, why = address_and_why(finished.dialled)
    version, _, cipher = finished.cipher.partition(" ")
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
        "intention_id": finished.intention,
        "address": address,
        "why": why,
        "to_plain": finished.to_plain or None,
        "to_tls": finished.to_tls or None,
        "seconds": round(finished.seconds, 3) if finished.opened else None,
        "queue_seconds": _tenths(finished.queue_seconds) or None,
        "handshake_seconds": _tenths(finished.handshake_seconds),
        "connect_seconds": _tenths(finished.connect_seconds),
        "first_byte_seconds": _tenths(finished.first_byte_seconds),
        "tls_version": version,
        "cipher": cipher,
    }


def _tenths(seconds: float | None) -> float | None:
    """Return seconds to a tenth of a millisecond."""
    return None if seconds is None else round(seconds, 4)
