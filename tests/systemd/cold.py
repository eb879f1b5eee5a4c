"""Cold boots beside a real Consul: servers, an agent, sidecars and an app start in any order, or late.

`CONSUL_BIN=… python -m tests.systemd.cold` boots every case and prints a line for each.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.contract.federation import consul_binary, consul_version, switched_off
from tests.systemd.boot import Machine, boot, until
from tests.systemd.mesh import CURL, PYTHON, install

MANAGER = "5ec7e700-0000-4000-8000-000000000000"
TOKENS = {"web": "5ec7e700-3eb0-4000-8000-000000000001", "db": "5ec7e700-db00-4000-8000-000000000002"}
API = "http://127.0.0.1:8500"
SERVER_API = "http://127.0.0.11:8500"
UPSTREAM = "http://127.0.0.1:9191/"
PORTS = {"web": 21000, "db": 21001}
APP_PORT = 8080
SERVER, AGENT, CALLER = "consul-server", "consul", "knocker-app"
SIDECARS = ("sidecar@web", "sidecar@db")
SOCKETS = ("sidecar@web.socket", "sidecar@db.socket", "sidecar-web-db.socket")
SERVERS_LATE = (0.0, 3.0, 10.0, 30.0)  # seconds
SERVED_WITHIN = 60.0  # seconds after the last piece is there
# Socket units come up early in every boot (sockets.target), before any service.
ORDERS = {
    "agent first": (AGENT, *SIDECARS, CALLER),
    "sidecars first": (*SIDECARS, CALLER, AGENT),
    "app first": (CALLER, AGENT, *SIDECARS),
    "one web, agent, the other": ("sidecar@web", CALLER, AGENT, "sidecar@db"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One boot. `servers_late`, `registered_late`: seconds after the rest."""

    order: str
    acl: bool
    servers_late: float = 0.0
    registered_late: float = 0.0

    def __str__(self) -> str:
        late = f"servers {self.servers_late:g} s late, registered {self.registered_late:g} s late"
        return f"{self.order}, ACLs {'on' if self.acl else 'off'}, {late}"


def cases() -> list[Case]:
    """Return twenty boots with ACLs on (orders × lateness of servers or registrations), and four without."""
    found = [Case(order=order, acl=True, servers_late=late) for order in ORDERS for late in SERVERS_LATE]
    found += [Case(order=order, acl=True, registered_late=10.0) for order in ORDERS]
    found += [
        Case(order=order, acl=False, servers_late=late) for order in list(ORDERS)[:2] for late in (0.0, 3.0)
    ]
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a boot went. `seconds`: from the last piece to an answer of db. `vain`: errors of the knocks."""

    seconds: float
    knocks: int
    vain: list[str]
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdMachine:
    """A machine on which everything is installed and nothing runs."""

    machine: Machine

    def boot(self, case: Case) -> Outcome:
        """Start everything in the order of the case, and wait until the app is answered through the mesh."""
        machine, began = self.machine, time.monotonic()
        machine.systemctl("start", *SOCKETS)
        machine.systemctl("start", "--no-block", *((SERVER,) if not case.servers_late else ()), *_first(case))
        if case.servers_late:
            _sleep_until(began + case.servers_late)
            machine.systemctl("start", "--no-block", SERVER)
        if case.registered_late:
            _sleep_until(began + case.registered_late)
            until(lambda: self._register(acl=case.acl) or None, "a registration")
        last = time.monotonic()
        until(lambda: self._answered() or None, f"an answer through the mesh: {case}", SERVED_WITHIN)
        seconds = time.monotonic() - last
        machine.systemctl("stop", CALLER)
        report = json.loads(machine.journal(CALLER).splitlines()[-1])
        restarts = sum(int(machine.show(f"{name}.service", "NRestarts")) for name in SIDECARS)
        return Outcome(seconds=seconds, knocks=report["knocks"], vain=report["vain"], restarts=restarts)

    def prepare(self, case: Case) -> None:
        """Write what the case needs: ACLs, and who is registered from the start."""
        write_consul(self.machine, acl=case.acl, registered=not case.registered_late)

    def end(self) -> None:
        """Stop everything, and forget what was registered with the agent."""
        self.machine.systemctl(
            "stop", *SOCKETS, CALLER, *(f"{name}.service" for name in SIDECARS), AGENT, SERVER
        )
        self.machine.systemctl("reset-failed", check=False)
        self.machine.run("bash", "-c", "rm -rf /var/lib/consul-agent/{services,checks}")

    def _answered(self) -> bool:
        return "hello from db" in self.machine.run(*CURL, UPSTREAM, check=False)

    def _register(self, *, acl: bool) -> bool:
        token = ("--header", f"X-Consul-Token: {MANAGER}") if acl else ()
        put = ("--fail", "--request", "PUT", "--output", "/dev/null", "--write-out", "%{http_code}")
        codes = {
            self.machine.run(
                *(*CURL, *put, *token, "--data", json.dumps(definition(name))),
                f"{API}/v1/agent/service/register",
                check=False,
            )
            for name in PORTS
        }
        return codes == {"200"}


def _first(case: Case) -> tuple[str, ...]:
    return ORDERS[case.order]


def _sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))  # the lateness of the case itself


def definition(name: str) -> dict[str, object]:
    """Return the registration of a service with its sidecar; web has db as an upstream."""
    upstreams = [{"DestinationName": "db", "LocalBindPort": 9191}] if name == "web" else []
    proxy = {"Upstreams": upstreams, "LocalServiceAddress": "127.0.0.1"}
    sidecar = {"Port": PORTS[name], "Address": "127.0.0.1", "Checks": [], "Proxy": proxy}
    return {"Name": name, "Port": APP_PORT, "Address": "127.0.0.1", "Connect": {"SidecarService": sidecar}}


def in_file(registered: Any) -> Any:
    """Return a registration as a file of Consul spells it: `SidecarService` is `sidecar_service` there."""
    if isinstance(registered, list):
        return [in_file(one) for one in registered]
    if not isinstance(registered, dict):
        return registered
    return {re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower(): in_file(value) for key, value in registered.items()}


def write_consul(machine: Machine, *, acl: bool, registered: bool) -> None:
    """Write the configurations of the server and of the agent."""
    binary = consul_binary()
    assert binary
    ports = switched_off(binary, "https", "grpc", "dns", "serf_wan")
    tokens = {"master": MANAGER, "agent": MANAGER, "default": ""}
    common = {
        "datacenter": "dc1",
        "connect": {"enabled": True},
        "acl": {"enabled": acl, "default_policy": "deny" if acl else "allow", "tokens": tokens},
        "performance": {"raft_multiplier": 1},
        "disable_update_check": True,
        "ports": ports,
        "log_level": "warn",
        "retry_join": ["127.0.0.11"],
        "retry_interval": "1s",
    }
    server = {"server": True, "bootstrap_expect": 1, "bind_addr": "127.0.0.11", "client_addr": "127.0.0.11"}
    agent: dict[str, object] = {"server": False, "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1"}
    if registered:
        snake = [in_file(definition(name)) for name in PORTS]
        agent["services"] = [{**one, "token": MANAGER if acl else ""} for one in snake]
    for name, own in ((SERVER, server), (AGENT, agent)):
        machine.write(f"/etc/{name}.json", json.dumps({**common, **own, "node_name": name}), mode=0o644)


def install_units(machine: Machine) -> None:
    """Install Consul's units as its package has them, the app, the sidecars' settings, tokens and sockets."""
    binary = consul_binary()
    for name, data in ((SERVER, "/var/lib/consul-server"), (AGENT, "/var/lib/consul-agent")):
        run = f"{binary} agent -config-file=/etc/{name}.json -data-dir={data}"
        machine.add_unit(
            f"{name}.service",
            f"[Service]\nType=notify\nExecStart={run}\nRestart=on-failure\nKillSignal=SIGTERM\n"
            "TimeoutStartSec=infinity\n",
        )
    install(machine, "app-db", "db", "127.0.0.1", str(APP_PORT))
    machine.write("/opt/knocker.py", Path(__file__).with_name("knocker.py").read_text())
    beside = "[Unit]\nWants=sidecar@web.service\n[Service]\n"
    machine.add_unit(f"{CALLER}.service", f"{beside}ExecStart={PYTHON} /opt/knocker.py 9191\n")
    for name, port in PORTS.items():
        machine.write(f"/etc/connect-sidecar/{name}.toml", f'sidecar_for = "{name}"\ndrain_seconds = 1\n')
        machine.write(f"/etc/connect-sidecar/{name}.token", f"{TOKENS[name]}\n", mode=0o600)
        listen = f"[Socket]\nListenStream=\nListenStream=127.0.0.1:{port}\n"
        machine.add_unit(f"sidecar@{name}.socket.d/listen.conf", listen)
    held = "ListenStream=127.0.0.1:9191\nFileDescriptorName=upstream-db\nBacklog=4096\n"
    machine.add_unit("sidecar-web-db.socket", f"[Socket]\n{held}Service=sidecar@web.service\n")


def make_tokens(machine: Machine) -> None:
    """Start the server once, so that it has the services' tokens and an intention for good."""
    machine.start(SERVER)
    words = ("--fail", "--request", "PUT", "--header", f"X-Consul-Token: {MANAGER}", "--output", "/dev/null")

    def put(path: str, body: object) -> bool | None:
        call = (*CURL, *words, "--write-out", "%{http_code}", "--data", json.dumps(body), SERVER_API + path)
        return machine.run(*call, check=False) == "200" or None

    for name, secret in TOKENS.items():
        token = {"SecretID": secret, "ServiceIdentities": [{"ServiceName": name}]}
        until(partial(put, "/v1/acl/token", token), f"a token of {name}", 60)
    allow = {"SourceName": "web", "DestinationName": "db", "Action": "allow"}
    until(lambda: put("/v1/connect/intentions/exact?source=web&destination=db", allow), "an intention")
    machine.systemctl("stop", SERVER)


@contextmanager
def cold_machine() -> Iterator[ColdMachine]:
    """A machine with everything installed and nothing running but the app behind db."""
    with boot() as machine:
        install_units(machine)
        write_consul(machine, acl=True, registered=True)
        make_tokens(machine)
        machine.start("app-db")
        yield ColdMachine(machine=machine)


def main() -> int:
    """Boot every case; return 0 if all served and the app was refused nothing."""
    binary = consul_binary()
    assert binary, "CONSUL_BIN"
    good = 0
    with cold_machine() as cold:
        for case in cases():
            cold.prepare(case)
            try:
                outcome = cold.boot(case)
            except AssertionError as error:
                sys.stdout.write(f"FAILED {error}\n")
                for name in (*SIDECARS, AGENT, SERVER):
                    sys.stdout.write(cold.machine.journal(f"{name}.service")[-1500:])
            else:
                good += not outcome.vain
                told = f"{outcome.seconds:5.1f} s, {len(outcome.vain)} of {outcome.knocks} knocks in vain"
                sys.stdout.write(f"{told}, {outcome.restarts} restarts: {case}\n")
            sys.stdout.flush()
            cold.end()
    sys.stdout.write(f"{good} of {len(cases())} beside Consul {consul_version(binary)}\n")
    return int(good != len(cases()))


if __name__ == "__main__":
    sys.exit(main())
