"""Two sites on one machine, and a wide-area link between them: network namespaces, as root.

    with sites(directory, milliseconds=40):
        ...                                    # this process is in the first site from now on
        process([*at("dc2"), "some", "command"], log)

They are cut off from everything else, and gone at the end of the block. A frame is a packet, as on a wire,
else the link would lose 64 KiB at once. TCP is CUBIC, and keeps nothing of earlier connections.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.bench.rig import BenchFailed, process

ADDRESS = {"dc1": "10.66.0.11", "dc2": "10.66.0.21"}
_NETWORK = "10.66.0.0/24"
_LINK = "link"
_NETWORK_NAMESPACE = 0x40000000  # linux/sched.h, CLONE_NEWNET


def at(site: str) -> list[str]:
    """What to put before a command that is to run there."""
    return ["ip", "netns", "exec", _name(site)]


@contextlib.contextmanager
def sites(directory: Path, milliseconds: float, lost: float = 0.0) -> Iterator[None]:
    """Both sites, the link, and ourselves in the first of them; afterwards we are where we were.

    The link holds each frame back for so long, and loses so many per cent of them.
    """
    if os.geteuid() != 0:
        raise BenchFailed("network namespaces take root")
    here = os.open("/proc/self/ns/net", os.O_RDONLY)
    names = [*map(_name, ADDRESS), _name(_LINK)]
    try:
        for name in names:
            _ip("netns", "add", name)
        for number, (site, address) in enumerate(ADDRESS.items(), 1):
            _attach(_name(site), address, number)
        command = [
            *at(_LINK),
            sys.executable,
            "-m",
            "tests.bench.delay",
            "wan1",
            "wan2",
            str(milliseconds),
            str(lost),
        ]
        with process(command, directory / "delay.log"):
            _enter(f"/run/netns/{_name('dc1')}")
            try:
                yield
            finally:
                _enter(f"/proc/self/fd/{here}")
    finally:
        os.close(here)
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _attach(name: str, address: str, number: int) -> None:
    """A cable from the site to the link."""
    far = f"wan{number}"
    _ip("link", "add", "wan", "netns", name, "type", "veth", "peer", "name", far, "netns", _name(_LINK))
    _ip("-n", name, "addr", "add", f"{address}/24", "dev", "wan")
    _ip("-n", name, "link", "set", "wan", "gso_max_segs", "1")
    for namespace, interface in ((name, "lo"), (name, "wan"), (_name(_LINK), far)):
        _ip("-n", namespace, "link", "set", interface, "up")
    # By the route (ip-route(8), congctl): by sysctl a namespace may choose only what its host allows to all.
    _ip("-n", name, "route", "replace", _NETWORK, "dev", "wan", "src", address, "congctl", "cubic")
    _ip("netns", "exec", name, "sysctl", "--quiet", "--write", "net.ipv4.tcp_no_metrics_save=1")


def _name(site: str) -> str:
    return f"bench-{os.getpid()}-{site}"


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchFailed(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _enter(path: str) -> None:
    """Go there with this thread, which is the only one; children follow."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(path).open("rb") as namespace:
        if libc.setns(namespace.fileno(), _NETWORK_NAMESPACE):
            raise BenchFailed(f"setns: {os.strerror(ctypes.get_errno())}")
