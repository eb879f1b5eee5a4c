"""journald's own protocol: one datagram for each entry, its fields as they are.

The protocol is described at https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.

A full socket makes no writer wait: entries are kept and lost as lines are (agent.process.sink). An entry that
is too long for a datagram goes in a sealed memfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Mapping
from functools import partial

from agent.process.sink import Sink, Way

SOCKET = "/run/systemd/journal/socket"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_GONE = (errno.ECONNREFUSED, errno.ENOTCONN, errno.ECONNRESET)  # journald has started again


def entry(priority: int, message: str, fields: Mapping[str, object]) -> bytes:
    """Return the datagram of an entry; each field is named SIDECAR_ and its name in capitals."""
    named = {"PRIORITY": priority, "SYSLOG_IDENTIFIER": "sidecar", "MESSAGE": message}
    ours = {f"SIDECAR_{name.upper()}": value for name, value in fields.items()}
    return b"".join(_field(name, str(value)) for name, value in {**named, **ours}.items())


def journal_sink(path: str = SOCKET) -> Sink | None:
    """Return a sink whose every write is an entry; None if there is no journald."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.connect(path)
    except OSError:
        sock.close()
        return None
    return Sink(None, way=Way(partial(_send, sock, path), sock.fileno(), close=sock.close))


def _field(name: str, value: str) -> bytes:
    data = value.encode(errors="backslashreplace")
    if b"\n" not in data:
        return b"%b=%b\n" % (name.encode(), data)
    return b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data)


def _send(sock: socket.socket, path: str, data: bytes) -> int:
    """Send one entry; return its length. Raises BlockingIOError, OSError."""
    try:
        sock.send(data)
    except OSError as error:
        if error.errno in _GONE:
            sock.connect(path)
            sock.send(data)
        elif error.errno == errno.EMSGSIZE:
            _send_sealed(sock, data)
        else:
            raise
    return len(data)


def _send_sealed(sock: socket.socket, data: bytes) -> None:
    descriptor = os.memfd_create("sidecar-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        socket.send_fds(sock, [b""], [descriptor])
    finally:
        os.close(descriptor)
