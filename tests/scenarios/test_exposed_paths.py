"""Paths that a registration exposes: Consul's own check and curl reach exactly them, by one process or more.

The sidecars are processes beside the embedded datacenter.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from tests.contract.alone import alone
from tests.contract.client import Api
from tests.contract.federation import free_port
from tests.contract.mesh import Sidecar, put
from tests.contract.processes import process
from tests.scenarios.moves import until
from tests.scenarios.spread import wait_until_ready
from tests.support.agent_in_process import answers

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
STATUS = ("-o", "/dev/null", "-w", "%{http_code}")


@dataclass
class Seen:
    """What reached the app."""

    targets: list[str] = field(default_factory=list)


class _App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, seen: Seen, *args: object) -> None:
        self.seen = seen
        super().__init__(*args)  # type: ignore[arg-type]  # as socketserver hands them over

    def do_GET(self) -> None:
        """Note the target, and answer in chunks."""
        self.seen.targets.append(self.path)
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"4\r\nwell\r\n0\r\n\r\n")

    def do_POST(self) -> None:
        """Note the target too."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Exposed:
    """A sidecar of web with one exposed path, and its app."""

    api: Api
    app: int
    port: int
    sidecar: Sidecar
    seen: Seen

    def curl(self, target: str, *words: str) -> str:
        url = f"http://127.0.0.1:{self.port}{target}"
        command = ["curl", "--silent", "--path-as-is", "--max-time", "10", *words, url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def registered(self, port: int) -> dict[str, object]:
        """Web with its path exposed at that port, and Consul's check of it there."""
        paths = [{"Path": "/health", "ListenerPort": port, "LocalPathPort": self.app, "Protocol": "http"}]
        check = {"CheckID": "health", "HTTP": f"http://127.0.0.1:{port}/health?from=consul", "Interval": "1s"}
        proxy = {"Expose": {"Paths": paths}}
        side = {"Address": "127.0.0.1", "Port": self.sidecar.public[1], "Proxy": proxy, "Checks": []}
        return {"Name": "web", "Port": self.app, "Checks": [check], "Connect": {"SidecarService": side}}

    def until_checked(self) -> None:
        """Wait until Consul's check passes."""
        self.api.until("/v1/health/checks/web", lambda rows: [row["Status"] for row in rows] == ["passing"])


@contextmanager
def exposed(directory: Path, *words: str) -> Iterator[Exposed]:
    seen = Seen()
    with (
        alone("embedded", "allow", directory) as api,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_App, seen)) as app,
    ):
        threading.Thread(target=app.serve_forever, args=(0.01,), daemon=True).start()
        admin, public = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
        command = [sys.executable, "-m", "agent", "run", "-sidecar-for", "web", "-http-addr", api.url]
        command += ["-admin-bind", f"{admin[0]}:{admin[1]}", "-drain-seconds", "1", "-leave-seconds", "0"]
        with process([*command, *words], directory / "sidecar.log") as started:
            sidecar = Sidecar(admin=admin, public=public, process=started)
            one = Exposed(api, int(app.server_address[1]), free_port(), sidecar, seen)
            put(api, one.registered(one.port))
            wait_until_ready(sidecar)
            yield one
        app.shutdown()


def counted(one: Exposed) -> dict[str, int]:
    counts: dict[str, int] = json.loads(one.sidecar.ask("/status")[1])["counters"]["exposed"]
    return counts


@pytest.mark.parametrize("workers", ["1", "2"])
def test_consuls_check_and_curl_reach_the_path_and_nothing_else(tmp_path: Path, workers: str) -> None:
    with exposed(tmp_path, "-workers", workers) as one:
        one.until_checked()
        assert one.curl("/health") == "well"
        assert one.curl("/health?x=1", "--http1.0") == "well"
        for target in ("/", "/admin", "/health/", "/%68ealth", "/x/../health", "//health"):
            assert one.curl(target, *STATUS) == "404"
        assert one.curl("/health", "-X", "POST", "-d", "x", *STATUS) == "405"
        assert one.curl("/health", "-H", "X-Original-URL: /admin", *STATUS) == "400"
        assert one.curl("/health", "--request-target", "http://127.0.0.1/admin", *STATUS) == "400"
        assert set(one.seen.targets) == {"/health", "/health?x=1", "/health?from=consul"}
        counts = counted(one)
        assert counts["exposed_path"] == 6
        assert counts["exposed_answered"] >= 3
        placement = json.loads(one.sidecar.ask("/status")[1])["placement"]
        assert placement["exposed"] == [f"/health at 127.0.0.1:{one.port} to 127.0.0.1:{one.app}"]
        moved = free_port()
        put(one.api, one.registered(moved))
        before, one.port = one.port, moved
        until(lambda: answers(moved) and not answers(before), 10)
        assert one.curl("/health") == "well"


def test_who_is_not_named_gets_nothing(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("expose_from = []\n")
    with exposed(tmp_path, "-config", str(settings)) as one:
        assert one.curl("/health", *STATUS) == "403"
        assert one.seen.targets == []
        assert counted(one)["exposed_source"] >= 1
        assert "exposed.refused" in one.sidecar.process.log.read_text()
