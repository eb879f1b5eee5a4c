"""Acts that take all that a limit leaves: connections of a listener, open files of a process."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack, suppress
from threading import Event, Thread

from tests.contract.apps import Conversation
from tests.diagnosis.fault import Act
from tests.diagnosis.mesh import Mesh


def few_connections(name: str, **settings: int) -> Act:
    """Start a sidecar with a limit, and take all that it leaves by calls of web's."""

    def act(mesh: Mesh) -> None:
        mesh.sidecars[name].settings |= settings
        mesh.restart(name)
        hold(mesh, 1)

    return act


def more_connections(name: str, setting: str) -> Act:
    def act(mesh: Mesh) -> None:
        mesh.kept.pop("held").close()
        del mesh.sidecars[name].settings[setting]
        mesh.restart(name)

    return act


def hold(mesh: Mesh, count: int) -> None:
    stack = mesh.kept["held"] = ExitStack()
    for _ in range(count):
        stack.enter_context(Conversation(mesh.ports["db"])).ask("stay")


class Flood:
    """Callers that connect and say nothing, so many at a time, until closed."""

    def __init__(self, port: int, count: int) -> None:
        self._socks: list[socket.socket] = []
        self._over = Event()
        self._port, self._count = port, count
        self._thread = Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            readable, _, _ = select.select(self._socks, [], [], 0)
            for sock in readable:  # turned away
                self._socks.remove(sock)
                sock.close()
            while len(self._socks) < self._count:
                self._socks.append(socket.create_connection(("127.0.0.1", self._port)))

    def close(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()
        for sock in self._socks:
            sock.close()


def one_source_floods(mesh: Mesh) -> None:
    """Start db's sidecar with few handshakes and a short line, and take more than the share of one source.

    The line is a quarter of the open files.
    """
    db = mesh.db
    assert db.process is not None
    mesh.kept["command"] = db.process.command
    db.process.command = ["prlimit", "--nofile=160", *db.process.command]
    db.settings["max_handshakes"] = 2
    mesh.restart("db")
    mesh.kept["held"] = Flood(mesh.public["db"], 30)


def more_handshakes(mesh: Mesh) -> None:
    mesh.kept.pop("held").close()
    db = mesh.db
    assert db.process is not None
    db.process.command = mesh.kept.pop("command")
    del db.settings["max_handshakes"]
    mesh.restart("db")


def few_files(mesh: Mesh) -> None:
    """Start web's sidecar with few open files, and hold connections until it takes no more."""
    assert mesh.web.process is not None
    mesh.kept["command"] = mesh.web.process.command
    mesh.web.process.command = ["prlimit", "--nofile=100", *mesh.web.process.command]
    mesh.restart("web")
    stack = mesh.kept["held"] = ExitStack()
    with suppress(TimeoutError):  # of the first that waits in the kernel's queue
        while stack.enter_context(Conversation(mesh.ports["db"])).ask("stay"):
            pass


def more_files(mesh: Mesh) -> None:
    mesh.kept.pop("held").close()
    assert mesh.web.process is not None
    mesh.web.process.command = mesh.kept.pop("command")
    mesh.restart("web")
