"""Datacenters that serve nothing but the routes a test gives them."""

from __future__ import annotations

from typing import Any

from datacenter.http.context import Datacenter, Handler, QueryMeta, Reply, Request, Route
from datacenter.http.frame import Frame
from tests.datacenter.world import Site, World, settings


def site(*routes: Route, **changes: Any) -> Site:
    """A datacenter that serves nothing but these."""
    made = World().add(settings("dc1", **changes))
    return Site(dc=made.dc, frame=Frame(made.dc, routes))


def answering(reply: Reply) -> Handler:
    async def handler(request: Request) -> Reply:
        return reply

    return handler


def echo(*names: str) -> Handler:
    """Answers with these attributes of the request."""

    async def handler(request: Request) -> Reply:
        return Reply(value={name: getattr(request, name) for name in names})

    return handler


def things(dc: Datacenter) -> Handler:
    async def handler(request: Request) -> Reply:
        keys = [row.key for row in dc.store.table("things").rows()]
        return Reply(value=keys, topics=("things",), meta=QueryMeta.CONSISTENT)

    return handler


def blocking_site() -> Site:
    made = World().add(settings("dc1"))
    return Site(dc=made.dc, frame=Frame(made.dc, [Route("GET", "/v1/things", things(made.dc))]))
