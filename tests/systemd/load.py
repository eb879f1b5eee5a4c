"""Callers for the private machine, until SIGTERM, then a report as JSON.

Says "steady" once a few have been served, so that what happens then happens under load.

load.py http://ADDRESS:PORT/ [RATE]     a request each; anything but its answer is a failure
load.py unix:///PATH [RATE]             the same over a unix socket
load.py tcp://ADDRESS:PORT [RATE]       connect and leave; anything but a connection is a failure
load.py stream://ADDRESS:PORT/ COUNT    so many answers without an end at once; an end is a failure

Without a rate one caller comes after the other; with it so many begin in each second.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from urllib.parse import SplitResult, urlsplit

SECONDS = 30.0  # of patience for one caller
STEADY = 20  # callers
PAUSE = 0.005  # seconds between two callers: enough to see every moment of a restart, and no busy loop
MOST = 400  # callers at once
_stopped = False


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Make this caller the last."""
    global _stopped  # noqa: PLW0603 - a signal handler has no other way to be heard
    _stopped = True


def connected(url: SplitResult) -> socket.socket:
    """A connection to the address."""
    if url.scheme == "unix":
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(SECONDS)
        sock.connect(url.path)
        return sock
    return socket.create_connection((str(url.hostname), url.port or 80), timeout=SECONDS)


def call(url: SplitResult) -> str:
    """One caller; what went wrong, or nothing."""
    try:
        with connected(url) as sock:
            if url.scheme == "tcp":
                return ""
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := sock.recv(4096):
                answer += part
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "" if b"200 OK" in answer and b"hello from" in answer else f"answer: {answer!r}"


def stream(url: SplitResult) -> str:
    """One answer, read until told to stop; how it ended before, or nothing."""
    try:
        with connected(url) as sock:
            sock.sendall(b"GET /stream HTTP/1.0\r\n\r\n")
            while not _stopped:
                if not sock.recv(4096):
                    return "end"
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return ""


class Report:
    """What became of the callers."""

    def __init__(self) -> None:
        self.calls, self.longest, self.failures = 0, 0.0, list[str]()

    def run(self, caller: Callable[[SplitResult], str], url: SplitResult) -> None:
        """Run one caller to its end."""
        began = time.monotonic()
        failure = caller(url)
        self.calls += 1
        self.longest = max(self.longest, time.monotonic() - began)
        if failure:
            self.failures.append(failure)
        if self.calls == STEADY:
            say_steady()

    def say(self) -> None:
        """Print the report."""
        report = {
            "calls": self.calls,
            "longest": self.longest,
            "failed": len(self.failures),
            "kinds": Counter(failure.partition(":")[0] for failure in self.failures),
            "failures": self.failures[:10],
        }
        sys.stdout.write(json.dumps(report) + "\n")


def say_steady() -> None:
    """Print that callers are served."""
    sys.stdout.write("steady\n")
    sys.stdout.flush()


def main() -> None:
    """Call until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    url, rate, report = urlsplit(sys.argv[1]), int((*sys.argv, "0")[2]), Report()
    with ThreadPoolExecutor(MOST) as pool:
        if url.scheme == "stream":
            for _ in range(rate):
                pool.submit(report.run, stream, url)
            time.sleep(1)
            say_steady()
        began, begun = time.monotonic(), 0
        while not _stopped:
            if url.scheme == "stream":
                time.sleep(PAUSE)
            elif rate:
                begun += 1
                pool.submit(report.run, call, url)
                time.sleep(max(0.0, began + begun / rate - time.monotonic()))
            else:
                report.run(call, url)
                time.sleep(PAUSE)
    report.say()


if __name__ == "__main__":
    main()
