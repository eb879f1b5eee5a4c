"""Acts that take all that a limit leaves: connections of a listener, open files of a process."""

from __future__ import annotations

from contextlib import ExitStack, suppress

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
