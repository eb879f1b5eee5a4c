"""Callers for the private machine: one new connection after the other until SIGTERM, then a report as JSON.

Says "steady" once a few have been served, so that what happens then happens under load.

load.py http://ADDRESS:PORT/    a request each; anything but its answer is a failure
load.py tcp://ADDRESS:PORT      connect and leave; anything but a connection is a failure
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from types import FrameType
from urllib.parse import SplitResult, urlsplit

SECONDS = 30.0  # of patience for one caller
STEADY = 20  # callers
PAUSE = 0.005  # seconds between two callers: enough to see every moment of a restart, and no busy loop
_stopped = False


def stop(_signal: int, _frame: FrameType | None) -> None:
    """Make this caller the last."""
    global _stopped  # noqa: PLW0603 - a signal handler has no other way to be heard
    _stopped = True


def call(url: SplitResult) -> str:
    """One caller; what went wrong, or nothing."""
    try:
        with socket.create_connection((str(url.hostname), url.port or 80), timeout=SECONDS) as sock:
            if url.scheme == "tcp":
                return ""
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := sock.recv(4096):
                answer += part
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "" if b"200 OK" in answer and b"hello from" in answer else f"answer: {answer!r}"


def main() -> None:
    """Call until told to stop."""
    signal.signal(signal.SIGTERM, stop)
    url = urlsplit(sys.argv[1])
    calls, longest, failures = 0, 0.0, list[str]()
    while not _stopped:
        began = time.monotonic()
        failure = call(url)
        calls += 1
        longest = max(longest, time.monotonic() - began)
        if failure:
            failures.append(failure)
        if calls == STEADY:
            sys.stdout.write("steady\n")
            sys.stdout.flush()
        time.sleep(PAUSE)
    report = {"calls": calls, "longest": longest, "failed": len(failures), "failures": failures[:10]}
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
