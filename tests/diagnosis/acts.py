"""What faults are made by, and what cures them: acts of operators and accidents on the mesh."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from time import monotonic
from typing import Any

from tests.contract.federation import free_port
from tests.diagnosis import rights
from tests.diagnosis.fault import Act, Cure
from tests.diagnosis.mesh import Mesh, definition, until
from tests.diagnosis.other_mesh import other_mesh

LEAF_OF_SECONDS = ("-leaf-ttl", "12s")
LEAST = 3  # connections that a sidecar has to the agent of a crowded host
REFUSED = b"HTTP/1.1 429"
IDLE_SECONDS = 6.0  # more than a datacenter keeps the idle connection of another one

# --- tokens ---


def take_token(secret: str) -> Act:
    """Start web's sidecar with another token."""

    def act(mesh: Mesh) -> None:
        mesh.token_file.write_text(secret)
        mesh.restart("web", ready=False)

    return act


def give_rule(right: str) -> Cure:
    """Give the token the rules that the remedy names, and nothing else."""

    def act(mesh: Mesh, remedy: str) -> None:
        mesh.token_file.write_text(rights.cured(right, remedy))
        mesh.restart("web")

    return act


def no_token(mesh: Mesh) -> None:
    del mesh.web.settings["token_file"]
    mesh.restart("web", ready=False)


def no_token_file(mesh: Mesh) -> None:
    mesh.web.settings["token_file"] = str(mesh.directory / "nowhere.token")
    mesh.restart("web", ready=False)


def give_token(mesh: Mesh) -> None:
    mesh.token_file.write_text(rights.WEB)
    mesh.web.settings["token_file"] = str(mesh.token_file)
    mesh.restart("web")


def revoke(mesh: Mesh) -> None:
    mesh.faults(RevokedTokens=[mesh.token_file.read_text()])
    mesh.restart("web", ready=False)


# --- Consul ---


def stop_consul(mesh: Mesh) -> None:
    mesh.consul["dc1"].end()


def pause_consul(mesh: Mesh) -> None:
    mesh.consul["dc1"].send(signal.SIGSTOP)


def resume_consul(mesh: Mesh) -> None:
    mesh.consul["dc1"].send(signal.SIGCONT)


def silent_until_expired(mesh: Mesh) -> None:
    """Have web live by a leaf of seconds, and stop Consul before it signs the next one."""
    process = mesh.consul["dc1"]
    process.end()
    process.command += LEAF_OF_SECONDS
    mesh.start_consul()
    mesh.restart("web")
    process.end()


def start_consul_again(mesh: Mesh) -> None:
    command = mesh.consul["dc1"].command
    del command[-len(LEAF_OF_SECONDS) :]
    mesh.start_consul()


def another_http_addr(mesh: Mesh) -> None:
    mesh.kept["http_addr"] = mesh.web.settings["http_addr"]
    mesh.web.settings["http_addr"] = f"127.0.0.1:{mesh.apps['web'].port}"
    mesh.restart("web", ready=False)


def right_http_addr(mesh: Mesh) -> None:
    mesh.web.settings["http_addr"] = mesh.kept["http_addr"]
    mesh.restart("web")


def take_all_connections(mesh: Mesh) -> None:
    """Take all before web starts, those too that web had, and that others give back or had left idle.

    Each asks what blocks, since an idle one is closed after some seconds.
    """
    consul = mesh.web.settings["http_addr"]
    host, _, port = consul.rpartition(":")
    stack = mesh.kept["connections"] = ExitStack()
    roots = "/v1/connect/ca/roots"
    question = f"GET {roots}?index={mesh.dc1.get(roots).index}&wait=600s HTTP/1.1\r\nHost: {consul}\r\n\r\n"

    def answer(patience: float) -> bytes:
        """Take one connection; return what it is answered, nothing while its question blocks."""
        one = stack.enter_context(socket.create_connection((host, int(port))))
        one.sendall(question.encode())
        return one.recv(len(REFUSED)) if select.select([one], [], [], patience)[0] else b""

    taken_at = monotonic()

    def full() -> bool:
        nonlocal taken_at
        if answer(0.2) != REFUSED:
            taken_at = monotonic()
        return monotonic() > taken_at + IDLE_SECONDS

    assert mesh.web.process is not None
    mesh.web.process.end()
    for _ in range(200):
        answer(0)
    until(lambda: mesh.db.status()["consul"]["connections"] == LEAST)
    until(full)
    mesh.restart("web", ready=False)


def leave_connections(mesh: Mesh) -> None:
    mesh.kept.pop("connections").close()
    mesh.restart("web")


def skewed(seconds: int) -> Act:
    def act(mesh: Mesh) -> None:
        mesh.faults(ClockSkewSeconds=seconds)
        mesh.restart("web", ready=False)

    return act


def corrupt(how: str) -> Act:
    def act(mesh: Mesh) -> None:
        mesh.faults(Corrupt=how)
        mesh.restart("web", ready=False)

    return act


def sound(mesh: Mesh) -> None:
    mesh.faults()
    mesh.restart("web")


# --- the registration of web ---


def register_web(**changes: Any) -> Act:
    return lambda mesh: mesh.register("web", mesh.web_definition(**changes))


def deregister_web(mesh: Mesh) -> None:
    assert mesh.dc1.put("/v1/agent/service/deregister/web-sidecar-proxy").status == 200
    mesh.restart("web", ready=False)


def register_web_again(mesh: Mesh) -> None:
    mesh.register("web", mesh.web_definition())
    mesh.restart("web")


def upstream_at_the_app(mesh: Mesh) -> None:
    mesh.register("web", mesh.web_definition(query={"LocalBindPort": mesh.apps["web"].port}))


def another_takes(what: str) -> Act:
    def act(mesh: Mesh) -> None:
        assert mesh.web.process is not None
        mesh.web.process.end()
        port = mesh.ports["db"] if what == "upstream" else mesh.public["web"]
        mesh.kept["taken"] = socket.create_server(("127.0.0.1", port))
        mesh.web.start()

    return act


def port_is_free_again(mesh: Mesh) -> None:
    mesh.kept.pop("taken").close()
    mesh.restart("web")


# --- settings of web's sidecar ---


def wrong_setting(name: str, value: object) -> Act:
    def act(mesh: Mesh) -> None:
        mesh.web.settings[name] = value
        mesh.restart("web", ready=False)

    return act


def right_setting(name: str) -> Act:
    def act(mesh: Mesh) -> None:
        del mesh.web.settings[name]
        mesh.restart("web")

    return act


def deny_db(mesh: Mesh) -> None:
    roots = mesh.dc1.get("/v1/agent/connect/ca/roots").json
    file = mesh.directory / "denied"
    file.write_text(f"spiffe://{roots['TrustDomain']}/ns/default/dc/*/svc/db\n")
    mesh.web.settings["deny_file"] = str(file)
    mesh.restart("web")


def stop_web(mesh: Mesh) -> None:
    assert mesh.web.process is not None
    mesh.web.process.end()


def start_web(mesh: Mesh) -> None:
    mesh.restart("web")


# --- db ---


def register_db(**proxy: Any) -> Act:
    return lambda mesh: mesh.register("db", mesh.db_definition(**proxy))


def app_of_db_down(mesh: Mesh) -> None:
    mesh.kept["port"] = free_port()
    mesh.register("db", mesh.db_definition(LocalServicePort=mesh.kept["port"]))


def db_critical(mesh: Mesh) -> None:
    check = {"ID": "pulse", "Name": "the pulse of db", "TTL": "1h", "Status": "critical"}
    check["ServiceID"] = "db-sidecar-proxy"
    assert mesh.dc1.put("/v1/agent/check/register", check).status == 200


def db_sound(mesh: Mesh) -> None:
    assert mesh.dc1.put("/v1/agent/check/deregister/pulse").status == 200


def db_maintenance(on: str) -> Act:
    def act(mesh: Mesh) -> None:
        path = f"/v1/agent/service/maintenance/db-sidecar-proxy?enable={on}&reason=an-upgrade"
        assert mesh.dc1.put(path).status == 200

    return act


def run_the_command(mesh: Mesh, remedy: str) -> None:
    """Do what `consul intention create` of the remedy does."""
    words = remedy.partition("consul intention create ")[2].split()
    assert words == ["-replace", "-allow", "web", "db"], remedy
    mesh.allow()


def no_intention(mesh: Mesh) -> None:
    assert mesh.dc1.delete("/v1/connect/intentions/exact?source=web&destination=db").status == 200


# --- the way to db ---


def db_at(port: Callable[[Mesh], int]) -> Act:
    def act(mesh: Mesh) -> None:
        mesh.register(
            "db",
            definition(
                "db",
                mesh.apps["db"].port,
                ("127.0.0.1", port(mesh)),
                {"Config": {"bind_port": mesh.public["db"]}},
            ),
        )

    return act


def web_s_listener(mesh: Mesh) -> int:
    return mesh.public["web"]


def no_listener(_mesh: Mesh) -> int:
    return free_port()


def plain_app(mesh: Mesh) -> int:
    return mesh.apps["db"].port


register_db_again = register_db()


def another_mesh(mesh: Mesh) -> None:
    stack = mesh.kept["other mesh"] = ExitStack()
    port = stack.enter_context(other_mesh())
    db_at(lambda _: port)(mesh)


def leave_other_mesh(mesh: Mesh) -> None:
    register_db_again(mesh)
    mesh.kept.pop("other mesh").close()


def one_more_instance(mesh: Mesh) -> None:
    mesh.register(
        "db-2", {**definition("db", mesh.apps["db"].port, ("127.0.0.1", free_port()), {}), "ID": "db-2"}
    )


def one_instance(mesh: Mesh) -> None:
    for one in ("db-2-sidecar-proxy", "db-2"):
        assert mesh.dc1.put(f"/v1/agent/service/deregister/{one}").status == 200


def wan_to_nowhere(mesh: Mesh) -> None:
    mesh.register("dc2", mesh.far_definition(free_port()))


def wan_again(mesh: Mesh) -> None:
    mesh.register("dc2", mesh.far_definition())
