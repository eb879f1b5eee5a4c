"""The types by which endpoints are written: Request, Reply, Route, and the Datacenter they act on.

A module serves endpoints by offering `routes(dc: Datacenter) -> list[Route]`, which `datacenter.__main__`
collects:

    def routes(dc: Datacenter) -> list[Route]:
        return [Route("GET", "/v1/thing/{name}", partial(_read, dc))]

    async def _read(dc: Datacenter, request: Request) -> Reply:
        require(request.authorizer.service_read(request.params["name"]))
        row = dc.store.table("things").get(request.params["name"])
        if row is None:
            raise ApiError(404, "no such thing")
        return Reply(value=row.value, topics=("things",))

`{name}` matches one segment, `{name:path}` the rest, which may be empty. `topics` names what the answer was
computed from, and makes the endpoint block: while `?index=` is not below the index of the topics, or `?hash=`
equals `content_hash`, the frame waits for a change and calls the handler again, within `?wait=`. A handler
therefore only computes the present answer. An endpoint that blocks in its own way leaves `topics` empty and
uses `request.index` and `request.wait`.

Private documents are in `dc.store.private(...)`, everything else is in tables. A background service is a
function `async def run(dc: Datacenter, task_status) -> None`, started in a nursery before the listener opens.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from functools import cached_property
from typing import Protocol

from datacenter.state.acl import Acl, Authorizer
from datacenter.state.call_counts import Tally
from datacenter.state.csr_limit import CsrLimit
from datacenter.state.heartbeats import Heartbeats
from datacenter.state.inventory import Inventory
from datacenter.state.settings import Settings
from datacenter.state.store import Document, Store
from datacenter.state.switches import Faults

Clock = Callable[[], datetime]


class Empty(Enum):
    """The value of a reply without a body."""

    BODY = 0


class QueryMeta(Enum):
    """Which headers of a server's read a 200 has.

    See docs/consul-api.md#response-headers.
    """

    NONE = 0
    INDEX = 1  # X-Consul-Index alone (leaf)
    PLAIN = 2  # and known leader, last contact, query backend (roots, config entries, coordinates)
    CONSISTENT = 3  # and the effective consistency (catalog, health, intentions, queries)


@dataclass(slots=True, kw_only=True)
class Request:
    """One call, parsed as far as every endpoint needs. `query` has the first value of each parameter."""

    method: str
    path: str
    params: Mapping[str, str]
    query: Mapping[str, str]
    query_lists: Mapping[str, list[str]]
    body: bytes = field(repr=False, default=b"")
    token: str = field(repr=False, default="")
    index: int = 0  # ?index=, 0 when not given
    wait: float = 300.0  # seconds a blocking read may wait, jitter included
    forwarded: bool = False  # another datacenter asks on behalf of its client: answer untranslated
    resolve: Callable[[str], Authorizer] = field(repr=False, kw_only=True)
    _authorizer: Authorizer | None = field(repr=False, default=None)

    @property
    def authorizer(self) -> Authorizer:
        """The rights of the token.

        Raises ApiError 403 `ACL not found` at the first use of an unknown secret.
        """
        if self._authorizer is None:
            self._authorizer = self.resolve(self.token)
        return self._authorizer

    def refuse_unknown(self) -> None:
        """Raise ApiError 403 for an unknown secret, also where there is nothing to list."""
        self._authorizer = self.authorizer

    def flag(self, name: str) -> bool:
        """Return whether a parameter is present (`?stale`), whatever its value."""
        return name in self.query


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A 200 unless `status` says otherwise. `value` is sent as JSON unless `content_type` is set."""

    value: object = Empty.BODY
    status: int = 200
    content_type: str = ""  # if set, `value` is a str (or bytes) that is sent unchanged
    topics: tuple[str, ...] = ()
    index: int | None = None  # default: the index of the topics
    content_hash: str = ""
    meta: QueryMeta = QueryMeta.NONE
    known_leader: bool = True
    streaming: bool = False
    final: bool = False  # never block on this one, whatever the index
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Reply]]
Translate = Callable[[object], object]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path.

    `forwards`: `?dc=` naming another datacenter sends the call there (off for agent-local endpoints).
    `translate`: rewrites the addresses in the decoded body of a forwarded answer.
    `cached`: `?cached` shows X-Cache and Age.  `allow`: the Allow header of a 405, where it is not the usual.
    """

    method: str
    path: str
    handler: Handler
    forwards: bool = field(default=True, kw_only=True)
    translate: Translate | None = field(default=None, kw_only=True)
    cached: bool = field(default=False, kw_only=True)
    allow: str = field(default="", kw_only=True)


class Federation(Protocol):
    """What the frame and the queries need to know of the other datacenters."""

    def base_url(self, datacenter: str) -> str | None:
        """Return the HTTP address of another datacenter, None if there is no path to it."""
        ...

    def datacenters(self) -> list[str]:
        """Return every known datacenter, our own first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of another datacenter: the decoded JSON (None without a body), and its index (0 if none)."""

    value: object
    index: int


class Forwarder(Protocol):
    """Sends calls to other datacenters."""

    async def forward(self, request: Request, datacenter: str) -> Reply:
        """Return the other datacenter's answer to the call. Raises ApiError in Consul's words."""
        ...

    async def call(
        self,
        method: str,
        url: str,
        *,
        body: Document | None = None,
        token: str = "",
        patience: float = 30.0,
    ) -> Answer:
        """Send an internal call of our own to a URL (base URL, path, query). Raises ApiError like `forward`.

        `patience` is the longest time for the answer in seconds, more than `wait` of a blocking read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Datacenter:
    """One running datacenter: everything that handlers and background services use."""

    settings: Settings
    store: Store
    clock: Clock
    rng: random.Random
    federation: Federation
    forwarder: Forwarder
    faults: Faults | None = None  # only where they are enabled
    lost_lines: Callable[[], int] = lambda: 0  # log lines lost for lack of a reader

    @cached_property
    def acl(self) -> Acl:
        """The tokens, from the settings."""
        return Acl(self.settings)

    @cached_property
    def inventory(self) -> Inventory:
        """Nodes, services and checks."""
        return Inventory(self.store, self.settings.node_name)

    @cached_property
    def csr_limit(self) -> CsrLimit:
        """The limit of signatures in a second."""
        return CsrLimit()

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """The news of workloads about their TTL checks."""
        return Heartbeats()

    @cached_property
    def tally(self) -> Tally:
        """The counts of calls."""
        return Tally()
