"""Sockets to listen on: TCP addresses and unix socket paths, taken with a clear word when they cannot be.

Binding and listening are two steps: an address that is in use shows at once, while callers are let in only
when they can be served.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent.exits import ExitCode
from agent.legs import tune
from agent.registration import Address, UnixAddress

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
_REMEDY = {
    errno.EADDRINUSE: "it is in use; end the other process or choose another address",
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "its directory does not exist",
}


class BindFailed(Exception):
    """An address cannot be listened on; the text names it and says what to do."""

    def __init__(self, purpose: str, address: object, error: OSError) -> None:
        why = _REMEDY.get(error.errno or 0, error.strerror or str(error))
        super().__init__(f"cannot listen on {address} for {purpose}: {why}")
        denied = error.errno in (errno.EACCES, errno.EPERM)
        self.code = ExitCode.PERMISSION if denied else ExitCode.CONFIGURATION


@dataclass(slots=True, kw_only=True)
class Bound:
    """A bound socket; for a unix socket also the file, which is ours to remove."""

    purpose: str
    address: str  # as bound: with the port the kernel chose
    sock: socket.socket = field(repr=False)
    path: Path | None = None
    inode: int = 0

    def listen(self) -> None:
        """Let callers in. Raises BindFailed: of two sockets bound to one port, the second may not listen."""
        try:
            tune(self.sock)  # whatever it accepts inherits that: five system calls fewer for each
            self.sock.listen(BACKLOG)
        except OSError as error:
            raise BindFailed(self.purpose, self.address, error) from error

    def close(self) -> None:
        """Stop listening, and remove the socket file unless somebody has put another in its place."""
        self.sock.close()
        if self.path is not None and _inode(self.path) == self.inode:
            self.path.unlink(missing_ok=True)


async def bind(address: Address, purpose: str, mode: int | None = None) -> Bound:
    """Bind a non-blocking socket; `mode` is for a unix socket's file. Raises BindFailed."""
    try:
        if isinstance(address, UnixAddress):
            return _bind_path(Path(address.path), purpose, mode)
        return await _bind_tcp(address.host, address.port, purpose)
    except OSError as error:
        raise BindFailed(purpose, address, error) from error


def adopt(sock: socket.socket, purpose: str) -> Bound:
    """A socket that was handed to us, bound already."""
    return Bound(purpose=purpose, address=_name(sock), sock=sock)


async def _bind_tcp(host: str, port: int, purpose: str) -> Bound:
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, place = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(place)
    except BaseException:
        sock.close()
        raise
    return Bound(purpose=purpose, address=_name(sock), sock=sock)


def _bind_path(path: Path, purpose: str, mode: int | None) -> Bound:
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # Nobody may connect between bind and chmod, so the file starts out closed.
        previous = os.umask(0o177) if mode is not None else None
        try:
            sock.bind(str(path))
        finally:
            if previous is not None:
                os.umask(previous)
        if mode is not None:
            path.chmod(mode)
    except BaseException:
        sock.close()
        raise
    return Bound(purpose=purpose, address=f"unix:{path}", sock=sock, path=path, inode=_inode(path))


def _clear_stale(path: Path) -> None:
    """Remove a socket file nobody answers at; raise OSError if somebody does, or if it is something else."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError(errno.EEXIST, "something that is not a socket is there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise OSError(errno.EADDRINUSE, "somebody answers there")


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def _name(sock: socket.socket) -> str:
    if sock.family == socket.AF_UNIX:
        return f"unix:{sock.getsockname()}"
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
