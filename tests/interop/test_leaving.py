"""A sidecar of ours leaves while callers of three kinds come, beside a real Consul: no call fails.

Two instances of `db` behind our sidecars; `web` calls them through our own, Consul's, and an Envoy that
Consul configures, about forty times a second each.

`CONSUL_BIN=… python -m pytest tests/interop/test_leaving.py` repeats it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from time import monotonic, sleep
from urllib.request import urlopen

import pytest

from agent.control.self_registration import STOPPING
from tests.contract.apps import App, ask, serving
from tests.contract.client import Api
from tests.contract.federation import consul_binary, free_port, running
from tests.contract.mesh import put
from tests.contract.processes import Process, process
from tests.interop.mixed import Kind, command_of, until

pytestmark = [
    pytest.mark.consul,
    pytest.mark.envoy,
    pytest.mark.slow,
    pytest.mark.usefixtures("envoy_binary"),
    pytest.mark.skipif(consul_binary() is None, reason="no real Consul: CONSUL_BIN, or `consul` on PATH"),
]

PAUSE = 0.025  # seconds between two calls of one caller
AFTER = (
    16.0  # seconds of calls after the end was asked for: more than any cache of Consul's keeps an instance
)
GONE = 2.0  # seconds after it serves, in which a maintenance of ours must be gone


@dataclass(slots=True)
class Caller:
    """An app that calls an upstream, one new connection each time, until told to stop."""

    port: int
    answers: Counter[str] = field(default_factory=Counter)
    failures: list[float] = field(default_factory=list)  # when, by the monotonic clock
    _stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Call; an empty answer is a failure."""
        while not self._stop.wait(PAUSE):
            answer = ask(self.port)
            self.answers[answer] += 1
            if not answer:
                self.failures.append(monotonic())

    def stop(self) -> None:
        """Make this call the last."""
        self._stop.set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """The mesh, running. `upstreams`: where each kind of caller dials."""

    api: Api
    upstreams: dict[Kind, int]
    instances: dict[str, Process]
    admins: dict[str, int]

    def reason(self, name: str) -> str | None:
        """Return the reason of the maintenance of an instance's proxy; None without one."""
        check = self.api.get("/v1/agent/checks").json.get(f"_service_maintenance:{name}-sidecar-proxy")
        return None if check is None else str(check["Notes"])

    def ready(self, name: str) -> bool:
        """Tell whether an instance says that it serves."""
        try:
            with urlopen(f"http://127.0.0.1:{self.admins[name]}/ready", timeout=5) as answer:
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    def serves(self, name: str) -> bool:
        """Tell whether calls of our own caller come to this instance."""
        return f"{name} hello" in {ask(self.upstreams[Kind.OURS]) for _ in range(8)}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Leaving]:
    """Both instances serve every caller."""
    directory = tmp_path_factory.mktemp("leaving")
    grpc = [free_port(), free_port()]
    upstreams = {kind: free_port() for kind in Kind}
    with ExitStack() as stack:
        api = stack.enter_context(running("consul", directory, grpc=grpc)).dc1
        instances, admins = dict[str, Process](), {name: free_port() for name in ("db-1", "db-2")}
        for name in ("db-1", "db-2"):
            put(api, service(name, stack.enter_context(serving(App(name))).port, {}))
            words = ours(name, api, admins[name])
            instances[name] = stack.enter_context(process(words, directory / f"{name}.log"))
        for kind, port in upstreams.items():
            put(api, service(f"web-{kind}", 9, {"DestinationName": "db", "LocalBindPort": port}))
            words = command_of(kind, f"web-{kind}", api, grpc[0], directory)
            stack.enter_context(process(words, directory / f"web-{kind}.log"))
        made = Leaving(api=api, upstreams=upstreams, instances=instances, admins=admins)
        for port in upstreams.values():
            until(partial(both, port), "calls to both instances")
        yield made


def both(port: int) -> bool:
    """Tell whether calls come to both instances."""
    return {ask(port) for _ in range(12)} >= {"db-1 hello", "db-2 hello"}


def service(name: str, port: int, upstream: dict[str, object]) -> dict[str, object]:
    """Return the registration of an instance with its sidecar."""
    proxy = {"Upstreams": [upstream] if upstream else []}
    sidecar = {"Address": "127.0.0.1", "Port": free_port(), "Proxy": proxy, "Checks": []}
    kind = "db" if name.startswith("db-") else name
    return {
        "ID": name,
        "Name": kind,
        "Address": "127.0.0.1",
        "Port": port,
        "Connect": {"SidecarService": sidecar},
    }


def ours(name: str, api: Api, port: int) -> list[str]:
    """Return the command of a sidecar of ours with the default leave_seconds."""
    admin = ["-admin-bind", f"127.0.0.1:{port}", "-drain-seconds", "5"]
    return [sys.executable, "-m", "agent", "run", "-sidecar-for", name, "-http-addr", api.url, *admin]


def test_no_call_of_any_kind_of_caller_fails_while_one_of_two_leaves(mesh: Leaving) -> None:
    callers = {kind: Caller(port=port) for kind, port in mesh.upstreams.items()}
    threads = [threading.Thread(target=caller.run) for caller in callers.values()]
    for thread in threads:
        thread.start()
    try:
        sleep(2)
        began = monotonic()
        mesh.instances["db-1"].end()
        sleep(max(0.0, AFTER - (monotonic() - began)))
    finally:
        for caller in callers.values():
            caller.stop()
        for thread in threads:
            thread.join()
    when = {kind: [round(at - began, 2) for at in caller.failures] for kind, caller in callers.items()}
    assert when == {kind: [] for kind in Kind}
    assert all(caller.answers["db-1 hello"] and caller.answers["db-2 hello"] for caller in callers.values())
    mesh.instances["db-1"].restart()
    until(lambda: mesh.serves("db-1"), "calls to the instance that came back")


def test_a_maintenance_of_ours_is_gone_soon_after_a_kill_amid_the_announcement(mesh: Leaving) -> None:
    instance = mesh.instances["db-1"]
    instance.terminate()
    until(lambda: mesh.reason("db-1") == STOPPING, "the maintenance")
    instance.kill()
    instance.restart()
    until(lambda: mesh.ready("db-1"), "an instance that serves")
    serving_since = monotonic()
    until(lambda: mesh.reason("db-1") is None, "the end of the maintenance")
    took = monotonic() - serving_since
    assert took < GONE
    until(lambda: mesh.serves("db-1"), "calls to the instance that came back")
