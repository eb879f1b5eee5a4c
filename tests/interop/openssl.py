"""The openssl command line as a peer: `s_client` calls, `s_server` is called."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.holder import Files

SECONDS = 20.0


def available() -> bool:
    """Whether the program is here."""
    return shutil.which("openssl") is not None


def _identity(files: Files) -> list[str]:
    return [
        *("-cert", str(files.leaf), "-key", str(files.key), "-CAfile", str(files.roots)),
        *(("-cert_chain", str(files.chain)) if files.chain.stat().st_size else ()),
        "-verify_return_error",
    ]


def s_client(files: Files, port: int, *options: str, says: str, hears: str) -> str:
    """Connect, say a line, read until the line `hears` comes back, leave; returns everything it printed."""
    process = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *_identity(files), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdin
    assert process.stdout
    lines: list[str] = []
    try:
        process.stdin.write(f"{says}\n")
        process.stdin.flush()
        # A whole line of its own: the certificates it prints first are base64, in which any word of
        # letters may stand (a leaf with "TWO" in it once made a test leave before the handshake was told).
        while f"{hears}\n" not in lines and (line := process.stdout.readline()):
            lines.append(line)
        # A line that begins with Q is its command to leave, as long as nobody said -quiet.
        rest = process.communicate("Q\n", timeout=SECONDS)[0]
    finally:
        process.kill()
        process.wait(timeout=SECONDS)
    printed = "".join(lines) + rest
    assert f"{hears}\n" in lines, f"exit {process.returncode}: {printed}"
    return printed


@contextmanager
def s_server(files: Files, log: Path, *options: str) -> Iterator[int]:
    """A server that demands a certificate and sends back each line reversed; the port it listens on."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", *_identity(files), "-Verify", "4", "-rev"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _port(process, log)
    finally:
        process.kill()
        process.wait(timeout=10)


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + SECONDS
    while True:
        printed = log.read_text(errors="replace")
        found = re.search(r"^ACCEPT \S*:(\d+)$", printed, flags=re.MULTILINE)
        if found:
            return int(found[1])
        assert process.poll() is None, printed
        assert time.monotonic() < deadline, printed
        time.sleep(0.05)
