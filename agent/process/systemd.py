"""Four protocols of systemd: readiness, watchdog, descriptors handed over at start, and its store of them.

sd_notify(3), sd_listen_fds(3). Without their environment variables every call here does nothing.
"""

from __future__ import annotations

import os
import socket
import stat
import time
from array import array
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass

import trio

FIRST_FD = 3  # SD_LISTEN_FDS_START


@dataclass(frozen=True, slots=True, kw_only=True)
class Inherited:
    """A socket that systemd hands over, and its FileDescriptorName= or the name it was stored by."""

    name: str
    sock: socket.socket


class Notifier:
    """Sends messages to the service manager, one datagram each; without an address it sends nothing."""

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        # A leading @ is systemd's way to write the zero byte of an abstract address.
        self._address = "\0" + address[1:] if address and address.startswith("@") else address
        self.watchdog_seconds = watchdog_seconds
        self.complaint = ""
        self.muted = False  # another process is the service's main process, and speaks for it

    def send(self, *lines: str) -> None:
        """Send assignments such as `READY=1`. A failure is noted in `complaint`, not raised."""
        self._send(lines)

    def _send(self, lines: Sequence[str], descriptors: Sequence[int] = ()) -> None:
        if not self._address or self.muted:
            return
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                # One assignment a line: a line break within one would begin another.
                text = "\n".join(line.replace("\n", " ") for line in lines)
                sock.sendmsg([text.encode()], rights, 0, self._address)
            self.complaint = ""
        except OSError as error:
            self.complaint = f"systemd cannot be notified: {error.strerror}"

    @property
    def listening(self) -> bool:
        """Whether there is a service manager to send messages to."""
        return bool(self._address)

    @property
    def environment(self) -> dict[str, str]:
        """The variables from which another process of the service makes the same."""
        found = {}
        if self._address:
            found["NOTIFY_SOCKET"] = self._address.replace("\0", "@", 1)
        if self.watchdog_seconds is not None:
            found["WATCHDOG_USEC"] = str(int(self.watchdog_seconds * 1e6))
        return found

    def store(self, name: str, descriptor: int, /) -> None:
        """Have the manager keep a duplicate of a descriptor while the service restarts.

        It needs FileDescriptorStoreMax=. FDPOLL=0: only FDSTOREREMOVE=1 removes it (systemd 246).
        """
        self._send(("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0"), (descriptor,))

    def unstore(self, name: str, /) -> None:
        """Have the manager close what it keeps by that name. systemd 236 and later."""
        self.send("FDSTOREREMOVE=1", f"FDNAME={name}")

    def reloading(self) -> None:
        """Say that the settings are read anew, until READY=1. systemd 253 wants to know since when."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.send("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self, seconds: float) -> None:
        """Say that the end has begun and may take so long, whatever TimeoutStopSec= is."""
        self.send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", "STATUS=draining")

    def extend(self, seconds: float) -> None:
        """Ask for at least so much more time to start or to stop. systemd 236 and later."""
        self.send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    async def feed_watchdog(
        self, failure: Callable[[float], Awaitable[str]], on_failure: Callable[[str], None]
    ) -> None:
        """Send WATCHDOG=1 four times in the watchdog's interval, while nothing fails and trio's loop turns.

        `failure` is given its time in seconds and returns what fails; `on_failure` hears of each change of
        it, empty for none. What fails for the whole interval has the manager start the service again.
        """
        if self.watchdog_seconds is None:
            return
        beat, before = self.watchdog_seconds / 4, ""
        while True:
            due = trio.current_time() + beat
            found = await failure(beat)
            if not found:
                self.send("WATCHDOG=1")
            if found != before:
                on_failure(found)
            before = found
            await trio.sleep_until(due)


def notifier(environ: MutableMapping[str, str], pid: int) -> Notifier:
    """Read NOTIFY_SOCKET and WATCHDOG_USEC, and remove them, so that no child process uses them."""
    address = environ.pop("NOTIFY_SOCKET", None)
    microseconds = environ.pop("WATCHDOG_USEC", "")
    for_us = environ.pop("WATCHDOG_PID", str(pid)) == str(pid)
    seconds = int(microseconds) / 1e6 if for_us and microseconds.isdigit() and int(microseconds) else None
    return Notifier(address, seconds)


def inherited_descriptors(environ: MutableMapping[str, str], pid: int) -> tuple[tuple[str, int], ...]:
    """Take over the descriptors of LISTEN_FDS, by name, and remove its variables from the environment."""
    for_us = environ.pop("LISTEN_PID", "") == str(pid)
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if not for_us or not count.isdigit():
        return ()
    found = []
    for position in range(int(count)):
        descriptor = FIRST_FD + position
        os.set_inheritable(descriptor, False)
        found.append((names[position] if position < len(names) else "", descriptor))
    return tuple(found)


def sockets_among(handed: Iterable[tuple[str, int]]) -> tuple[Inherited, ...]:
    """Return the sockets among descriptors that were handed over; what is stored may be a file in memory."""
    found = []
    for name, descriptor in handed:
        if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            sock = socket.socket(fileno=descriptor)
            sock.setblocking(False)
            found.append(Inherited(name=name, sock=sock))
    return tuple(found)
