"""An upstream: the destination that the workload wants to reach, and its local bind.

As a flag: `[prepared_query:]NAME[@DC]:[ADDR:]PORT`. ADDR is an IPv4 address, an IPv6 address in brackets or a
host name, by default 127.0.0.1; `unix:/path` replaces ADDR and PORT. The local bind identifies an upstream:
there is at most one upstream for each bind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import msgspec

from upstreams.ejection import EAGER, EjectionPolicy

LOOPBACK = "127.0.0.1"
CONNECT_TIMEOUT = 5.0  # seconds; Envoy's default (docs/consul-api.md#config-keys)
DEADLINE = 15.0  # seconds for all candidates together, before the first byte
HOLD = 30.0  # seconds a better target must live before traffic goes back to it
MOST_WARM = 64  # warm connections; each is a connection at the far side too
WARM_IDLE = 45.0  # seconds a warm one is kept: less than the minute after which many servers close

_QUERY_PREFIX = "prepared_query:"
_QUERY_LIKE = re.compile(r"prepared[-_]?quer(y|ies)", re.IGNORECASE)
_UNIX_PREFIX = "unix:"
_EXAMPLE = "write [prepared_query:]NAME[@DC]:[ADDR:]PORT, as in db@dc2:9191"
_NAME = re.compile(r"[^\s/@:]+")
_HOST_NAME = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")


class InvalidUpstream(ValueError):
    """A SPEC that cannot be read: `field`, its `value`, and the `remedy`."""

    def __init__(self, field: str, value: str, remedy: str) -> None:
        super().__init__(f"upstream {field} {value!r}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class ServiceDestination(msgspec.Struct, frozen=True, order=True, tag=True):
    """A service by name, in `datacenter` or, for None, in our own.

    `filter` is a Consul filter expression that instances must match. `near` is a node's name or `_agent`: the
    instance nearest to it by network coordinates gets every connection while it is healthy.
    """

    name: str
    datacenter: str | None = None
    filter: str = ""
    near: str = ""

    def __str__(self) -> str:
        where = self.name if self.datacenter is None else f"{self.name}@{self.datacenter}"
        return where + (f" [{self.filter}]" if self.filter else "") + _near(self.near)


class QueryDestination(msgspec.Struct, frozen=True, order=True, tag=True):
    """A prepared query by name or id, executed in our own datacenter or in `datacenter`."""

    name: str
    datacenter: str | None = None
    near: str = ""  # as for a service

    def __str__(self) -> str:
        where = "" if self.datacenter is None else f"@{self.datacenter}"
        return f"{_QUERY_PREFIX}{self.name}{where}{_near(self.near)}"


def _near(node: str) -> str:
    return f" near {node}" if node else ""


class LocalBind(msgspec.Struct, frozen=True, order=True, tag=True):
    """A TCP address of this host; `port` is 1 to 65535."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class SocketBind(msgspec.Struct, frozen=True, order=True, tag=True):
    """A unix socket; `mode` is its permission bits, None for the process's default."""

    path: str
    mode: int | None = None

    def __str__(self) -> str:
        return f"{_UNIX_PREFIX}{self.path}"


class Gateways(msgspec.Struct, frozen=True, order=True, tag=True):
    """The mesh gateways of `datacenter`, None for our own.

    They are a hop to an upstream, never one itself.
    """

    datacenter: str | None = None

    def __str__(self) -> str:
        return "mesh gateways" if self.datacenter is None else f"mesh gateways@{self.datacenter}"


Destination: TypeAlias = ServiceDestination | QueryDestination
Lookup: TypeAlias = Destination | Gateways  # what endpoints can be looked up for
Bind: TypeAlias = LocalBind | SocketBind


class MeshGatewayMode(StrEnum):
    """How a connection crosses to another datacenter."""

    UNSET = ""  # as the proxy's registration says
    NONE = "none"  # directly to the instance
    LOCAL = "local"  # through a gateway of our own datacenter
    REMOTE = "remote"  # through a gateway of the instance's datacenter


class WanMode(StrEnum):
    """When WAN addresses are dialled."""

    AUTO = "auto"  # for endpoints in another datacenter
    PREFER = "prefer"  # for every endpoint that has one
    REQUIRE = "require"  # as auto; an endpoint of another datacenter without one is not dialled
    NEVER = "never"  # one flat network: LAN addresses everywhere


class TunnelMode(StrEnum):
    """Whether connections travel as streams of a tunnel."""

    AUTO = "auto"  # to endpoints whose registration offers it
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One destination behind one local bind. Times in seconds; a limit of None means none.

    `failover` are the destinations to go to, in order, when this one is dead. With None for `wan` or `tunnel`
    the agent's setting applies.
    """

    destination: Destination
    bind: Bind
    connect_timeout: float = CONNECT_TIMEOUT
    deadline: float = DEADLINE
    max_connections: int | None = None
    max_pending: int | None = None  # connections waiting to be served
    poll_interval: float | None = None  # prepared queries only; None: by the query's TTL
    protocol: str = "tcp"
    mesh_gateway: MeshGatewayMode = MeshGatewayMode.UNSET
    wan: WanMode | None = None
    ejection: EjectionPolicy = EAGER
    failover: tuple[Destination, ...] = ()
    hold: float = HOLD
    warm: int = 0  # connections kept ready after their handshake
    warm_idle: float = WARM_IDLE
    tunnel: TunnelMode | None = None

    @property
    def targets(self) -> tuple[Destination, ...]:
        """The targets, the preferred one first."""
        return (self.destination, *self.failover)

    def __str__(self) -> str:
        return f"{self.destination} on {self.bind}"


def parse_upstream_flag(text: str) -> Upstream:
    """Read one SPEC. Raises InvalidUpstream."""
    is_query = text.startswith(_QUERY_PREFIX)
    target, separator, bind = text.removeprefix(_QUERY_PREFIX).partition(":")
    if not separator or not bind:
        raise InvalidUpstream("spec", text, f"there is no port; {_EXAMPLE}")
    name, at, datacenter = target.partition("@")
    if _QUERY_LIKE.fullmatch(name):  # a service of that name would be bound to the query's name
        raise InvalidUpstream("spec", text, f"a prepared query begins with {_QUERY_PREFIX}; {_EXAMPLE}")
    _require_name("name", name, text)
    if at:
        _require_name("datacenter", datacenter, text)
    kind = QueryDestination if is_query else ServiceDestination
    return Upstream(destination=kind(name, datacenter or None), bind=parse_bind(bind))


def parse_bind(text: str) -> Bind:
    """Read `[ADDR:]PORT` or `unix:/path`. Raises InvalidUpstream."""
    if text.startswith(_UNIX_PREFIX):
        path = text.removeprefix(_UNIX_PREFIX)
        if not path.startswith("/") or path.endswith("/") or "\0" in path:
            raise InvalidUpstream(
                "socket", path, "give the absolute path of a socket, as in unix:/run/db.sock"
            )
        return SocketBind(path)
    host, separator, port = text.rpartition(":")
    if separator and not host:
        raise InvalidUpstream("address", text, f"the address before the port is empty; {_EXAMPLE}")
    return LocalBind(_host(host) if separator else LOOPBACK, _port(port))


def without_brackets(host: str) -> str:
    """Return an address or name of a registration; brackets round an IPv6 address are not part of it."""
    inside = host[1:-1]
    return inside if host == f"[{inside}]" and ":" in inside else host


def first_of_each_bind(upstreams: Iterable[Upstream]) -> tuple[tuple[Upstream, ...], tuple[Upstream, ...]]:
    """Split into upstreams that get their bind, and those whose bind an earlier one has."""
    taken: dict[object, Upstream] = {}
    late: list[Upstream] = []
    for upstream in upstreams:
        key = bind_key(upstream.bind)
        if key in taken:
            late.append(upstream)
        else:
            taken[key] = upstream
    return tuple(taken.values()), tuple(late)


def bind_key(bind: Bind) -> object:
    """Return what two upstreams must not share: a socket's path, whatever its mode, or address and port."""
    return bind.path if isinstance(bind, SocketBind) else bind


def _require_name(field: str, name: str, text: str) -> None:
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise InvalidUpstream(field, name, f"not a name, in {text!r}; {_EXAMPLE}")


def _host(text: str) -> str:
    if text.startswith("[") and text.endswith("]"):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            raise InvalidUpstream("address", text, "not an IPv6 address") from None
    if ":" in text:
        raise InvalidUpstream("address", text, "put an IPv6 address in brackets, as in [::1]:9191")
    if _HOST_NAME.fullmatch(text):
        return text
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise InvalidUpstream("address", text, "neither an IPv4 address nor a host name") from None


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) <= 5 else 0
    if not 1 <= port <= 65535:
        raise InvalidUpstream("port", text, "a port is a number from 1 to 65535")
    return port
