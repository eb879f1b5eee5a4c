"""A mesh of processes to put faults into: web calls db in dc1, db in dc2 over the WAN, and a prepared query.

ACLs are on in both datacenters, and each right of web's sidecar can be taken away: it has a file for its
token. The settings of a sidecar are in a file too, so that a fault can be one of them.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import free_port
from tests.contract.processes import Process
from tests.contract.services import wan
from tests.diagnosis.rights import MANAGER, SIDECARS, WEB, tokens_file

SECONDS = 40.0  # until something is seen, on a machine that does other things too
NEAR = "db-near"
LAN_OF_DC2, WAN_OF_DC2 = "127.0.0.41", "127.0.0.42"

Table = dict[str, Any]


@dataclass(kw_only=True)
class Sidecar:
    """A sidecar of ours: its file of settings, and its process. `before`: its metrics before a fault."""

    file: Path
    settings: Table
    admin: int
    process: Process | None = None
    before: str = ""

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an answer of the admin endpoint; status 0 if none answers."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.admin, timeout=SECONDS)) as connection:
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()
            except OSError:
                return 0, ""

    def status(self) -> Table:
        """`/status`; empty if no agent answers."""
        _, text = self.get("/status")
        return dict(json.loads(text)) if text else {}

    def write(self) -> None:
        """Put the settings into the file."""
        self.file.write_text(
            "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.settings.items())
        )

    def start(self) -> None:
        """Start it, or start it again, by the settings as they are now."""
        self.write()
        if self.process is None:
            words = [sys.executable, "-m", "agent", "run", "-config", str(self.file)]
            self.process = Process(words, self.file.with_suffix(".log"))
        else:
            self.process.end()
            self.process.restart()

    def ready(self) -> None:
        """Wait until it is ready, and remember its metrics."""
        until(lambda: self.get("/ready")[0] == 200, lambda: f"{self.get('/ready')}\n{self.log()}")
        self.before = self.get("/metrics")[1]

    def log(self) -> str:
        """The end of its log."""
        return "" if self.process is None else self.process.last_words()


def until(true: Callable[[], object], why: Callable[[], object] = str) -> None:
    """Wait for what other processes do; there is no event of theirs to wait on."""
    deadline = monotonic() + SECONDS
    while not true():
        assert monotonic() < deadline, f"never seen: {why()}"
        sleep(0.05)


@dataclass(kw_only=True)
class Mesh:
    """All of it. `registered`: the definitions in force. `ports`: web's upstreams, by name."""

    directory: Path
    dc1: Api
    dc2: Api
    consul: dict[str, Process]
    apps: dict[str, App]
    sidecars: dict[str, Sidecar] = field(default_factory=dict)
    registered: dict[str, Table] = field(default_factory=dict)
    ports: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("db", "dc2", "query")}
    )
    public: dict[str, int] = field(
        default_factory=lambda: {name: free_port() for name in ("web", "db", "dc2")}
    )
    kept: dict[str, Any] = field(default_factory=dict)  # what a fault leaves for its cure

    @property
    def web(self) -> Sidecar:
        """The caller's."""
        return self.sidecars["web"]

    @property
    def db(self) -> Sidecar:
        """The callee's."""
        return self.sidecars["db"]

    @property
    def token_file(self) -> Path:
        """Where web's sidecar has its token."""
        return self.directory / "web.token"

    def call(self, name: str = "db") -> str:
        """Call an upstream of web's as its app does; empty if that failed."""
        return ask(self.ports[name])

    def register(self, name: str, definition: Table) -> None:
        """Register a service with its sidecar, in dc1 unless the name is dc2."""
        api = self.dc2 if name == "dc2" else self.dc1
        answer = api.put("/v1/agent/service/register", definition)
        assert (answer.status, answer.text) == (200, ""), answer.text
        self.registered[name] = definition

    def web_definition(self, **changes: Any) -> Table:
        """The definition of web; `changes` are upstreams by name, None to leave one out."""
        upstreams: dict[str, Table] = {
            "db": {"DestinationName": "db", "LocalBindPort": self.ports["db"]},
            "dc2": {"DestinationName": "db", "Datacenter": "dc2", "LocalBindPort": self.ports["dc2"]},
            "query": {
                "DestinationType": "prepared_query",
                "DestinationName": NEAR,
                "LocalBindPort": self.ports["query"],
                "Config": {"poll_interval": "500ms"},
            },
        }
        upstreams = {name: {**one, **changes.get(name, {})} for name, one in upstreams.items()}
        proxy = {"Upstreams": list(upstreams.values())}
        return definition("web", self.apps["web"].port, ("127.0.0.1", self.public["web"]), proxy)

    def db_definition(self, **proxy: Any) -> Table:
        """The definition of db in dc1."""
        return definition("db", self.apps["db"].port, ("127.0.0.1", self.public["db"]), proxy)

    def far_definition(self, port: int | None = None, **proxy: Any) -> Table:
        """The definition of db in dc2, whose WAN address may lead to another port."""
        at = (LAN_OF_DC2, self.public["dc2"])
        tagged = wan(WAN_OF_DC2, port or at[1])
        return definition("db", self.apps["dc2"].port, at, proxy, TaggedAddresses=tagged)

    def allow(self, action: str = "allow") -> None:
        """Write the intention from web to db; it comes to dc2 by replication."""
        rule = {"SourceType": "consul", "Action": action}
        answer = self.dc1.put("/v1/connect/intentions/exact?source=web&destination=db", rule)
        assert answer.status == 200, answer.text

    def faults(self, **switches: object) -> None:
        """Set the switches of dc1; none ends them all."""
        assert self.dc1.put("/v1/internal/faults", switches).status == 200

    def start_consul(self, name: str = "dc1") -> None:
        """Start a datacenter again, and wait until it answers."""
        self.consul[name].restart()
        until(lambda: answers({"dc1": self.dc1, "dc2": self.dc2}[name]))

    def restart(self, *names: str, ready: bool = True) -> None:
        """Start sidecars again by their settings as they are now."""
        for name in names:
            self.sidecars[name].start()
        for name in names if ready else ():
            self.sidecars[name].ready()

    def close(self) -> None:
        """Close what a fault without its cure has left open."""
        for one in self.kept.values():
            if hasattr(one, "close"):
                one.close()


def definition(name: str, port: int, at: tuple[str, int], proxy: Table, **more: Any) -> Table:
    """A service with its sidecar, whose only check is that of the service itself."""
    checks = [{"Name": "the service itself", "AliasService": name}]
    sidecar = {"Address": at[0], "Port": at[1], "Proxy": proxy, "Checks": checks, **more}
    address = {"Address": "127.0.0.1", "Port": port}
    return {"Name": name, **address, "Connect": {"SidecarService": sidecar}}


def answers(api: Api) -> bool:
    """Whether a datacenter signs leaves."""
    try:
        return api.get("/v1/agent/connect/ca/leaf/readiness-probe").status == 200
    except OSError:
        return False


@contextmanager
def running(directory: Path) -> Iterator[Mesh]:
    """Everything up, ready, and called once."""
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=4))
        urls = [f"http://127.0.0.1:{free_port()}" for _ in range(2)]
        file = directory / "tokens.toml"
        file.write_text(tokens_file())
        (directory / "manager.token").write_text(MANAGER)
        consul = {}
        for name, url in zip(("dc1", "dc2"), urls, strict=True):
            log = directory / f"{name}.log"
            consul[name] = Process(_datacenter(name, url, urls[0], directory, file), log)
            stack.callback(consul[name].end)
        dc1, dc2 = (
            Api(f"dc{number}", url, threads, token=MANAGER) for number, url in enumerate(urls, start=1)
        )
        apps = {name: stack.enter_context(serving(App(name))) for name in ("web", "db", "dc2")}
        mesh = Mesh(directory=directory, dc1=dc1, dc2=dc2, consul=consul, apps=apps)
        stack.callback(mesh.close)
        for api in (dc1, dc2):
            until(partial(answers, api), lambda: [one.last_words() for one in consul.values()])
        _settle(mesh)
        for name in ("db", "dc2", "web"):
            sidecar = _sidecar(mesh, name)
            mesh.sidecars[name] = sidecar
            sidecar.start()
            assert sidecar.process is not None
            stack.callback(sidecar.process.end)
        for sidecar in mesh.sidecars.values():
            sidecar.ready()
        for name in mesh.ports:
            until(partial(mesh.call, name), mesh.web.log)
        yield mesh


def _settle(mesh: Mesh) -> None:
    mesh.token_file.write_text(WEB)
    mesh.register("db", mesh.db_definition())
    mesh.register("dc2", mesh.far_definition())
    near = {"Service": "db", "Failover": {"Datacenters": ["dc2"]}, "Connect": True}
    assert mesh.dc1.post("/v1/query", {"Name": NEAR, "Service": near}).status == 200
    mesh.register("web", mesh.web_definition())
    mesh.allow()


def _sidecar(mesh: Mesh, name: str) -> Sidecar:
    admin = free_port()
    service = "web" if name == "web" else "db"
    api = mesh.dc2 if name == "dc2" else mesh.dc1
    settings: Table = {
        "sidecar_for": service,
        "http_addr": api.url.removeprefix("http://"),
        "admin_bind": f"127.0.0.1:{admin}",
        "drain_seconds": 0.1,
        "leave_seconds": 0,
        "state_max_age": 0,
    }
    settings |= {"token_file": str(mesh.token_file)} if name == "web" else {"token": SIDECARS[service]}
    if name == "dc2":
        settings["listen"] = f"{WAN_OF_DC2}:{mesh.public['dc2']}"
    return Sidecar(file=mesh.directory / f"{name}.toml", settings=settings, admin=admin)


def _datacenter(name: str, url: str, primary: str, directory: Path, tokens: Path) -> list[str]:
    command = [sys.executable, "-m", "agent", "datacenter", "-name", name, "-config", str(tokens)]
    command += ["-http-addr", url.removeprefix("http://"), "-data-dir", str(directory / name)]
    command += ["-default-policy", "deny", "-enable-faults", "-leaf-rotation-jitter", "1s"]
    command += ["-translate-wan-addrs"]
    if name == "dc2":
        command += ["-primary-datacenter", "dc1", "-primary-addr", primary]
        command += ["-replication-token-file", str(directory / "manager.token")]
    return command
