"""Whether the agent can serve, and if not, what is missing: one text per piece, for a person to read."""

from __future__ import annotations

from agent.base.phase import Phase
from agent.consul.api import ConsulError, ConsulReason
from agent.consul.watch import WatchStatus
from agent.parts import Parts

GONE_GRACE = 60.0  # seconds; a service registered anew is gone for a moment


def missing(parts: Parts) -> list[str]:
    """What keeps the agent from serving; empty when it is ready."""
    if parts.phase is Phase.DRAINING:
        return ["draining"]
    registration = parts.placement.value
    if registration is None:
        return [f"registration: {_why(parts.start)}"]
    pieces = [*_credentials(parts), *_registration(parts)]
    if registration.public_bind is not None:
        pieces += _intentions(parts)
    if parts.listeners is not None:
        pieces += [f"listener: {problem}" for problem in parts.listeners.problems]
    if parts.crew is not None:
        pieces += parts.crew.missing()
    if parts.phase is Phase.STARTING and not pieces:
        pieces.append("listeners: not open yet")
    return pieces


def _credentials(parts: Parts) -> list[str]:
    contexts = parts.contexts.value
    if contexts is not None:
        leaf = contexts.credentials.leaf
        expired = parts.clock() > leaf.not_after
        return [f"credentials: the leaf expired at {leaf.not_after.isoformat()}"] if expired else []
    rotation = parts.rotation
    if rotation is None:
        return ["credentials: not asked for yet"]
    if rotation.status.rejected_reason:
        return [f"credentials: {rotation.status.rejected_reason}: {rotation.status.rejected_detail}"]
    for watch in (rotation.roots_watch, rotation.leaf_watch):
        if watch.status.failing is not None or not watch.status.answers:
            return [f"credentials: {watch.name}: {_why(watch.status)}"]
    return ["credentials: not proven yet"]


def _intentions(parts: Parts) -> list[str]:
    intentions = parts.intentions.value
    status = parts.intentions_watch.status if parts.intentions_watch else None
    if intentions is None:
        return [f"intentions: {_why(status)}"]
    if intentions.too_old and intentions.good_until is not None:
        since = intentions.good_until.isoformat()
        return [f"intentions: too old since {since} (intentions_max_age): {_why(status)}"]
    return []


def _registration(parts: Parts) -> list[str]:
    watch = parts.registration_watch
    since = watch.status.failing_since if watch is not None else None
    if watch is None or since is None or not is_gone(watch.status):
        return []
    gone = watch.status.failing_seconds > GONE_GRACE
    return [f"registration: Consul has not known {watch.name} since {since.isoformat()}"] if gone else []


def is_gone(status: WatchStatus) -> bool:
    """Whether Consul says that what is watched does not exist."""
    failing = status.failing
    return isinstance(failing, ConsulError) and failing.reason is ConsulReason.NOT_FOUND


def _why(status: WatchStatus | None) -> str:
    if status is None or status.failing is None:
        return "no answer yet"
    return str(status.failing)
