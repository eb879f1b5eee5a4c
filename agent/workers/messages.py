"""The messages from the control process to its workers: the newest values, one frame each.

A frame is MessagePack: the name of the message's class, and its value. The classes of the values are the
schema, so that a new field needs no second description, and a decoded value can only be one that they
describe. What a value derives from its fields (tiers, compiled patterns) is not sent, but derived anew.
Messages in the other direction, from processes that talk to the network, are JSON with a schema
(`agent.workers.reports`).

The leaf's private key crosses between processes here and nowhere else: in no file, argument or variable.
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
from agent.policy.source_intentions import OwnIntentions, SourceIntentions
from certs.bundle import TrustBundle, parse_roots
from certs.contexts import Contexts, build_contexts, rehearse
from certs.credentials import Credentials, prove
from certs.leaf import handed_on, parse_leaf
from upstreams.endpoints import EndpointSet
from upstreams.spec import Lookup

FORMAT = 11  # of the frames; raised when a worker of another version could misread them


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcome:
    """The first frame: the worker's number, how many there are, and the agent's settings."""

    format: int = FORMAT
    version: str
    slot: int
    workers: int
    settings: Settings
    beat: str = ""  # the SNI of our own watchdog


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedCredentials:
    """Credentials that the control process has proven, as Consul answered them, and the time of the proof.

    `unfit`: why the roots no longer vouch for the leaf; empty while they do.
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
    """The endpoints of one lookup; None before the first answer. `number` identifies it in `AskedAgain`."""

    number: int
    lookup: Lookup
    poll_interval: float | None
    polled: bool
    endpoints: EndpointSet | None
    failing: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedSockets:
    """The listening sockets of one listener, in the frame's descriptors; they replace earlier ones."""

    key: ListenerKey
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A listener is closed."""

    key: ListenerKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Unwatched:
    """The endpoints of that number will not be updated any more."""

    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verbosity:
    """The log level from now on."""

    level: LogLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Ask for a report once all messages before are applied. `rows`: each connection as well."""

    number: int
    rows: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """No more callers of the mesh are to come: tunnels are retired, so that their clients open others.

    `replaced`: the next process accepts from the same queues.
    """

    replaced: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """Ask the worker to end: close every connection, and report how many were cut."""


Message = (
    Welcome
    | DenyList
    | Registration
    | HandedCredentials
    | Policy
    | HandedConfirmation
    | SourceIntentions
    | OwnIntentions
    | HandedEndpoints
    | HandedSockets
    | Withdrawn
    | Unwatched
    | Verbosity
    | Report
    | Leaving
    | Finish
)


class NotAMessage(Exception):
    """A frame that is none of the messages. The text quotes nothing of a key."""


class _Frame(msgspec.Struct, array_like=True):
    message: str
    value: msgspec.Raw


_KINDS: Mapping[str, Any] = {kind.__name__: kind for kind in get_args(Message)}
_FRAMES = msgspec.msgpack.Decoder(_Frame)


def encode(message: Message) -> bytes:
    """Return the message as a frame."""
    return msgspec.msgpack.encode((type(message).__name__, message), enc_hook=_path_text)


def decode(frame: bytes) -> Message:
    """Return the message in a frame. Raises NotAMessage."""
    try:
        framed = _FRAMES.decode(frame)
        return _decoder(framed.message).decode(framed.value)
    except (*UNDECODABLE, KeyError) as error:
        raise NotAMessage(str(error)) from error


@cache
def _decoder(name: str) -> msgspec.msgpack.Decoder[Message]:
    """Return the decoder of one class of messages, made at its first use."""
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
    """Return the settings without what only Consul's client needs, since workers never talk to Consul."""
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
        state_key_file=None,
    )


def hand_on(contexts: Contexts, service: str, datacenter: str | None, at: datetime) -> HandedCredentials:
    """Return the credentials in force as a message for a worker."""
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
    """Return a worker's TLS contexts; the credentials are proven again, as before every TLS context."""
    leaf, bundle = parse_leaf(handed.cert_pem, handed.key_pem), parse_roots(handed.roots)
    if handed.unfit:
        return build_contexts(Credentials(leaf=leaf, bundle=bundle, unfit=handed.unfit), handed.generation)
    proven = prove(leaf, bundle, service=handed.service, datacenter=handed.datacenter, at=handed.at)
    return rehearse(build_contexts(proven, handed.generation))


def hand_on_confirmation(confirmation: Confirmation) -> HandedConfirmation:
    """Return a confirmation as a message for a worker, whose trio clock starts at another moment."""
    ago = trio.current_time() - confirmation.moment
    return HandedConfirmation(at=confirmation.at, monotonic=monotonic() - ago)


def confirmation_of(handed: HandedConfirmation) -> Confirmation:
    """Return the confirmation by the worker's own trio clock, however long the frame was on its way."""
    ago = monotonic() - handed.monotonic
    return Confirmation(at=handed.at, moment=trio.current_time() - ago)


def roots_answer_of(bundle: TrustBundle) -> dict[str, object]:
    """Return the bundle in the form of an answer of /v1/agent/connect/ca/roots."""
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
