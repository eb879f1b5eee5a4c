"""An agent on a test's bench: a scripted Consul, a log to read, a clock for virtual time."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random

import trio

from agent.base.address import TcpAddress
from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.config.settings import Settings, resolve
from agent.consul.token import TokenSource
from agent.control.plane import ControlPlane
from agent.log.events import Journal
from agent.log.log import LogOptions
from agent.net.inherited import InheritedSockets
from agent.observe.agent import Agent
from agent.proxy.dataplane import LocalDataPlane
from agent.snapshot import Snapshot
from tests.certs.authority import Issuer, roots_answer
from tests.support.fake_consul import FakeConsul

START = datetime(2031, 5, 17, 12, tzinfo=UTC)
PROXY = "web-sidecar-proxy"
SERVICES = "/v1/agent/services"
SERVICE = f"/v1/agent/service/{PROXY}"
ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
MATCH = "/v1/connect/intentions/match"
AUTHORIZE = "/v1/agent/connect/authorize"
BY_DEFAULT = {"Authorized": True, "Reason": "Default behavior configured by ACLs"}


def virtual() -> datetime:
    """Wall time as trio's clock moves it."""
    return START + timedelta(seconds=trio.current_time() % 10**6)


def settings(**flags: str | list[str]) -> Settings:
    """Settings as flags would give them; `-sidecar-for web` unless another form is given."""
    if not {"service", "proxy_id"} & set(flags):
        flags = {"sidecar_for": "web", **flags}
    words = {
        name.replace("_", "-"): [value] if isinstance(value, str) else value for name, value in flags.items()
    }
    resolution = resolve(words, {})
    assert resolution.settings is not None, [str(mistake) for mistake in resolution.mistakes]
    return resolution.settings


def proxy_answer(
    *upstreams: dict[str, object], port: int = 0, service: str = "web", **extra: object
) -> dict[str, object]:
    """What Consul says of the sidecar of web; its app listens on 127.0.0.1:8080."""
    return {
        "Kind": "connect-proxy",
        "ID": PROXY,
        "Service": PROXY,
        "Address": "127.0.0.1",
        "Port": port,
        "Datacenter": "dc1",
        "Proxy": {
            "DestinationServiceName": service,
            "DestinationServiceID": service,
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
            "Upstreams": list(upstreams),
        },
        **extra,
    }


def registration(**fields: object) -> Registration:
    """The registration of web's sidecar, as a value."""
    told: dict[str, object] = {
        "proxy_id": PROXY,
        "service": "web",
        "service_id": "web",
        "datacenter": "dc1",
        "public_bind": TcpAddress("127.0.0.1", 0),
        "local_app": TcpAddress("127.0.0.1", 8080),
        **fields,
    }
    return Registration(**told)  # type: ignore[arg-type]  # a table of tests' own making


@dataclass(slots=True, kw_only=True)
class AgentBench:
    """An agent that does not run, and a test's view of it."""

    agent: Agent
    data: LocalDataPlane
    consul: FakeConsul
    written: io.StringIO

    @property
    def control(self) -> ControlPlane:
        """Its control plane."""
        return self.agent.control

    @property
    def snapshot(self) -> Snapshot:
        """The cells that the planes share."""
        return self.agent.control.snapshot

    @property
    def log(self) -> list[str]:
        """The lines written so far, without time."""
        return [line.partition(" ")[2] for line in self.written.getvalue().splitlines()]

    def events(self) -> list[str]:
        """The events written so far."""
        return [line.split()[2].removesuffix(":") for line in self.log]

    def well(self, *upstreams: dict[str, object], root: Issuer | None = None, **proxy: object) -> Issuer:
        """Script everything a sidecar of web needs; the root its leaf is of."""
        root = root or Issuer.root(now=self.control.clock())
        listed = {PROXY: {"ID": PROXY, "Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "web"}}}
        self.consul.answer(SERVICES, listed)
        self.consul.answer(SERVICE, proxy_answer(*upstreams, **proxy), content_hash="h1")  # type: ignore[arg-type]
        self.consul.answer(ROOTS, roots_answer(root), index=5)
        self.consul.answer(LEAF, root.leaf().answer(), index=6)
        self.consul.answer(MATCH, {"web": None}, index=7)
        self.consul.answer(AUTHORIZE, BY_DEFAULT)
        return root


def agent_bench(
    nursery: trio.Nursery,
    told: Settings | None = None,
    clock: Callable[[], datetime] = virtual,
    inherited: InheritedSockets | None = None,
) -> AgentBench:
    """An agent that has not started."""
    told = told or settings()
    consul, written = FakeConsul(), io.StringIO()
    log = Journal(written, clock, LogOptions(level=LogLevel.DEBUG))
    token = TokenSource(told.token, told.token_file)
    control = ControlPlane(
        settings=told,
        consul=consul.client(nursery, token),
        token=token,
        events=log,
        clock=clock,
        rng=Random(7),
    )
    control.attach(nursery)
    data = LocalDataPlane(
        snapshot=control.snapshot,
        settings=told,
        sources=control.endpoints,
        events=log,
        clock=clock,
        rng=control.rng,
        inherited=inherited,
    )
    agent = Agent(control=control, data=data, log=log, started=clock(), began=trio.current_time())
    return AgentBench(agent=agent, data=data, consul=consul, written=written)
