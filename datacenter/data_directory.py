"""Reads a data directory as a whole before anything uses it, by the shape of what each table holds.

A file that was edited, cut, or written by another program is refused in one line: its name, the document, the
field, what is wrong with it, and the remedy. A shape is a tuple of types, a set of texts, a list of one
shape, a `Keys` or a `Mapped`. Keys that are not named here may be there: a newer release may have
written them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import UnsupportedAlgorithm

from certs.spiffe import TrustDomain
from datacenter.ca.authority import CONFIG, ROOTS, SERIAL, SIGNER
from datacenter.ca.config import ConfigRefused, parse_config
from datacenter.ca.keys import InvalidKey, load_key
from datacenter.ca.trust import root_of_stored
from datacenter.http.forward import DATACENTERS
from datacenter.intentions.entry import KIND as INTENTIONS
from datacenter.queries.definitions import QUERIES
from datacenter.services.central_defaults import CONFIG_ENTRIES
from datacenter.services.check_definitions import STATUSES
from datacenter.state.database import damaged
from datacenter.state.inventory import CHECKS, DEFINITIONS, NODES, SERVICES
from datacenter.state.store import Document, Row, Store

T = TypeVar("T")
R = TypeVar("R")


class Misshapen(ValueError):
    """A document is not as the datacenter writes it; the text names it, the field and the mistake."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """An object with keys of a client's own."""

    of: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """An object with these keys."""

    needed: Mapping[str, Shape]
    optional: Mapping[str, Shape] = field(default_factory=dict)


Shape = tuple[type, ...] | frozenset[str] | Sequence["Shape"] | Keys | Mapped

_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", int: "a whole number"}
_NAMES |= {float: "a number", type(None): "null"}
_TEXT, _WHOLE, _NUMBER, _FLAG = (str,), (int,), (int, float), (bool,)
_STATUS, _KIND = frozenset(STATUSES), frozenset({"alias", "http", "tcp", "ttl"})
_MOST_WHOLE = 2**160  # a serial number has at most 20 octets (RFC 5280 section 4.1.2.2)
_MOST_SECONDS = 2**63 / 1e9  # Go counts nanoseconds in 64 bits
_TEXT_OR_NULL, _TEXTS, _ANY_OBJECT = (str, type(None)), [(str,)], (dict,)


def _all(shape: Shape, *names: str) -> dict[str, Shape]:
    return dict.fromkeys(names, shape)


_GATEWAY = Keys(needed={}, optional={"Mode": _TEXT})
_UPSTREAM = Keys(
    needed=_all(_TEXT, "DestinationType", "DestinationName"),
    optional={
        **_all(_TEXT, "DestinationNamespace", "Datacenter", "LocalBindAddress"),
        **_all(_TEXT, "LocalBindSocketPath", "LocalBindSocketMode"),
        "LocalBindPort": _WHOLE,
        "Config": _ANY_OBJECT,
        "MeshGateway": _GATEWAY,
    },
)
_PROXY = Keys(
    needed={"Upstreams": [_UPSTREAM]},
    optional={
        **_all(_TEXT, "DestinationServiceName", "DestinationServiceID", "LocalServiceAddress"),
        **_all(_TEXT, "LocalServiceSocketPath", "Mode"),
        **_all(_ANY_OBJECT, "Config", "Expose", "TransparentProxy"),
        "LocalServicePort": _WHOLE,
        "MeshGateway": _GATEWAY,
    },
)
_SERVICE = Keys(
    needed={
        **_all(_TEXT, "Node", "Kind", "ID", "Service", "Address", "SocketPath"),
        **_all(_FLAG, "EnableTagOverride", "Native", "Sidecar"),
        "Tags": _TEXTS,
        "TaggedAddresses": Mapped(Keys(needed={"Address": _TEXT, "Port": _WHOLE})),
        "Meta": Mapped(_TEXT),
        "Port": _WHOLE,
        "Weights": Keys(needed=_all(_WHOLE, "Passing", "Warning")),
        "Proxy": _PROXY,
    }
)
_CHECK = Keys(
    needed={
        **_all(_TEXT, "Node", "CheckID", "Name", "Notes", "Output", "ServiceID", "ServiceName"),
        **_all(_TEXT, "Type", "Interval", "Timeout"),
        "Status": _STATUS,
        "ServiceTags": _TEXTS,
        "ExposedPort": _WHOLE,
        "Definition": _ANY_OBJECT,
    }
)
_DEFINITION = Keys(
    needed={
        **_all(_TEXT, "CheckID", "ServiceID", "TCP", "HTTP", "Method", "Body"),
        **_all(_TEXT, "AliasNode", "AliasService"),
        **_all(_NUMBER, "TTL", "Interval", "Timeout", "DeregisterCriticalServiceAfter"),
        **_all(_WHOLE, "SuccessBeforePassing", "FailuresBeforeCritical"),
        "Kind": _KIND,
        "Header": Mapped(_TEXTS),
    }
)
_NODE = Keys(
    needed={**_all(_TEXT, "ID", "Node", "Address"), **_all(Mapped(_TEXT), "TaggedAddresses", "Meta")}
)
_ROOT = Keys(
    needed={
        **_all(_TEXT, "ID", "Name", "SigningKeyID", "ExternalTrustDomain", "NotBefore", "NotAfter"),
        **_all(_TEXT, "RootCert", "PrivateKeyType"),
        **_all(_WHOLE, "SerialNumber", "PrivateKeyBits"),
        "IntermediateCerts": (list, type(None)),
        "Active": _FLAG,
        "RotatedOutAt": _TEXT_OR_NULL,
    }
)
_SOURCE = Keys(
    needed={"Name": _TEXT, "Precedence": _WHOLE, "Type": _TEXT},
    optional={"Action": _TEXT, "Permissions": (list,)},
)
_ENTRY = Keys(
    needed=_all(_TEXT, "Kind", "Name"),
    optional={
        "Sources": [_SOURCE],
        **_all(_ANY_OBJECT, "Config", "TransparentProxy", "MeshGateway", "Expose", "UpstreamConfig"),
        "Protocol": _TEXT,
        "Meta": Mapped(_TEXT),
    },
)
_QUERY_SERVICE = Keys(
    needed={
        **_all(_TEXT, "Service", "Near"),
        **_all(_FLAG, "OnlyPassing", "Connect"),
        **_all((list, type(None)), "IgnoreCheckIDs", "Tags"),
        **_all((dict, type(None)), "NodeMeta", "ServiceMeta"),
        "Failover": Keys(needed={"NearestN": _WHOLE, "Datacenters": (list, type(None))}),
    }
)
_QUERY = Keys(
    needed={
        **_all(_TEXT, "ID", "Name", "Session", "Token"),
        "Template": Keys(needed={**_all(_TEXT, "Type", "Regexp"), "RemoveEmptyTags": _FLAG}),
        "Service": _QUERY_SERVICE,
        "DNS": Keys(needed={"TTL": _TEXT}),
    }
)
_OLDER = Keys(needed={"Seconds": _NUMBER, "Until": _TEXT})
_CONFIG = Keys(
    needed={"Provider": _TEXT, "Config": _ANY_OBJECT, "LeafTTLSetting": _NUMBER},
    optional={"ForceWithoutCrossSigning": _FLAG, "Lingering": _ANY_OBJECT},
)
_FEDERATION = Keys(
    needed={}, optional={**_all(_TEXT, "State", "Detail", "Since"), "IDs": _TEXTS, "LeafTTL": _NUMBER}
)
_DATACENTER = Keys(
    needed={"Address": _TEXT}, optional={"LeafTTL": _NUMBER, "RootID": _TEXT, "Signed": _TEXTS}
)

TABLES: Mapping[str, Shape] = {
    NODES: _NODE,
    SERVICES: _SERVICE,
    CHECKS: _CHECK,
    DEFINITIONS: _DEFINITION,
    CONFIG_ENTRIES: _ENTRY,
    QUERIES: _QUERY,
    ROOTS: _ROOT,
    CONFIG: _CONFIG,
    SERIAL: Keys(needed={"Serial": _WHOLE}),
    DATACENTERS: _DATACENTER,
    "federation": _FEDERATION,
    "agent": Keys(needed=_all(_TEXT, "ID", "Name")),
}
PRIVATE: Mapping[str, Shape] = {
    SIGNER: Keys(needed={"PrivateKey": _TEXT}),
    "datacenter": Keys(needed={"Name": _TEXT}),
}


# The key of a document, by what it holds.
_KEYS: Mapping[str, Callable[[Document], str]] = {
    NODES: lambda node: str(node["Node"]),
    SERVICES: lambda service: f"{service['Node']}/{service['ID']}",
    CHECKS: lambda check: f"{check['Node']}/{check['CheckID']}",
    DEFINITIONS: lambda definition: str(definition["CheckID"]),
    QUERIES: lambda query: str(query["ID"]),
    ROOTS: lambda root: str(root["ID"]),
}


def require_readable(path: Path, store: Store) -> None:
    """Read every document of the store. Raises StoreUnavailable in one line for the first that is damaged."""
    try:
        for table, shape in TABLES.items():
            for row in store.table(table).rows():
                _check_row(table, row, shape)
        for key, shape in PRIVATE.items():
            if (document := store.private(key)) is not None:
                check(f"private {key!r}", document, shape)
        _check_nodes(store)
        _check_intentions(store)
        _check_authority(store)
    except Misshapen as error:
        raise damaged(path, error) from error


def check(where: str, value: object, shape: Shape, at: str = "") -> None:
    """Check a value by its shape; `at` is the field. Raises Misshapen."""
    wanted = _types(shape)
    if type(value) not in wanted:
        text = " or ".join(_NAMES[each] for each in wanted)
        raise Misshapen(f"{where}: {at or 'the document'} is {_NAMES[type(value)]}, not {text}")
    match shape, value:
        case list(), list():
            for number, each in enumerate(value):
                check(where, each, shape[0], f"{at}[{number}]")
        case Mapped(), dict():
            for key, each in value.items():
                check(where, each, shape.of, f"{at}[{key!r}]")
        case Keys(), dict():
            _check_keys(where, value, shape, at)
        case frozenset(), str() if value not in shape:
            raise Misshapen(f"{where}: {at} is {value!r}, none of {', '.join(sorted(shape))}")
        case tuple(), int() | float():
            _check_number(where, value, shape, at)


def _check_number(where: str, value: float, shape: tuple[type, ...], at: str) -> None:
    if shape == _NUMBER and not 0 <= value <= _MOST_SECONDS:
        raise Misshapen(f"{where}: {at} is {value}, no number of seconds")
    if shape == _WHOLE and abs(value) >= _MOST_WHOLE:
        raise Misshapen(f"{where}: {at} is a number of more than 20 octets")


def _check_row(table: str, row: Row, shape: Shape) -> None:
    where = f"{table} {row.key!r}"
    check(where, row.value, shape)
    check(where, row.create_index, _WHOLE, "its index")
    check(where, row.modify_index, _WHOLE, "its index")
    if table in _KEYS and (key := _KEYS[table](row.value)) != row.key:
        raise Misshapen(f"{where}: its fields are those of {key!r}")


def _check_nodes(store: Store) -> None:
    for table in (SERVICES, CHECKS):
        for row in store.table(table).rows():
            if store.table(NODES).get(row.value["Node"]) is None:
                raise Misshapen(f"{table} {row.key!r}: Node {row.value['Node']!r} is not among the nodes")


def _check_intentions(store: Store) -> None:
    for row in store.table(CONFIG_ENTRIES).rows():
        if row.value["Kind"] == INTENTIONS:
            check(f"{CONFIG_ENTRIES} {row.key!r}", row.value, Keys(needed={"Sources": [_SOURCE]}))
            if "" in {row.value["Name"], *(source["Name"] for source in row.value["Sources"])}:
                raise Misshapen(f"{CONFIG_ENTRIES} {row.key!r}: a Name is empty")


def _check_authority(store: Store) -> None:
    rows, signer = store.table(ROOTS).rows(), store.private(SIGNER)
    roots = [_read(f"{ROOTS} {row.key!r}", root_of_stored, row.value) for row in rows]
    for row in rows:
        domain = f"{row.value['ExternalTrustDomain']}.consul"
        _read(f"{ROOTS} {row.key!r}: ExternalTrustDomain", TrustDomain.parse, domain)
    active = [root for root in roots if root.active]
    if roots and len(active) != 1:
        raise Misshapen(f"{ROOTS}: Active is true of {len(active)} roots, not of one")
    if active and signer is None:
        raise Misshapen(f"private {SIGNER!r} is missing, the key of the active root")
    if active and signer is not None:
        where = f"private {SIGNER!r}: PrivateKey"
        key = _read(where, load_key, signer["PrivateKey"])
        if key.public_key() != active[0].signing_certificate.public_key():
            raise Misshapen(f"{where} is not that of the certificate with the active root's SigningKeyID")
    last = store.table(SERIAL).get("last")
    if last is not None and last.value["Serial"] < 0:
        raise Misshapen(f"{SERIAL} 'last': Serial is {last.value['Serial']}, less than 0")
    for row in store.table(CONFIG).rows():
        _read(f"{CONFIG} {row.key!r}: Config", parse_config, row.value)
        if older := row.value.get("Lingering"):
            check(f"{CONFIG} {row.key!r}", older, _OLDER, "Lingering")
            _read(f"{CONFIG} {row.key!r}: Lingering.Until", _moment, older["Until"])


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment


def _read(where: str, read: Callable[[T], R], value: T) -> R:
    """Return what `read` makes of a value. Raises Misshapen for what it refuses."""
    try:
        return read(value)
    except (ValueError, TypeError, ConfigRefused, InvalidKey, UnsupportedAlgorithm) as error:
        raise Misshapen(f"{where}: {str(error) or type(error).__name__}") from error


def _check_keys(where: str, value: Document, shape: Keys, at: str) -> None:
    for key in sorted(shape.needed.keys() - value.keys()):
        raise Misshapen(f"{where}: {_dotted(at, key)} is missing")
    for key, each in {**shape.needed, **shape.optional}.items():
        if key in value:
            check(where, value[key], each, _dotted(at, key))


def _types(shape: Shape) -> tuple[type, ...]:
    if isinstance(shape, tuple):
        return shape
    if isinstance(shape, frozenset):
        return (str,)
    return (list,) if isinstance(shape, list) else (dict,)


def _dotted(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key
