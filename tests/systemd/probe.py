"""Stands in for the sidecar inside its unit: prints as JSON what it may and may not do, says READY, waits.

Runs with nothing but the standard library; the unit cannot see the checkout, so it is installed as a file.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

CLONE_NEWUSER = 0x10000000
LISTENED_AT = 7007  # at all addresses of the machine, by the test
ELSEWHERE = "10.99.0.1"


def refused(act: Callable[[], object]) -> str:
    """The name of the error an act ends in, or nothing if it succeeds."""
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return ""


def unshare() -> None:
    """Try to enter a new user namespace."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")


def listen(port: int) -> None:
    """Listen at a port that no setting names."""
    socket.create_server(("127.0.0.1", port)).close()


def connect(host: str) -> None:
    """Connect where something listens; what the kernel drops is refused at once."""
    socket.create_connection((host, LISTENED_AT), timeout=2).close()


def capabilities() -> str:
    """The bounding set, in hexadecimal."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith("CapBnd:"))


def report(environ: Mapping[str, str]) -> dict[str, object]:
    """Everything the test wants to know."""
    runtime = Path(environ["RUNTIME_DIRECTORY"])
    return {
        "writable and executable memory": refused(
            lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        ),
        "netlink": refused(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "namespaces": refused(unshare),
        "write /etc": refused(lambda: Path("/etc/probe").touch()),
        "write /var": refused(lambda: Path("/var/lib/probe").touch()),
        "read /root": refused(lambda: list(Path("/root").iterdir())),
        "write the runtime directory": refused((runtime / "probe").touch),
        "listen below 1024": refused(lambda: listen(81)),
        "listen at another port": refused(lambda: listen(23456)),
        "connect to this machine": refused(lambda: connect("127.0.0.1")),
        "connect elsewhere": refused(lambda: connect(ELSEWHERE)),
        "runtime directory": str(runtime),
        "capabilities": int(capabilities(), 16),
        "root": os.geteuid() == 0,
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "token": Path(environ["CONSUL_HTTP_TOKEN_FILE"]).read_text(),
        "admin": environ["SIDECAR_ADMIN_BIND"],
        "allocator": environ.get("PYTHONMALLOC", "python's own"),
        "watchdog": int(environ.get("WATCHDOG_USEC", "0")),
        "sockets": environ.get("LISTEN_FDNAMES", ""),
        "arguments": sys.argv[1:],
    }


def main() -> None:
    """Report, say READY, wait for the end."""
    environ = os.environ  # noqa: TID251 - a program of its own, and what it is asked about
    sys.stdout.write(json.dumps(report(environ)) + "\n")
    sys.stdout.flush()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(b"READY=1", environ["NOTIFY_SOCKET"])
    signal.sigwait({signal.SIGTERM})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
