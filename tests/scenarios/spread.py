"""Sidecars as processes beside two datacenters: web of dc1, instances of db where a test wants.

Every instance has its app, its sidecar on an address of its own, a TCP check on its door and a TTL check that
a test can fail. Those of dc2 are registered under a LAN address where nobody listens, and a WAN address; if a
test wants to cut the way there, that is a link's.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from agent.outbound.reasons import OutboundReason
from tests.contract.apps import App, serving
from tests.contract.client import Api
from tests.contract.federation import Federation, Kind, free_port, running
from tests.contract.mesh import Sidecar, put
from tests.contract.processes import process
from tests.contract.services import tcp, ttl
from tests.scenarios.wan_link import Link

READY_SECONDS = 30.0
Address = tuple[str, int]
NOBODY = "127.0.0.41"  # where no sidecar listens
LINKS = "127.0.0.43"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One instance of db."""

    name: str
    api: Api
    app: App
    sidecar: Sidecar
    registered: Address  # of its sidecar, in its own datacenter
    link: Link | None  # on the way from other datacenters

    def check(self, verdict: str) -> None:
        """Set its TTL check: `pass`, `warn` or `fail`."""
        assert self.api.put(f"/v1/agent/check/{verdict}/pulse-{self.name}").status == 200


@dataclass(slots=True, kw_only=True)
class Spread:
    """All of it; `ports` of web's upstreams by the name a test gave them."""

    federation: Federation
    ports: dict[str, int]
    instances: dict[str, Instance]
    web: Sidecar

    def upstream(self, name: str) -> dict[str, Any]:
        """What web's status says of an upstream."""
        rows: list[dict[str, Any]] = json.loads(self.web.ask("/status")[1])["upstreams"]
        return next(row for row in rows if row["bind"].endswith(f":{self.ports[name]}"))

    def unserved(self) -> Counter[str]:
        """Connections of web's app so far that no instance was found for, by reason.

        REFUSED_BY_PEER is none of these: nobody is denied anything here, so bytes were on their way.
        """
        endings = json.loads(self.web.ask("/status")[1])["counters"]["endings"]["outbound"]
        reasons = set(OutboundReason) - {OutboundReason.REFUSED_BY_PEER}
        return Counter({reason.value: endings[reason] for reason in reasons if reason in endings})

    def web_with(self, upstreams: dict[str, dict[str, Any]]) -> None:
        """Register web anew with these upstreams; `ports` has one for each."""
        put(self.federation.dc1, _web(self.web.public, upstreams, self.ports))


@contextmanager
def spread(
    directory: Path,
    instances: dict[str, str],
    upstreams: dict[str, dict[str, Any]],
    kind: Kind = "embedded",
    *,
    linked: bool = False,
    options: Mapping[str, Sequence[str]] | None = None,
    translate: bool = True,
    tables: Mapping[str, str] | None = None,
    leave: float = 0.0,
) -> Iterator[Spread]:
    """`instances`: name to datacenter. `upstreams`: name to registration; each gets a port.

    `tables` are web's own upstreams instead, in TOML with `{port}` for its port: Consul's catalog takes no
    service whose registration names one destination twice. `linked`: the instances of dc2 are reached by
    links. `options` and `translate` as of the federation. `leave`: seconds in which a sidecar that ends still
    accepts callers.
    """
    with ExitStack() as stack:
        federation = stack.enter_context(running(kind, directory, options, translate=translate))
        apis = {api.name: api for api in federation}
        leaving = ("-leave-seconds", f"{leave:g}")
        ports = {name: free_port() for name in (*upstreams, *(tables or {}))}
        made = {
            name: _instance(stack, name, apis[datacenter], directory, leaving, linked=linked)
            for name, datacenter in instances.items()
        }
        public = ("127.0.0.31", free_port("127.0.0.31"))
        put(apis["dc1"], _web(public, upstreams, ports))
        settings = directory / "web.toml"
        own = [f"[[upstreams]]\n{text.format(port=ports[name])}" for name, text in (tables or {}).items()]
        settings.write_text("\n".join(["# those of the registration", *own]))
        more = (*leaving, "-config", str(settings))
        web = stack.enter_context(_sidecar("web", apis["dc1"], public, directory, *more))
        for sidecar in (web, *(instance.sidecar for instance in made.values())):
            wait_until_ready(sidecar)
        for api in federation:
            names = [name for name, datacenter in instances.items() if datacenter == api.name]
            api.until("/v1/health/connect/db?passing", partial(_are, len(names)))
        yield Spread(federation=federation, ports=ports, instances=made, web=web)


def wait_until_ready(sidecar: Sidecar) -> None:
    """Until it can serve."""
    deadline = monotonic() + READY_SECONDS
    while (answer := sidecar.ask("/ready"))[0] != 200:
        sidecar.process.must_live()
        assert monotonic() < deadline, f"not ready, {answer}:\n{sidecar.process.last_words()}"
        sleep(0.05)


def _instance(
    stack: ExitStack, name: str, api: Api, directory: Path, leaving: Sequence[str], *, linked: bool
) -> Instance:
    app = stack.enter_context(serving(App(name)))
    host = "127.0.0.32" if api.name == "dc1" else "127.0.0.42"
    public = (host, free_port(host))
    more: dict[str, Any] = {}
    registered, link = public, None
    if api.name == "dc2":
        registered, reached = (NOBODY, free_port(NOBODY)), public
        if linked:
            reached = (LINKS, free_port(LINKS))
            link = stack.enter_context(Link(reached, public))
        more["TaggedAddresses"] = {"wan": {"Address": reached[0], "Port": reached[1]}}
    checks = [tcp(f"door-{name}", *public), ttl(f"pulse-{name}")]
    service = {"ID": name, "Name": "db", "Port": app.port}
    put(api, service | _sidecar_service(registered, {"Checks": checks, **more}))
    sidecar = stack.enter_context(_sidecar(name, api, public, directory, *leaving))
    return Instance(name=name, api=api, app=app, sidecar=sidecar, registered=registered, link=link)


def _web(public: Address, upstreams: dict[str, dict[str, Any]], ports: dict[str, int]) -> dict[str, Any]:
    wanted = [{**upstream, "LocalBindPort": ports[name]} for name, upstream in upstreams.items()]
    more = {"Checks": [tcp("web-door", *public)], "Proxy": {"Upstreams": wanted}}
    return {"ID": "web", "Name": "web", "Port": 9, **_sidecar_service(public, more)}


def _sidecar_service(at: Address, more: dict[str, Any]) -> dict[str, Any]:
    return {"Connect": {"SidecarService": {"Address": at[0], "Port": at[1], **more}}}


def _are(count: int, rows: list[object]) -> bool:
    return len(rows) == count


@contextmanager
def _sidecar(name: str, api: Api, public: Address, directory: Path, *more: str) -> Iterator[Sidecar]:
    admin = ("127.0.0.1", free_port())
    command = [sys.executable, "-m", "agent", "run", "-sidecar-for", name, "-http-addr", api.url]
    command += ["-admin-bind", f"{admin[0]}:{admin[1]}", "-listen", f"{public[0]}:{public[1]}"]
    command += ["-consul-connections", "16"]  # each list is held, so that traffic moves at once
    command += ["-drain-seconds", "1", *more]
    with process(command, directory / f"sidecar-{name}.log") as started:
        yield Sidecar(admin=admin, public=public, process=started)
