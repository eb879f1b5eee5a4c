"""Stands in for one sidecar inside its unit, tries to get at the one beside it, and prints what came of it.

    neighbour.py INSTANCE PID HOST PORT      of the other: its name, its main process, where it listens

Runs with nothing but the standard library; the unit cannot see the checkout, so it is installed as a file.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

BYTES = 16


class _Piece(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


def outcome(act: Callable[[], object]) -> str:
    """The name of the error an act ends in, or what it got."""
    try:
        return f"got {act()}"
    except OSError as error:
        return type(error).__name__


def read_memory(pid: int) -> None:
    """Read a few bytes at the other's address of our own buffer: whether there is any does not matter."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(BYTES)
    piece = _Piece(ctypes.cast(buffer, ctypes.c_void_p), BYTES)
    if libc.process_vm_readv(pid, ctypes.byref(piece), 1, ctypes.byref(piece), 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_readv")


def ask_to_drain(path: str) -> bytes:
    """`POST /drain` at the other's admin socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        asking.sendall(b"POST /drain HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\n\r\n")
        return asking.recv(100)


def share_port(host: str, port: int) -> None:
    """Take a share of the other's callers: the kernel allows that to processes of one user."""
    with socket.socket() as sharing:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sharing.bind((host, port))
        sharing.listen()


def take_runtime(path: str) -> None:
    """Put a socket where the other's was, or will be."""
    with socket.socket(socket.AF_UNIX) as taking:
        taking.bind(path)


def report(instance: str, pid: int, host: str, port: int) -> dict[str, object]:
    """What each attempt came to."""
    runtime = Path(f"/run/connect-sidecar/{instance}")
    return {
        "drain": outcome(lambda: ask_to_drain(f"{runtime}/admin.sock")),
        "list its runtime directory": outcome(lambda: list(runtime.iterdir())),
        "write its runtime directory": outcome(lambda: take_runtime(f"{runtime}/other.sock")),
        "write beside it": outcome(lambda: take_runtime("/run/connect-sidecar/third")),
        "read its token": outcome(Path(f"/run/credentials/sidecar@{instance}.service/token").read_text),
        "see it in /proc": outcome(lambda: list(Path(f"/proc/{pid}").iterdir())),
        "read its memory": outcome(lambda: read_memory(pid)),
        "share its port": outcome(lambda: share_port(host, port)),
        "leave something in /dev/shm": outcome(Path("/dev/shm/left").touch),
        "list message queues": outcome(lambda: list(Path("/dev/mqueue").iterdir())),
        "leave something in /tmp": outcome(Path("/tmp/left").touch),
        "signal": outcome(lambda: os.kill(pid, signal.SIGTERM)),
        "signal by descriptor": outcome(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM)),
    }


def main() -> None:
    """Report, say READY, wait for the end."""
    instance, pid, host, port = sys.argv[1:]
    sys.stdout.write(json.dumps(report(instance, int(pid), host, int(port))) + "\n")
    sys.stdout.flush()
    notified = os.environ["NOTIFY_SOCKET"]  # noqa: TID251 - a program of its own
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", notified)
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
