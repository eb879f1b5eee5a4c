"""Binds TCP addresses and unix sockets, with a clear message where that fails.

Binding and listening are two steps: an address in use shows at once, while callers are accepted only when
they can be served.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from dataclasses import dataclass, field
from pathlib import Path

import trio

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.base.exits import ExitCode
from agent.net.dial import tune

BACKLOG = 4096  # the kernel caps it at net.core.somaxconn
_REMEDY = {
    errno.EADDRINUSE: "it is in use; end the other process or choose another address",
    errno.EADDRNOTAVAIL: "it is not an address of this machine",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENOENT: "its directory does not exist",
}


_FINAL = {None, errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENAMETOOLONG}


class BindFailed(Exception):
    """An address cannot be bound; the text names it and says what to do."""

    def __init__(self, purpose: str, address: object, error: OSError) -> None:
        why = _REMEDY.get(error.errno or 0, error.strerror or str(error))
        super().__init__(f"cannot listen on {address} for {purpose}: {why}")
        denied = error.errno in (errno.EACCES, errno.EPERM)
        self.passing = error.errno not in _FINAL  # a moment later the address may be had
        self.code = ExitCode.PERMISSION if denied else ExitCode.CONFIGURATION


@dataclass(slots=True, kw_only=True)
class Bound:
    """A bound socket; for a unix socket also its file, which `close` removes."""

    purpose: str
    address: str  # as bound, with the port that the kernel chose
    sock: socket.socket = field(repr=False)
    path: Path | None = None
    inode: int = 0
    shareable: bool = False  # `another` can be made
    handed: bool = False  # by a socket unit, which has it whether the service runs or not
    kept: str = ""  # the name under which the service manager keeps it (agent.net.kept)

    def listen(self) -> None:
        """Start to listen.

        Raises BindFailed, since the second of two sockets bound to one port may not listen.
        """
        try:
            tune(self.sock)  # accepted sockets inherit the options: five system calls fewer for each
            self.sock.listen(BACKLOG)
        except OSError as error:
            raise BindFailed(self.purpose, self.address, error) from error

    def own_path(self, path: Path) -> None:
        """Take the file of a unix socket for this one's, to be removed with it."""
        self.path, self.inode = path, _inode(path)

    def close(self) -> None:
        """Stop accepting, and remove the socket file unless another process has replaced it.

        A socket that is kept goes on listening for the next process, so its file stays.
        """
        self.sock.close()
        if self.path is not None and not self.kept and _inode(self.path) == self.inode:
            self.path.unlink(missing_ok=True)


async def bind(address: Address, purpose: str, mode: int | None = None, *, shareable: bool = False) -> Bound:
    """Bind a non-blocking socket; `mode` is for a unix socket's file. Raises BindFailed.

    `shareable`: `another` socket can be bound to the same TCP address, for another process of ours.
    """
    try:
        if isinstance(address, UnixAddress):
            return _bind_path(Path(address.path), purpose, mode)
        return await _bind_tcp(address.host, address.port, purpose, shareable=shareable)
    except OSError as error:
        raise BindFailed(purpose, address, error) from error
    except ValueError as error:  # a label too long for DNS, or a NUL in it
        no_address = OSError(errno.EINVAL, f"it is no address: {error}")
        raise BindFailed(purpose, address, no_address) from error


def adopt(sock: socket.socket, purpose: str) -> Bound:
    """Return a duplicate of a socket that was handed over, bound already; the socket itself stays open.

    Raises BindFailed for want of a descriptor.
    """
    try:
        return Bound(purpose=purpose, address=str(address_of(sock)), sock=sock.dup(), handed=True)
    except OSError as error:
        raise BindFailed(purpose, address_of(sock), error) from error


def another(bound: Bound) -> Bound:
    """Return one more listening socket at the address of a shareable one; the kernel distributes the callers.

    Raises BindFailed.
    """
    try:
        sock = _tcp_socket(bound.sock.family, bound.sock.getsockname(), shareable=True)
    except OSError as error:
        raise BindFailed(bound.purpose, bound.address, error) from error
    more = Bound(purpose=bound.purpose, address=bound.address, sock=sock)
    more.listen()
    return more


def beside(kept: Bound) -> Bound:
    """Return a shareable socket at the address of one that is kept, for `another`; it does not listen.

    Raises BindFailed.
    """
    try:
        sock = _tcp_socket(kept.sock.family, kept.sock.getsockname(), shareable=True)
    except OSError as error:
        raise BindFailed(kept.purpose, kept.address, error) from error
    return Bound(purpose=kept.purpose, address=kept.address, sock=sock, shareable=True)


async def _bind_tcp(host: str, port: int, purpose: str, *, shareable: bool) -> Bound:
    family, place = await place_of(host, port)
    if shareable and port:
        # SO_REUSEPORT alone would let us share an address with another agent of the same user.
        _tcp_socket(family, place, shareable=False).close()
    sock = _tcp_socket(family, place, shareable=shareable)
    return Bound(purpose=purpose, address=str(address_of(sock)), sock=sock, shareable=shareable)


async def place_of(host: str, port: int) -> tuple[int, object]:
    """Return the family and the socket address that are bound for a host. Raises OSError, ValueError."""
    if not 0 <= port <= 65535:  # the resolver would take it modulo 65536
        raise OSError(errno.EINVAL, "there is no such port")
    found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, place = found[0]
    return family, place


def _tcp_socket(family: int, place: object, *, shareable: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shareable:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(place)  # type: ignore[arg-type]  # a socket address has as many forms as there are families
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_path(path: Path, purpose: str, mode: int | None) -> Bound:
    _clear_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # No process may connect between bind and chmod, so the file starts without permissions.
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
    """Remove a socket file without a listener.

    Raises OSError if there is a listener, or another kind of file.
    """
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
            pass  # its backlog is full, so there is a listener
    raise OSError(errno.EADDRINUSE, "another process listens there")


def _inode(path: Path) -> int:
    try:
        return path.lstat().st_ino
    except FileNotFoundError:
        return 0


def address_of(sock: socket.socket) -> Address:
    """Return the address a socket is bound to."""
    if sock.family == socket.AF_UNIX:
        return UnixAddress(str(sock.getsockname()))
    host, port = sock.getsockname()[:2]
    return TcpAddress(host, port)
