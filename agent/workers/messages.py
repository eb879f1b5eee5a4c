"""What the control process tells its workers, and how it is written: the newest values, one frame each.

A frame is MessagePack: the name of the order, and its value. The classes of the values are the schema, so a
field of theirs crosses without a second description of it, and what is read back can be nothing but what they
describe. What a value derives from its fields (tiers, compiled patterns) is no field, and is derived anew.
Upwards, from processes that talk to the network, comes JSON with a schema (`agent.workers.reports`).

The key of the leaf crosses here and nowhere else: not in a file, an argument or a variable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cache
from pathlib import PurePath
from typing import Any, get_args

import msgspec
import trio

from agent.base.clock import monotonic
from agent.base.freshness import Confirmation
from agent.base.undecodable import UNDECODABLE
from agent.config.options import LogLevel
from agent.config.parsers import ConsulAddress
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.net.listeners import ListenerKey
from agent.policy.authorize import Policy
from agent.policy.deny_list import DenyList
from agent.policy.source_intentions import SourceIntentions
from certs.bundle import TrustBundle, parse_roots
from certs.contexts import Contexts, build_contexts, rehearse
from certs.credentials import Credentials, prove
from certs.leaf import handed_on, parse_leaf
from upstreams.endpoints import EndpointSet
from upstreams.spec import Lookup

FORMAT = 6  # of the frames; changed when a worker of another version could misread them


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The first frame: which worker it is of how many, and what the agent was told at start."""

    format: int = FORMAT
    version: str
    slot: int
    workers: int
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedCredentials:
    """Credentials that the control process has proven, as Consul's answers were, and when that was.

    `unfit`: the roots do not vouch for the leaf any more, and why.
    """

    cert_pem: str
    key_pem: str = field(repr=False)
    roots: Mapping[str, Any]
    service: str
    datacenter: str | None
    at: datetime
    generation: int
    unfit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedConfirmation:
    """When Consul last confirmed the intentions: by the wall clock, and by one that all processes share."""

    at: datetime
    monotonic: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedEndpoints:
    """Where one lookup's instances are; None as long as nobody knows. `number` is for asking again."""

    number: int
    lookup: Lookup
    poll_interval: float | None
    polled: bool
    endpoints: EndpointSet | None
    failing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedSockets:
    """Listening sockets of one listener, in the frame's descriptors; the former ones are over."""

    key: ListenerKey
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A listener is closed."""

    key: ListenerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatched:
    """Endpoints are wanted no more."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbosity:
    """How much is to be logged from now on."""

    level: LogLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Say how it goes, when everything said before is carried out. `rows`: each connection too."""

    number: int
    rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """End now: cut what lives, for that reason, and say how it went."""


Order = (
    Welcome
    | DenyList
    | Registration
    | HandedCredentials
    | Policy
    | HandedConfirmation
    | SourceIntentions
    | HandedEndpoints
    | HandedSockets
    | Withdrawn
    | Unwatched
    | Verbosity
    | Report
    | Finish
)


class NotAnOrder(Exception):
    """A frame that is none of the orders. The text quotes nothing of a key."""


class _Frame(msgspec.Struct, array_like=True):
    order: str
    value: msgspec.Raw


_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in get_args(Order)}
_FRAMES = msgspec.msgpack.Decoder(_Frame)


def encode(order: Order) -> bytes:
    """As a frame."""
    return msgspec.msgpack.encode((type(order).__name__, order), enc_hook=_path_text)


def decode(frame: bytes) -> Order:
    """The order in a frame; raise NotAnOrder."""
    try:
        framed = _FRAMES.decode(frame)
        return _decoder(framed.order).decode(framed.value)
    except (*UNDECODABLE, KeyError) as error:
        raise NotAnOrder(str(error)) from error


@cache
def _decoder(name: str) -> msgspec.msgpack.Decoder[Order]:
    """The reader of one kind of order, made when the first one comes."""
    return msgspec.msgpack.Decoder(_KINDS[name], dec_hook=_path)


def _path_text(value: object) -> str:
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} crosses to no other process")


def _path(kind: type, value: object) -> object:
    if issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise TypeError(f"{kind.__name__} comes from no other process")


def without_secrets(settings: Settings) -> Settings:
    """The settings as workers need them, who never talk to Consul."""
    return replace(
        settings,
        token=None,
        token_file=None,
        http_auth=None,
        http_addr=ConsulAddress(host="127.0.0.1", port=8500),
        ca_file=None,
        ca_path=None,
        client_cert=None,
        client_key=None,
    )


def hand_on(contexts: Contexts, service: str, datacenter: str | None, at: datetime) -> HandedCredentials:
    """Credentials in force, to be handed to a worker."""
    cert_pem, key_pem = handed_on(contexts.credentials.leaf)
    return HandedCredentials(
        cert_pem=cert_pem,
        key_pem=key_pem,
        roots=roots_answer_of(contexts.credentials.bundle),
        service=service,
        datacenter=datacenter,
        at=at,
        generation=contexts.generation,
        unfit=contexts.credentials.unfit,
    )


def taken_up(handed: HandedCredentials) -> Contexts:
    """The same in a worker, proven once more: one way leads to a TLS context, everywhere."""
    leaf, bundle = parse_leaf(handed.cert_pem, handed.key_pem), parse_roots(handed.roots)
    if handed.unfit:
        return build_contexts(Credentials(leaf=leaf, bundle=bundle, unfit=handed.unfit), handed.generation)
    proven = prove(leaf, bundle, service=handed.service, datacenter=handed.datacenter, at=handed.at)
    return rehearse(build_contexts(proven, handed.generation))


def hand_on_confirmation(confirmation: Confirmation) -> HandedConfirmation:
    """A confirmation, to be handed to a worker, whose trio counts from another moment."""
    ago = trio.current_time() - confirmation.moment
    return HandedConfirmation(at=confirmation.at, monotonic=monotonic() - ago)


def confirmation_of(handed: HandedConfirmation) -> Confirmation:
    """The same in a worker, however long the frame was on its way."""
    ago = monotonic() - handed.monotonic
    return Confirmation(at=handed.at, moment=trio.current_time() - ago)


def roots_answer_of(bundle: TrustBundle) -> dict[str, object]:
    """The bundle in the form of `/v1/agent/connect/ca/roots`."""
    roots = [
        {
            "ID": root.id,
            "Name": root.name,
            "SerialNumber": root.serial,
            "SigningKeyID": root.signing_key_id,
            "RootCert": root.pem,
            "Active": root.active,
        }
        for root in bundle.roots
    ]
    return {"TrustDomain": str(bundle.trust_domain), "Roots": roots}
