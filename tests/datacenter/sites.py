"""Datacenters in one process: real frames and stores, a WAN in memory that can be cut, virtual time.

    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        answer = await dc2.get("/v1/connect/ca/roots")
        wan.cut("dc2")                      # no request reaches dc2, and none leaves it

The wall clock is derived from trio's, so that `autojump_clock` ages certificates too.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trio

from datacenter.assembly import all_routes
from datacenter.ca.authority import CertificateAuthority
from datacenter.ca.trust import Trust
from datacenter.faults.injection import FaultyFrame, FaultyWire
from datacenter.federation import endpoints as federation
from datacenter.federation.secondary import standing
from datacenter.http.context import Datacenter
from datacenter.http.forward import KnownDatacenters, Received, Wire, WireForwarder
from datacenter.http.frame import Answers, Frame, RawReply, RawRequest
from datacenter.state.errors import ApiError
from datacenter.state.settings import Policy, Settings, Token
from datacenter.state.store import Store
from datacenter.state.switches import Faults
from tests.datacenter.mint import NOW
from tests.datacenter.verifiers import accepted

MANAGEMENT = "management-secret"
REFUSED = "rpc error getting client: failed to get conn: dial tcp {}: connect: connection refused"


class Killed(BaseException):
    """The process dies here."""


def now() -> datetime:
    """NOW when the test began, and as many seconds later as trio says."""
    return NOW + timedelta(seconds=trio.current_time())


def token(secret: str, policy: Policy) -> Token:
    """A token with a policy of its own."""
    return Token(secret=secret, policy=policy)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An answer, its body decoded if it is JSON."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def index(self) -> int:
        return int(self.headers["X-Consul-Index"])


@dataclass(kw_only=True)
class Site:
    """One datacenter."""

    dc: Datacenter
    frame: Answers

    @property
    def ca(self) -> CertificateAuthority:
        return CertificateAuthority(self.dc)

    @property
    def trust(self) -> Trust:
        return self.ca.require_trust()

    async def call(self, method: str, path: str, body: object = None, *, token: str = "") -> Answered:
        where, _, query = path.partition("?")
        raw = RawRequest(
            method=method,
            path=where,
            query=query,
            headers={"x-consul-token": token} if token else {},
            body=body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode(),
        )
        return _answered(await self.frame.handle(raw))

    @property
    def standing(self) -> tuple[str, str]:
        """State and reason of the secondary's tie to its primary."""
        noted = standing(self.dc)
        return noted["State"], noted["Detail"]

    async def get(self, path: str, *, token: str = "") -> Any:
        """The decoded body of a 200."""
        answered = await self.call("GET", path, token=token)
        assert answered.status == 200, answered
        return answered.body

    async def put(self, path: str, body: object = None, *, token: str = "") -> Any:
        """The decoded body of a 200."""
        answered = await self.call("PUT", path, body, token=token)
        assert answered.status == 200, answered
        return answered.body


def accepts(trust: Trust, leaf: Mapping[str, str]) -> bool:
    """Whether a peer that holds these roots accepts this leaf now."""
    return accepted(leaf["CertPEM"], (root.certificate for root in trust.roots), now())


async def assert_mutual_trust(*sites: Site) -> None:
    """Every datacenter accepts every other's new leaves, and they agree who they are."""
    path = "/v1/agent/connect/ca/leaf/web"
    leaves = [await site.get(path, token=str(trio.current_time())) for site in sites]
    assert all(accepts(site.trust, leaf) for site in sites for leaf in leaves)
    assert len({site.trust.trust_domain for site in sites}) == 1
    assert len({site.trust.active.id for site in sites}) == 1


@asynccontextmanager
async def running(*sites: Site, settle: float = 0.5) -> AsyncIterator[trio.Nursery]:
    """The federation's background services, started in this order and given half a second."""
    async with trio.open_nursery() as nursery:
        for site in sites:
            await nursery.start(federation.run, site.dc)
        await trio.sleep(settle)
        yield nursery
        nursery.cancel_scope.cancel()


class Wan:
    """All sites and the wires between them."""

    def __init__(self) -> None:
        self.sites: dict[str, Site] = {}
        self.crossed: list[bytes] = []  # every body that went over a wire, either way
        self._cut: set[str] = set()
        self._changed = trio.Event()

    def site(
        self,
        name: str,
        *,
        primary: str = "dc1",
        path: Path | None = None,
        store: Store | None = None,
        **changes: Any,
    ) -> Site:
        """A datacenter, not running yet. `changes` are settings."""
        settings = Settings(
            name=name,
            http_addr="127.0.0.1:0",
            data_dir=None,
            primary_datacenter=primary,
            primary_addr=None if name == primary else _address(primary),
            advertise_addr=_address(name),
        )
        settings = replace(settings, **changes)
        store = store or Store(path)
        federation = KnownDatacenters(name, store)
        faults = Faults() if settings.enable_faults else None
        wire: Wire = MemoryWire(wan=self, own=name)
        dc = Datacenter(
            settings=settings,
            store=store,
            clock=faults.clock(now) if faults else now,
            rng=random.Random(len(self.sites)),
            federation=federation,
            forwarder=WireForwarder(name, federation, FaultyWire(wire, faults) if faults else wire),
            faults=faults,
        )
        frame = Frame(dc, all_routes(dc))
        site = Site(dc=dc, frame=FaultyFrame(frame, faults) if faults else frame)
        self.sites[name] = site
        return site

    def cut(self, name: str) -> None:
        """Cut this datacenter off: requests to it and from it fail, and those under way are reset."""
        self._cut.add(name)
        self._changed.set()
        self._changed = trio.Event()

    def heal(self, name: str) -> None:
        """As before the cut."""
        self._cut.discard(name)

    def forget(self, name: str) -> None:
        """There is no such process any more; what was under way with it breaks off."""
        was_cut = name in self._cut
        self.sites.pop(name, None)
        self.cut(name)
        if not was_cut:
            self.heal(name)

    async def carry(
        self, own: str, method: str, url: str, headers: Mapping[str, str], body: bytes
    ) -> Received:
        """One exchange over the WAN. Raises ApiError as the real one does."""
        parts = urlsplit(url)
        name = parts.netloc.partition(".")[0]
        if self._severed({own, name}):
            await trio.lowlevel.checkpoint()
            raise ApiError(500, REFUSED.format(parts.netloc))
        self.crossed.append(body)
        lower = {key.lower(): value for key, value in headers.items()}
        raw = RawRequest(method=method, path=parts.path, query=parts.query, headers=lower, body=body)
        answers: list[RawReply] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._answer, name, raw, answers, nursery.cancel_scope)
            nursery.start_soon(self._break_off, {own, name}, nursery.cancel_scope)
        if not answers or self._severed({own, name}):
            raise ApiError(500, "rpc error making call: EOF")
        self.crossed.append(answers[0].body)
        received = {key.lower(): value for key, value in answers[0].headers.items()}
        return Received(status=answers[0].status, headers=received, body=answers[0].body)

    async def _answer(
        self, name: str, raw: RawRequest, answers: list[RawReply], scope: trio.CancelScope
    ) -> None:
        answers.append(await self.sites[name].frame.handle(raw))
        scope.cancel()

    async def _break_off(self, ends: set[str], scope: trio.CancelScope) -> None:
        while not self._severed(ends):
            await self._changed.wait()
        scope.cancel()

    def _severed(self, ends: set[str]) -> bool:
        return bool(ends & self._cut) or not ends <= self.sites.keys()


@dataclass(kw_only=True)
class MemoryWire:
    """The end of the wires in one datacenter."""

    wan: Wan
    own: str

    async def exchange(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, patience: float
    ) -> Received:
        with trio.move_on_after(patience):
            return await self.wan.carry(self.own, method, url, headers, body)
        raise ApiError(500, "rpc error making call: i/o timeout")


def _address(name: str) -> str:
    return f"http://{name}.example:8500"


def _answered(raw: RawReply) -> Answered:
    is_json = raw.headers.get("Content-Type") == "application/json"
    body = json.loads(raw.body) if is_json else raw.body.decode()
    return Answered(status=raw.status, body=body, headers=raw.headers)
