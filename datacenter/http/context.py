"""The words in which every endpoint is written: Request, Reply, Route, and the Datacenter they act on.

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

`{name}` matches one segment, `{name:path}` the rest, also an empty one. `topics` names what the answer was
computed from, and makes the endpoint block: while `?index=` is not below the index of the topics, or
`?hash=` equals `content_hash`, the frame waits for a change and calls the handler again, within `?wait=`. A
handler therefore only ever computes the present answer. An endpoint that blocks in a way of its own leaves
`topics` empty and uses `request.index` and `request.wait`.

Private documents are in `dc.store.private(...)`, everything else in tables. A background service is
`async def run(dc: Datacenter, task_status) -> None`, started in a nursery before the listener opens.
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
    """Which headers of a server's read go with a 200.

    See docs/consul-api.md#response-headers.
    """

    NONE = 0
    INDEX = 1  # X-Consul-Index alone (leaf)
    PLAIN = 2  # and known leader, last contact, query backend (roots, config entries, coordinates)
    CONSISTENT = 3  # and the effective consistency (catalog, health, intentions, queries)


@dataclass(slots=True, kw_only=True)
class Request:
    """One call, parsed as far as every endpoint needs it. `query` has the first value of each parameter."""

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
        """The rights of the token. Raises ApiError 403 `ACL not found` on first use for an unknown secret."""
        if self._authorizer is None:
            self._authorizer = self.resolve(self.token)
        return self._authorizer

    def flag(self, name: str) -> bool:
        """A parameter whose mere presence counts (`?stale`)."""
        return name in self.query


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A 200 unless `status` says otherwise. `value` is sent as JSON unless there is a content type."""

    value: object = Empty.BODY
    status: int = 200
    content_type: str = ""  # set: `value` is a str (or bytes) sent as it is
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
    """What the frame and the queries need to know about the other datacenters."""

    def base_url(self, datacenter: str) -> str | None:
        """The HTTP address of another datacenter, None when there is no path to it."""
        ...

    def datacenters(self) -> list[str]:
        """Every known datacenter, our own first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What another datacenter answered: the decoded JSON (None without a body), and its index (0 if none)."""

    value: object
    index: int


class Forwarder(Protocol):
    """Sends calls to other datacenters."""

    async def forward(self, request: Request, datacenter: str) -> Reply:
        """The call as it is, answered by the other datacenter. Raises ApiError as Consul words it."""
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
        """An internal call of our own to a whole URL (base URL, path, query). Raises ApiError like `forward`.

        `patience` is how many seconds the answer may take: more than `wait` of a blocking read.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Datacenter:
    """One running datacenter: everything a handler or a background service may use."""

    settings: Settings
    store: Store
    clock: Clock
    rng: random.Random
    federation: Federation
    forwarder: Forwarder
    faults: Faults | None = None  # only where they are enabled
    lost_lines: Callable[[], int] = lambda: 0  # of the log, for want of a reader

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
        """How many certificates are signed in a second."""
        return CsrLimit()

    @cached_property
    def heartbeats(self) -> Heartbeats:
        """Words from workloads about their TTL checks."""
        return Heartbeats()

    @cached_property
    def tally(self) -> Tally:
        """What was asked."""
        return Tally()
