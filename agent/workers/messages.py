"""What the control process tells its workers, and how it is written: the newest values, one frame each.

Two languages, for trust goes one way. Downwards values of our own classes are pickled: every field of theirs
comes through without a second description of it, and the pair of sockets has no other writer than the
control process. What is read back may name nothing but classes of ours and a few of the standard library's
values. Upwards, from processes that talk to the network, comes JSON with a schema (`agent.workers.reports`),
which can make nothing but what it describes.

The key of the leaf crosses here and nowhere else: not in a file, an argument or a variable.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from agent.config.options import LogLevel
from agent.config.parsers import ConsulAddress
from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.policy.deny_list import DenyList
from agent.policy.intentions import Intentions
from agent.policy.regex import Pattern, compile_pattern
from agent.policy.source_intentions import Outgoing
from certs.bundle import TrustBundle, parse_roots
from certs.contexts import Contexts, build_contexts
from certs.credentials import prove
from certs.leaf import handed_on, parse_leaf
from upstreams.endpoints import EndpointSet
from upstreams.spec import Lookup

FORMAT = 3  # of the frames; changed when a worker of another version could misread them

_ROOMS = ("agent", "certs", "upstreams")
_VALUES = frozenset(
    {("datetime", "datetime"), ("datetime", "timezone"), ("datetime", "timedelta"), ("pathlib", "PosixPath")}
)


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
    """Credentials that the control process has proven, as Consul's answers were, and when that was."""

    cert_pem: str
    key_pem: str = field(repr=False)
    roots: Mapping[str, object]
    service: str
    datacenter: str | None
    at: datetime
    generation: int


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

    key: Hashable
    purpose: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A listener is closed, or endpoints are wanted no more: the key, or the number."""

    key: Hashable = None
    number: int | None = None


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
    | Intentions
    | Outgoing
    | HandedEndpoints
    | HandedSockets
    | Withdrawn
    | Verbosity
    | Report
    | Finish
)


class NotAnOrder(Exception):
    """A frame that names what no order has."""


def encode(order: Order) -> bytes:
    """As a frame."""
    buffer = io.BytesIO()
    _Writer(buffer, protocol=5).dump(order)
    return buffer.getvalue()


def decode(frame: bytes) -> Order:
    """The order in a frame; raise NotAnOrder."""
    try:
        order = _Reader(io.BytesIO(frame)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, ImportError, IndexError, TypeError) as error:
        raise NotAnOrder(str(error)) from error
    if not isinstance(order, Order):
        raise NotAnOrder(f"{type(order).__name__} is no order")
    return order


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
        roots=_answer(contexts.credentials.bundle),
        service=service,
        datacenter=datacenter,
        at=at,
        generation=contexts.generation,
    )


def taken_up(handed: HandedCredentials) -> Contexts:
    """The same in a worker, proven once more: one way leads to a TLS context, everywhere."""
    leaf, bundle = parse_leaf(handed.cert_pem, handed.key_pem), parse_roots(handed.roots)
    proven = prove(leaf, bundle, service=handed.service, datacenter=handed.datacenter, at=handed.at)
    return build_contexts(proven, handed.generation)


def _answer(bundle: TrustBundle) -> dict[str, object]:
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


class _Writer(pickle.Pickler):
    def reducer_override(self, value: object) -> Any:  # noqa: ANN401 - as pickle types it
        if isinstance(value, Pattern):  # holds the engine's own object
            return _pattern, (value.text, value.ignore_case)
        if isinstance(value, Path):
            return type(value), (str(value),)
        return NotImplemented


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        found = (module, name)
        if module.partition(".")[0] not in _ROOMS and found not in _VALUES:
            raise pickle.UnpicklingError(f"{module}.{name} is in no order")
        return super().find_class(module, name)


def _pattern(text: str, ignore_case: bool) -> Pattern:
    return compile_pattern(text, ignore_case=ignore_case)
