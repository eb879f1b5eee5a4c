"""Control planes of sidecars in this process, each with connections of its own to an agent in another."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from time import monotonic

import trio

from agent.base.clock import now
from agent.config.settings import resolve
from agent.consul.connect import consul_of
from agent.consul.token import TokenSource
from agent.control.plane import ControlPlane
from agent.log.events import Journal
from tests.contract.client import Api


def upstreams(count: int) -> list[dict[str, object]]:
    return [{"DestinationName": f"u{number}", "LocalBindPort": 20000 + number} for number in range(count)]


def registered(api: Api, name: str, count: int) -> None:
    sidecar = {"Port": 30000, "Checks": [], "Proxy": {"Upstreams": upstreams(count)}}
    service = {"Name": name, "Port": 8080, "Connect": {"SidecarService": sidecar}}
    assert api.put("/v1/agent/service/register", service).status == 200


@asynccontextmanager
async def sidecar(api: Api, name: str, token: str, *, connections: int = 3) -> AsyncIterator[ControlPlane]:
    """A control plane as `run` makes it, with at most so many connections to the agent (0: no limit)."""
    flags = {"sidecar-for": name, "http-addr": api.url.removeprefix("http://"), "token": token}
    flags["consul-connections"] = str(connections)
    settings = resolve({flag: [value] for flag, value in flags.items()}, {}).settings
    assert settings is not None
    tokens = TokenSource(settings.token, None)
    events, consul = Journal(io.StringIO(), now), consul_of(settings, tokens)
    plane = ControlPlane(
        settings=settings, consul=consul, token=tokens, events=events, clock=now, rng=Random(1)
    )
    try:
        async with trio.open_nursery() as nursery:
            plane.start(nursery)
            registration = await plane.identify()
            plane.watch(registration)
            plane.endpoints.want(registration.upstreams)
            yield plane
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):
            await consul.aclose()


async def until(true: Callable[[], bool], seconds: float) -> float:
    """Poll, for what another process does on its own; how long that took."""
    began = monotonic()
    with trio.fail_after(seconds):
        while not true():  # noqa: ASYNC110 - nothing here tells of what another process has done
            await trio.sleep(0.02)
    return monotonic() - began


def ready(plane: ControlPlane) -> bool:
    known = plane.snapshot.credentials.value is not None and plane.snapshot.policy.value is not None
    statuses = plane.endpoints.statuses()
    return known and bool(statuses) and all(status.answers for status in statuses)
