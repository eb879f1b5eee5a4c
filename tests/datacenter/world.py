"""The worlds in which the recordings were made, in process: two datacenters each, and wires in memory.

A: ACLs on, default deny, no translation. B: ACLs off, WAN translation on. S: as B, other nodes.
C: the defaults.
No background service runs: checks say what the test makes them say, and no time passes but a test's.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import trio

from datacenter.assembly import all_routes
from datacenter.http.context import Datacenter
from datacenter.http.forward import DATACENTERS, KnownDatacenters, Received, WireForwarder
from datacenter.http.frame import Frame, RawReply, RawRequest
from datacenter.services.agent_self import register_own_node
from datacenter.services.check_definitions import set_check
from datacenter.state.errors import ApiError
from datacenter.state.settings import Access, Policy, Settings, Token
from datacenter.state.store import Store

BEGIN = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)

MANAGEMENT, WEB, DB, READ_ONLY = "management", "web-and-sidecar", "db-and-sidecar", "read-only"
WEB_ONLY, IDENTITY = "web-only", "service-identity-web"


def _writer(*names: str) -> Policy:
    read_all = {"": Access.READ}
    service = dict.fromkeys(names, Access.WRITE)
    return Policy(service=service, service_prefix=read_all, node_prefix=read_all)


TOKENS = (
    Token(secret=MANAGEMENT, policy=Policy(management=True)),
    Token(secret=WEB, policy=_writer("web", "web-sidecar-proxy")),
    Token(secret=DB, policy=_writer("db", "db-sidecar-proxy")),
    Token(secret=READ_ONLY, policy=_writer()),
    Token(secret=WEB_ONLY, policy=Policy(service={"web": Access.WRITE})),
    Token(secret=IDENTITY, policy=_writer("web", "web-sidecar-proxy")),
)


@dataclass(kw_only=True)
class Site:
    """One datacenter of a world."""

    dc: Datacenter
    frame: Frame

    async def call(
        self, method: str, target: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> RawReply:
        """One request; a `str` body is sent as it is, anything else as JSON."""
        path, _, query = target.partition("?")
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        raw = RawRequest(method=method, path=path, query=query, headers=headers or {}, body=text.encode())
        return await self.frame.handle(raw)

    async def ok(self, method: str, target: str, body: object = None, *, token: str = "") -> Any:
        """The decoded body of a 200."""
        reply = await self.call(method, target, body, {"x-consul-token": token} if token else None)
        assert reply.status == 200, (target, reply)
        return json.loads(reply.body) if reply.body else None

    def say(self, check: str, status: str, output: str = "") -> None:
        """Make one of the agent's checks find this."""
        assert self.dc.inventory.check(self.dc.settings.node_name, check), check
        set_check(self.dc, check, status, output)


@dataclass(kw_only=True)
class World:
    """Two datacenters that know each other, unless one is made not to."""

    sites: dict[str, Site] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    noted: dict[str, str] = field(default_factory=dict)  # what one step leaves for another, by name

    @property
    def dc1(self) -> Site:
        return self.sites["dc1"]

    @property
    def dc2(self) -> Site:
        return self.sites["dc2"]

    def site(self, name: str) -> Site:
        return self.sites[name]

    def add(self, settings: Settings, store: Store | None = None) -> Site:
        """A datacenter; those there already are told of it, and it of them."""
        store = store or Store()
        federation = KnownDatacenters(settings.name, store)
        dc = Datacenter(
            settings=settings,
            store=store,
            clock=_now,
            rng=random.Random(len(self.sites)),
            federation=federation,
            forwarder=WireForwarder(settings.name, federation, _MemoryWire(world=self)),
        )
        register_own_node(dc)
        site = Site(dc=dc, frame=Frame(dc, all_routes(dc)))
        for name, other in self.sites.items():
            _introduce(other, settings.name)
            _introduce(site, name)
        self.sites[settings.name] = site
        return site


@dataclass(frozen=True, kw_only=True)
class _MemoryWire:
    world: World

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, patience: float
    ) -> Received:
        parts = urlsplit(url)
        name = (parts.hostname or "").partition(".")[0]
        if name in self.world.down:
            where = f"dial tcp {parts.netloc}: connect: connection refused"
            raise ApiError(500, f"rpc error getting client: failed to get conn: {where}")
        lower = {key.lower(): value for key, value in headers.items()}
        raw = RawRequest(method=method, path=parts.path, query=parts.query, headers=lower, body=body)
        with trio.move_on_after(patience):
            reply = await self.world.site(name).frame.handle(raw)
            received = {key.lower(): value for key, value in reply.headers.items()}
            return Received(status=reply.status, headers=received, body=reply.body)
        raise ApiError(500, "rpc error making call: i/o timeout")


def settings(name: str, **changes: Any) -> Settings:
    """The settings of a datacenter in memory; dc1 is the primary."""
    fixed: dict[str, Any] = {
        "name": name,
        "http_addr": "127.0.0.1:8500",
        "data_dir": None,
        "primary_datacenter": "dc1",
        "primary_addr": None if name == "dc1" else "http://dc1.example:8500",
        "advertise_addr": f"http://{name}.example:8500",
        "node_name": f"{name}-node",
    }
    return Settings(**(fixed | changes))


def world_a() -> World:
    """ACLs on, default deny."""
    return _pair(
        ("a1", "127.0.0.11"),
        ("a2", "127.0.0.12"),
        default_policy_allows=False,
        tokens=TOKENS,
        replication_token=MANAGEMENT,
    )


def world_b() -> World:
    """ACLs off, WAN translation on."""
    return _pair(("b1", "127.0.0.21"), ("b2", "127.0.0.22"), translate_wan_addrs=True)


def world_s() -> World:
    """As B, with the nodes of another federation."""
    return _pair(("n1", "127.0.0.1"), ("n2", "127.0.0.2"), translate_wan_addrs=True)


def world_c() -> World:
    """Nothing special: the defaults."""
    return _pair(("c1", "127.0.0.31"), ("c2", "127.0.0.32"))


def _pair(first: tuple[str, str], second: tuple[str, str], **changes: Any) -> World:
    world = World()
    for name, (node, address) in (("dc1", first), ("dc2", second)):
        where = {"node_name": node, "node_address": address, "node_wan_address": address}
        world.add(settings(name, **where, **changes))
    return world


def _introduce(site: Site, other: str) -> None:
    site.dc.store.table(DATACENTERS).put(other, {"Address": f"http://{other}.example:8500"})


def _now() -> datetime:
    return BEGIN + timedelta(seconds=trio.current_time())
