"""Finds listeners of ours that would share an address with each other or with the app. No effects.

A listener of ours at the app's address would get the app's callers while the app is down, and would pass them
on under our identity. So a listener that collides with the app or with an earlier listener is a named problem
and is not served; the others are. The caller passes in what only the machine knows: addresses of names,
targets of paths, the machine's own addresses (`Known`). Without them a name stands only for itself, or for
loopback.
"""

from __future__ import annotations

import ipaddress
import os.path
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from agent.base.address import ANY_ADDRESS, ANY_ADDRESS_6, Address, TcpAddress, UnixAddress, literal
from agent.config.exposed_paths import ExposedPath
from agent.config.opaque_config import Problem, ProblemReason
from upstreams.spec import LOOPBACK, LocalBind, Upstream

PUBLIC = "the public listener"
ADMIN = "the admin endpoint"
CHECK = "Consul's check of the public port"
_LOCALHOST = frozenset({LOOPBACK, "::1"})  # RFC 6761 §6.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What only the machine knows: addresses of names, real paths of sockets, addresses of its own."""

    hosts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    ours: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What can be served: `upstreams`, exposed paths, the public listener, Consul's check of it.

    `problems` lists the rest.
    """

    upstreams: tuple[Upstream, ...]
    exposed: tuple[ExposedPath, ...]
    public: bool
    check: bool
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class _Claim:
    """One listener and the address it asks for."""

    who: str
    address: Address


def without_collisions(
    *,
    public: Address | None,
    app: Address | None,
    upstreams: Sequence[Upstream],
    admin: Sequence[Address],
    exposed: Sequence[ExposedPath] = (),
    known: Known | None = None,
) -> Served:
    """Return which listeners collide neither with the app nor with an earlier one.

    The order is: admin endpoint, public listener, upstreams, exposed paths, Consul's check.
    """
    known = known or Known()
    claims = _Claims(app, known)
    for address in admin:
        claims.add(_Claim(ADMIN, address), always=True)
    public_served = public is not None and claims.add(_Claim(PUBLIC, public), through=app)
    served = [one for one in upstreams if claims.add(_Claim(f"upstream {one.destination}", bind_of(one)))]
    paths = [
        one for one in exposed if claims.add(_Claim(f"exposed path {one.path}", one.bind), through=one.app)
    ]
    check = check_address(public, known) if public_served else None
    return Served(
        upstreams=tuple(served),
        exposed=tuple(paths),
        public=public_served,
        check=check is None or claims.add(_Claim(CHECK, check)),
        problems=tuple(claims.problems),
    )


def bind_of(upstream: Upstream) -> Address:
    """Return an upstream's bind as an address."""
    bind = upstream.bind
    return TcpAddress(bind.host, bind.port) if isinstance(bind, LocalBind) else UnixAddress(bind.path)


def check_address(public: Address | None, known: Known) -> TcpAddress | None:
    """Return the other address where Consul checks the public port (docs/consul-api.md#sidecar-service)."""
    if not isinstance(public, TcpAddress):
        return None
    address = literal(public.host) or min(known.hosts.get(public.host, ()), default=None)
    return None if address is None or _is_here(address) else TcpAddress(LOOPBACK, public.port)


def unknown_names(addresses: Iterable[Address]) -> frozenset[str]:
    """Return the names to look up: those at a port that another of the addresses has too."""
    tcp = [one for one in addresses if isinstance(one, TcpAddress)]
    ports = Counter(one.port for one in tcp)
    hosts = {one.host for one in tcp if ports[one.port] > 1}
    return frozenset(host for host in hosts if literal(host) is None and not _is_localhost(host))


class _Claims:
    """The listeners accepted so far, and a problem for each of the others."""

    def __init__(self, app: Address | None, known: Known) -> None:
        self._app = app
        self._known = known
        self._standing: dict[int | None, list[_Claim]] = {}  # by port, since others cannot meet; None: paths
        self.problems: list[Problem] = []

    def add(self, claim: _Claim, *, always: bool = False, through: Address | None = None) -> bool:
        """Return whether a listener is accepted. `always`: it is bound already.

        `through`: where it dials the app.
        """
        problem = next(self._objections(claim, through), None)
        if problem is not None:
            self.problems.append(problem)
        if problem is None or always:
            self._standing.setdefault(_port(claim.address), []).append(claim)
            return True
        return False

    def _objections(self, claim: _Claim, through: Address | None) -> Iterator[Problem]:
        app = self._app
        where = f"{claim.who} on {claim.address}"
        if app is not None and self._meet(claim.address, app, self._is_ours):
            detail = f"the app is there ({app}); give one of them another address"
            yield Problem(where=where, reason=ProblemReason.APP_BIND, detail=detail)
        ports = dict.fromkeys((_port(claim.address), *(() if through is None else (_port(through),))))
        for other in chain.from_iterable(self._standing.get(port, ()) for port in ports):
            if self._meet(claim.address, other.address, _always):
                detail = f"{other.who} is there ({other.address}); give it an address of its own"
                yield Problem(where=where, reason=ProblemReason.DUPLICATE_BIND, detail=detail)
            if through is not None and self._meet(other.address, through, self._is_ours):
                detail = f"{other.who} ({other.address}) is where the app should be ({through})"
                yield Problem(where=where, reason=ProblemReason.APP_BIND, detail=detail)

    def _meet(self, one: Address, other: Address, ours: Callable[[str], bool]) -> bool:
        if isinstance(one, UnixAddress) and isinstance(other, UnixAddress):
            return self._path(one) == self._path(other)
        if isinstance(one, UnixAddress) or isinstance(other, UnixAddress):
            return False
        if one.port != other.port or not one.port:
            return False
        here, there = self._places(one.host), self._places(other.host)
        return bool(here & there) or _takes_in(here, there, ours) or _takes_in(there, here, ours)

    def _path(self, address: UnixAddress) -> str:
        return self._known.paths.get(address.path) or f"/{os.path.normpath(address.path).lstrip('/')}"

    def _places(self, host: str) -> frozenset[str]:
        address = literal(host)
        if address is not None:
            return frozenset({address})
        places = self._known.hosts.get(host, frozenset())
        if _is_localhost(host):
            return places | _LOCALHOST
        return places or frozenset({host.lower().rstrip(".")})

    def _is_ours(self, place: str) -> bool:
        return place in self._known.ours or (literal(place) is not None and _is_here(place))


def _port(address: Address) -> int | None:
    return address.port if isinstance(address, TcpAddress) else None


def _takes_in(wild: frozenset[str], places: frozenset[str], ours: Callable[[str], bool]) -> bool:
    """Return whether a listener at any address takes one of `places`; at `::` Linux listens for IPv4 too."""
    four, six = ANY_ADDRESS in wild, ANY_ADDRESS_6 in wild
    return any(ours(place) for place in places if six or (four and ":" not in place))


def _is_here(address: str) -> bool:
    read = ipaddress.ip_address(address)
    return read.is_loopback or read.is_unspecified


def _is_localhost(host: str) -> bool:
    name = host.lower().rstrip(".")
    return name == "localhost" or name.endswith(".localhost")


def _always(_place: str) -> bool:
    return True
