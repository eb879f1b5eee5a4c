"""Two datacenters as processes on loopback, killed with SIGKILL: they come back and agree."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
from cryptography import x509

from tests.datacenter.verifiers import accepted

pytestmark = pytest.mark.slow

ROOTS = "/v1/connect/ca/roots"
ROTATE = "/v1/connect/ca/rotate"
PATIENCE = 40.0  # longer than the longest pause between two attempts to reach a primary


@dataclass(kw_only=True)
class Site:
    """One datacenter: a command, a data directory, and the process that runs it now."""

    name: str
    port: int
    primary_port: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / f"{self.name}.log"

    def start(self) -> None:
        command = [sys.executable, "-m", "datacenter", "-name", self.name]
        command += ["-http-addr", f"127.0.0.1:{self.port}", "-data-dir", str(self.directory / self.name)]
        command += ["-leaf-rotation-jitter", "1s"]
        if self.port != self.primary_port:
            command += [
                "-primary-datacenter",
                "dc1",
                "-primary-addr",
                f"http://127.0.0.1:{self.primary_port}",
            ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        self.until(lambda: self.call("GET", "/v1/agent/self"), "answers")

    def kill(self) -> None:
        """As a power cut would, but for the page cache."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def call(self, method: str, path: str, body: object = None) -> Any:
        """The decoded answer; None when it is not a 200."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return json.loads(response.read() or b"true")
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            return None

    def active(self) -> str:
        roots = self.call("GET", ROOTS)
        return str(roots["ActiveRootID"]) if roots else ""

    def accepts(self, leaf: dict[str, str]) -> bool:
        """Whether a peer with this datacenter's roots accepts the leaf."""
        roots = [x509.load_pem_x509_certificate(root["RootCert"].encode()) for root in self.roots()]
        return accepted(leaf["CertPEM"], roots, datetime.now(UTC))

    def roots(self) -> list[dict[str, str]]:
        return list(self.call("GET", ROOTS)["Roots"])

    def until(self, holds: Any, what: str) -> None:
        deadline = monotonic() + PATIENCE
        while not holds():
            assert monotonic() < deadline, f"{self.name} never {what}:\n{self.log.read_text()}"
            assert self.process is not None
            assert self.process.poll() is None, self.log.read_text()
            sleep(0.05)  # a poll of another process; there is nothing to wait on


@pytest.fixture
def sites(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    ports = free_ports(2)
    pair = [
        Site(name=f"dc{number}", port=port, primary_port=ports[0], directory=tmp_path)
        for number, port in enumerate(ports, start=1)
    ]
    try:
        yield pair[0], pair[1]
    finally:
        for site in pair:
            if site.process is not None and site.process.poll() is None:
                site.kill()


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; a datacenter that comes back needs the one it had."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()


def leaf(site: Site, service: str = "web") -> dict[str, str]:
    fetched: dict[str, str] = site.call("GET", f"/v1/agent/connect/ca/leaf/{service}")
    return fetched


def agree(one: Site, other: Site) -> bool:
    return one.active() == other.active() != ""


def test_killed_and_started_again_they_trust_each_other(sites: tuple[Site, Site]) -> None:
    dc1, dc2 = sites
    dc2.start()
    assert dc2.call("GET", ROOTS) is None  # it has never met its primary
    dc1.start()
    dc2.until(lambda: agree(dc1, dc2), "joined")
    assert dc2.accepts(leaf(dc1))
    assert dc1.accepts(leaf(dc2))

    dc2.kill()
    assert dc1.call("PUT", ROTATE, {}) is not None
    dc2.start()
    dc2.until(lambda: agree(dc1, dc2), "caught up with the rotation")
    assert dc1.accepts(leaf(dc2, "after-rotation"))

    dc1.kill()
    orphan = leaf(dc2, "brand-new")
    assert dc2.accepts(orphan)
    assert dc2.call("PUT", ROTATE, {}) is None
    dc1.start()
    assert dc1.accepts(orphan)
    dc2.until(lambda: dc2.call("PUT", ROTATE, {}), "reached the primary again")
    dc2.until(lambda: agree(dc1, dc2), "followed the primary that came back")
    assert len(dc1.roots()) == 3

    stores = {site.name: (site.directory / site.name / "datacenter.db") for site in sites}
    assert {path.stat().st_mode & 0o077 for path in stores.values()} == {0}
    said = dc1.log.read_text() + dc2.log.read_text()
    assert "PRIVATE KEY" not in said
    assert "Traceback" not in said
