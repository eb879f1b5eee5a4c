"""The values that a data plane serves from, as one text for the next process, and what must hold to use it.

Nothing in it is believed for having been written by us: it is of this service and of this Consul agent, not
too old, and its credentials are proven again as if Consul had answered them. The ACL token is not in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from agent.base.undecodable import UNDECODABLE, UNREADABLE
from agent.config.registration import Registration
from agent.config.settings import IdentityKind, Settings
from agent.policy.intentions import Intentions
from agent.policy.source_intentions import SourceIntentions
from agent.workers.messages import HandedCredentials
from certs.bundle import BundleRejected, TrustBundle, parse_roots
from certs.credentials import CredentialsRejected, prove
from certs.leaf import Leaf, LeafRejected, parse_leaf
from upstreams.endpoints import EndpointSet
from upstreams.spec import Lookup

FORMAT = 1  # raised when a process of another version could misread it


class StateReason(StrEnum):
    """Why the state of the last run is not used."""

    UNREADABLE = "state_unreadable"
    OTHER_SERVICE = "state_other_service"
    TOO_OLD = "state_too_old"
    UNPROVEN = "state_unproven"


class StateUnusable(Exception):
    """The state of the last run is not used."""

    def __init__(self, reason: StateReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEndpoints:
    """The endpoints of one lookup."""

    lookup: Lookup
    poll_interval: float | None
    endpoints: EndpointSet


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The newest values of one run. `at`: when Consul last confirmed the one it confirmed longest ago.

    `confirmed`: when it last confirmed the intentions. `registration`: as Consul answered it, before our
    settings; None if the settings say all of it.
    """

    format: int = FORMAT
    bound_to: str
    at: datetime
    registration: Registration | None
    credentials: HandedCredentials
    intentions: Intentions | None
    confirmed: datetime | None
    source_intentions: SourceIntentions | None
    endpoints: tuple[KnownEndpoints, ...]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(State)


def encode(state: State) -> bytes:
    """Return the state as bytes, the private key among them."""
    return _ENCODER.encode(state)


def decode(encoded: bytes) -> State:
    """Read a state. Raises StateUnusable; its text quotes nothing of a key."""
    try:
        state = _DECODER.decode(encoded)
    except UNDECODABLE as error:
        raise StateUnusable(StateReason.UNREADABLE, type(error).__name__) from None
    if state.format != FORMAT:
        raise StateUnusable(StateReason.UNREADABLE, f"format {state.format}, not {FORMAT}")
    return state


def binding(settings: Settings) -> str:
    """Return whose state it is: the service by its settings, and the Consul agent."""
    assert settings.identity is not None  # `resolve` requires one
    who = f"{settings.identity.value}={getattr(settings, settings.identity.value)}"
    return f"{who} http_addr={settings.http_addr} {settings.namespace or ''}/{settings.partition or ''}"


def proven(state: State, settings: Settings, now: datetime) -> tuple[Leaf, TrustBundle]:
    """Return leaf and roots of a state that may be used at `now`. Raises StateUnusable."""
    ours = binding(settings)
    if state.bound_to != ours:
        raise StateUnusable(StateReason.OTHER_SERVICE, f"it is of {state.bound_to}, this is {ours}")
    service = _service(state, settings)
    check_age(state, settings.state_max_age, now)
    try:
        leaf = parse_leaf(state.credentials.cert_pem, state.credentials.key_pem)
        bundle = parse_roots(state.credentials.roots)
        prove(leaf, bundle, service=service, datacenter=state.credentials.datacenter, at=now)
    except (*UNREADABLE, LeafRejected, BundleRejected, CredentialsRejected) as error:
        raise StateUnusable(StateReason.UNPROVEN, _said(error)) from None  # the cause may quote a key
    return leaf, bundle


def check_age(state: State, max_age: float, now: datetime) -> None:
    """Raise StateUnusable if the state is too old, or of the future."""
    age = (now - state.at).total_seconds()
    since = f"Consul last confirmed it at {state.at.isoformat(timespec='seconds')}"
    if age > max_age:
        raise StateUnusable(StateReason.TOO_OLD, f"{since}, longer ago than state_max_age ({max_age:g} s)")
    if age < 0 and max_age < math.inf:
        raise StateUnusable(StateReason.TOO_OLD, f"{since}, which is in the future: the clock was set back")


def _said(error: Exception) -> str:
    named = isinstance(error, LeafRejected | BundleRejected | CredentialsRejected)
    return str(error) if named else type(error).__name__


def _service(state: State, settings: Settings) -> str:
    """Return the name of the service that the state must be of. Raises StateUnusable."""
    if settings.identity is IdentityKind.SERVICE:
        return settings.service or ""
    if state.registration is None:
        raise StateUnusable(StateReason.UNREADABLE, "it has no registration")
    return state.registration.service
