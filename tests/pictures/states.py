"""The states that a page is shown in, each made in the mesh of `tests/diagnosis` as its users meet it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from time import sleep

from tests.contract import federation
from tests.contract.apps import Conversation
from tests.diagnosis.acts import db_critical, db_sound, register_web, silent_until_expired, start_consul_again
from tests.diagnosis.mesh import NEAR, Mesh, Sidecar, until

State = Callable[[Mesh], AbstractContextManager[str]]
SECONDS = 12.0  # of traffic, so that the sparklines have a line


def url_of(sidecar: Sidecar) -> str:
    """The address of a sidecar's page."""
    return f"http://127.0.0.1:{sidecar.admin}/"


def talk(mesh: Mesh, *names: str, seconds: float = SECONDS) -> None:
    """Call upstreams in turn."""
    for _ in range(int(seconds * 2)):
        for name in names:
            mesh.call(name)
        sleep(0.5)


@contextmanager
def held(mesh: Mesh, **counts: int) -> Iterator[None]:
    """Hold connections to upstreams, each of which has exchanged a line."""
    with ExitStack() as stack:
        for name, count in counts.items():
            for number in range(count):
                conversation = stack.enter_context(Conversation(mesh.ports[name]))
                assert conversation.ask("hello " * (number % 50 + 1))
        yield


@contextmanager
def no_connection(mesh: Mesh) -> Iterator[str]:
    """A sidecar that has just begun."""
    mesh.restart("web")
    yield url_of(mesh.web)


@contextmanager
def healthy(mesh: Mesh) -> Iterator[str]:
    """Calls to three upstreams, some of which stay."""
    with held(mesh, db=6, dc2=3, query=2):
        talk(mesh, "db", "dc2", "query")
        yield url_of(mesh.web)


@contextmanager
def two_datacenters(mesh: Mesh) -> Iterator[str]:
    """The prepared query fails over to dc2, since db is critical in dc1."""
    db_critical(mesh)
    until(lambda: mesh.call("query").startswith("dc2"))
    with held(mesh, query=4, dc2=2):
        talk(mesh, "query", "dc2")
        yield url_of(mesh.web)
    db_sound(mesh)
    until(lambda: mesh.call("db"))


@contextmanager
def five_hundred(mesh: Mesh) -> Iterator[str]:
    """As many live connections."""
    with held(mesh, db=300, dc2=120, query=80):
        talk(mesh, "db", seconds=2)
        yield url_of(mesh.web)


@contextmanager
def denied(mesh: Mesh) -> Iterator[str]:
    """An intention denies what another one allowed."""
    talk(mesh, "db", "dc2", seconds=4)
    mesh.allow("deny")
    until(lambda: not mesh.call("db"))
    talk(mesh, "db", seconds=4)
    yield url_of(mesh.web)
    mesh.allow()
    until(lambda: mesh.call("db"))


@contextmanager
def refusing(mesh: Mesh) -> Iterator[str]:
    """The same, at the callee: a caller is denied."""
    with denied(mesh):
        yield url_of(mesh.db)


@contextmanager
def degraded(mesh: Mesh) -> Iterator[str]:
    """One upstream has no instance."""
    register_web(query={"DestinationType": "service", "DestinationName": "cache"})(mesh)
    until(lambda: "has no instance (cache)" in mesh.web.status().get("headline", ""))
    with held(mesh, db=2):
        talk(mesh, "db", "query", seconds=4)
        yield url_of(mesh.web)
    register_web()(mesh)
    until(lambda: mesh.call("query"))


@contextmanager
def tunnels(mesh: Mesh) -> Iterator[str]:
    """Connections travel as streams of tunnels, one to each datacenter."""
    offer = {"connect_sidecar_tunnel": True}
    mesh.register("db", mesh.db_definition(Config=offer))
    mesh.register("dc2", mesh.far_definition(Config=offer))
    for one in mesh.sidecars.values():
        one.settings["tunnel"] = "auto"
    mesh.restart("db", "dc2", "web")
    until(lambda: (mesh.call("db"), mesh.call("dc2"), len(mesh.web.status()["tunnels"]) == 2)[-1])
    with held(mesh, db=5, dc2=3):
        talk(mesh, "db", "dc2")
        yield url_of(mesh.web)
    mesh.register("db", mesh.db_definition())
    mesh.register("dc2", mesh.far_definition())
    for one in mesh.sidecars.values():
        del one.settings["tunnel"]
    mesh.restart("db", "dc2", "web")


@contextmanager
def expired(mesh: Mesh) -> Iterator[str]:
    """Consul is silent until the leaf is over."""
    silent_until_expired(mesh)
    until(lambda: "expired" in mesh.web.status().get("headline", ""))
    yield url_of(mesh.web)
    start_consul_again(mesh)
    mesh.web.ready()


@contextmanager
def datacenter(mesh: Mesh) -> Iterator[str]:
    """A primary and a secondary without ACLs, so that a browser without a token may read the page."""
    with federation.running("embedded", Path(mkdtemp(dir=mesh.directory))) as both:
        for name, definition in mesh.registered.items():
            (both.dc2 if name == "dc2" else both.dc1).put("/v1/agent/service/register", definition)
        for pair, action in (("web&destination=db", "allow"), ("%2A&destination=db", "deny")):
            rule = {"SourceType": "consul", "Action": action}
            assert both.dc1.put(f"/v1/connect/intentions/exact?source={pair}", rule).status == 200
        near = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "Connect": True}
        assert both.dc1.post("/v1/query", {"Name": NEAR, "Service": near}).status == 200
        assert both.dc1.put("/v1/connect/ca/rotate", {}).status == 200
        until(lambda: len(both.dc1.get("/v1/connect/ca/roots").json["Roots"]) == 2)
        yield f"{both.dc1.url}/ui/"


@contextmanager
def datacenter_with_acls(mesh: Mesh) -> Iterator[str]:
    """The page where ACLs show an anonymous reader nothing."""
    yield f"{mesh.dc1.url}/ui/"


STATES: dict[str, State] = {
    "no-connection": no_connection,
    "healthy": healthy,
    "two-datacenters": two_datacenters,
    "500-connections": five_hundred,
    "denied": denied,
    "refusing": refusing,
    "degraded": degraded,
    "tunnels": tunnels,
    "expired": expired,
    "datacenter": datacenter,
    "datacenter-with-acls": datacenter_with_acls,
}
