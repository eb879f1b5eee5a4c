"""The datacenter as a process: start, kill, start again, stop; messages and exit codes."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.process.memory import FULL_AFTER
from datacenter.__main__ import as_bound, main, notify
from datacenter.http.server import open_listener
from tests.datacenter.world import settings

pytestmark = pytest.mark.slow

START_SECONDS = 30


@contextlib.contextmanager
def started(data: Path, *words: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process and the address it says it listens on."""
    command = [sys.executable, "-m", "datacenter", "-name", "dc1", "-data-dir", str(data), *words]
    if "-http-addr" not in words:
        command += ["-http-addr", "127.0.0.1:0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ or None) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            match = re.fullmatch(r"datacenter dc1 listening on (\S+)\n", line)
            assert match, line
            yield process, match[1]
        finally:
            process.kill()


def call(address: str, method: str, path: str, body: object = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{address}{path}", data, method=method)
    with urllib.request.urlopen(request, timeout=10) as reply:
        text = reply.read()
    return json.loads(text) if text else None


def test_a_started_datacenter_walks_all_its_objects_rarely(tmp_path: Path) -> None:
    """Each of a thousand sidecars' connections has hundreds of objects, which all stay."""
    script = f"""
import gc, os, signal
import datacenter.__main__ as process
def ready(_address, message):
    if message == "READY=1":
        print(gc.get_freeze_count() > 0, gc.get_threshold()[2])
        os.kill(os.getpid(), signal.SIGTERM)
process.notify = ready
process.main(["-name", "dc1", "-data-dir", {str(tmp_path)!r}, "-http-addr", "127.0.0.1:0"], {{}})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {FULL_AFTER}\n"


def test_a_killed_datacenter_goes_on_where_it_was(tmp_path: Path) -> None:
    registration = {
        "Name": "web",
        "Port": 1,
        "Checks": [
            {"CheckID": "ttl", "TTL": "1h"},
            {"CheckID": "tcp", "TCP": "127.0.0.1:1", "Interval": "1s"},
        ],
        "Connect": {"SidecarService": {}},
    }
    with started(tmp_path) as (process, address):
        call(address, "PUT", "/v1/agent/service/register", registration)
        call(address, "PUT", "/v1/agent/check/pass/ttl")
        query = call(address, "POST", "/v1/query", {"Name": "q", "Service": {"Service": "web"}})
        before = call(address, "GET", "/v1/agent/service/web-sidecar-proxy")
        roots = call(address, "GET", "/v1/agent/connect/ca/roots")
        process.send_signal(signal.SIGKILL)
        process.wait(START_SECONDS)
    with started(tmp_path) as (_, address):
        assert call(address, "GET", "/v1/agent/service/web-sidecar-proxy") == before
        assert call(address, "GET", f"/v1/query/{query['ID']}")[0]["Name"] == "q"
        assert call(address, "GET", "/v1/agent/connect/ca/roots")["ActiveRootID"] == roots["ActiveRootID"]
        checks = call(address, "GET", "/v1/agent/checks")
        assert checks["ttl"]["Status"] == "passing"  # its last word holds for one TTL more
        call(address, "PUT", "/v1/agent/check/fail/ttl")
        assert call(address, "GET", "/v1/agent/checks")["ttl"]["Status"] == "critical"


def test_sigterm_ends_it_cleanly_even_with_requests_blocked(tmp_path: Path) -> None:
    with started(tmp_path) as (process, address):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"GET /v1/catalog/nodes?index=99&wait=5m HTTP/1.1\r\nHost: localhost\r\n\r\n")
            call(address, "GET", "/v1/catalog/nodes")  # by now the first has been read
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_systemd_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = str(tmp_path / "notify")
        manager.bind(path)
        manager.settimeout(START_SECONDS)
        with started(tmp_path / "data", NOTIFY_SOCKET=path) as (process, _):
            assert manager.recv(100) == b"READY=1"
            process.send_signal(signal.SIGINT)
            assert manager.recv(100) == b"STOPPING=1"
            assert process.wait(10) == 0


def test_a_manager_that_is_gone_is_a_warning(tmp_path: Path) -> None:
    with started(tmp_path / "data", NOTIFY_SOCKET=str(tmp_path / "nobody")) as (process, address):
        assert call(address, "GET", "/v1/status/leader") == "127.0.0.1:8300"
        assert process.stderr is not None
        assert "systemd cannot be notified" in process.stderr.readline()


def test_on_a_unix_socket(tmp_path: Path) -> None:
    words = ("-http-addr", f"unix://{tmp_path}/api.sock")
    with started(tmp_path / "data", *words) as (_, address), socket.socket(socket.AF_UNIX) as client:
        client.connect(address.removeprefix("unix://"))
        client.sendall(b"GET /v1/agent/services HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")


def refused(*words: str) -> tuple[int, list[str]]:
    """Exit code and lines of the message of a process that does not come up."""
    command = [sys.executable, "-m", "datacenter", *words]
    result = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS, check=False)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stderr.splitlines()


def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, lines = refused("-name", "dc1", "-data-dir", str(tmp_path), "-http-addr", address)
    assert (code, lines) == (78, [f"sidecar datacenter: cannot listen on {address}: address already in use"])


def test_a_data_directory_in_use(tmp_path: Path) -> None:
    with started(tmp_path):
        code, lines = refused("-name", "dc1", "-data-dir", str(tmp_path), "-http-addr", "127.0.0.1:0")
    assert code == 78
    assert len(lines) == 1
    assert lines[0].endswith("is in use by another datacenter process")


def test_a_data_directory_of_another_datacenter(tmp_path: Path) -> None:
    with started(tmp_path):
        pass
    code, lines = refused("-name", "dc2", "-data-dir", str(tmp_path), "-http-addr", "127.0.0.1:0")
    assert code == 78
    (line,) = lines
    assert line.startswith(f"sidecar datacenter: {tmp_path} is of datacenter dc1, not of dc2: give dc2 a")


def test_a_damaged_data_directory(tmp_path: Path) -> None:
    (tmp_path / "datacenter.db").write_bytes(b"no database" * 1000)
    code, lines = refused("-name", "dc1", "-data-dir", str(tmp_path), "-http-addr", "127.0.0.1:0")
    assert code == 78
    (line,) = lines
    assert line.startswith(f"sidecar datacenter: {tmp_path / 'datacenter.db'} is damaged (")


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-help"], {}) == 0
    assert "-primary-addr URL" in capsys.readouterr().out
    assert main(["-bogus"], {}) == 64
    assert capsys.readouterr().err == (
        "sidecar datacenter: unknown argument '-bogus'; see `sidecar help datacenter`\n"
    )


def test_every_mistake_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-log-level", "loud"], {}) == 78
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("sidecar datacenter: ") for line in lines)


@pytest.fixture
def root_handlers() -> Iterator[None]:
    """The process sets up logging for itself; here it is one of many."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def collector() -> Iterator[None]:
    """The process settles its garbage collector; what is exempt here, other tests would not find."""
    callbacks, thresholds = gc.callbacks[:], gc.get_threshold()
    yield
    gc.callbacks[:] = callbacks
    gc.set_threshold(*thresholds)
    gc.unfreeze()


@pytest.mark.usefixtures("root_handlers", "collector")
def test_a_whole_life_in_this_process(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As the others, where coverage sees it: a thread plays the manager and asks for the end."""
    answers: list[Any] = []
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(START_SECONDS)

        def manage() -> None:
            answers.append(manager.recv(100))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(tmp_path / "api.sock"))
                client.sendall(
                    b"GET /v1/agent/services HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                answers.append(client.recv(65536)[:12])
            os.kill(os.getpid(), signal.SIGTERM)  # trio takes it: READY comes after its receiver is open

        thread = threading.Thread(target=manage)
        thread.start()
        words = ["-name", "dc1", "-data-dir", str(tmp_path / "data")]
        code = main([*words, "-http-addr", f"unix://{tmp_path}/api.sock"], {"NOTIFY_SOCKET": path})
        thread.join()
    assert (code, answers) == (0, [b"READY=1", b"HTTP/1.1 200"])
    assert capsys.readouterr().err == f"datacenter dc1 listening on unix://{tmp_path}/api.sock\n"


@pytest.mark.usefixtures("root_handlers")
def test_what_cannot_be_had_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["-name", "dc1", "-data-dir", str(tmp_path)]
    assert main([*words, "-http-addr", "unix:///nowhere/api.sock"], {}) == 78
    assert capsys.readouterr().err == (
        "sidecar datacenter: cannot listen on unix:///nowhere/api.sock: no such file or directory\n"
    )


@pytest.mark.parametrize(
    ("address", "advertised"), [("0.0.0.0", "http://10.0.0.9:{}"), ("127.0.0.1", "http://10.0.0.9:{}")]
)
def test_port_0_is_advertised_as_what_it_became(address: str, advertised: str) -> None:
    with open_listener(f"{address}:0") as listener:
        bound = as_bound(settings("dc1", advertise_addr="", node_address="10.0.0.9"), listener)
        port = listener.getsockname()[1]
    assert (bound.http_addr, bound.advertise_addr) == (f"{address}:{port}", advertised.format(port))


def test_a_notification_to_an_abstract_address() -> None:
    name = f"\0connect-sidecar-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        notify("@" + name[1:], "READY=1")
        assert manager.recv(100) == b"READY=1"


def test_out_of_descriptors_it_says_so_once_and_serves_on(tmp_path: Path) -> None:
    with started(tmp_path) as (process, address):
        open_now = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
        most = open_now + 4
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (most, most))
        host, _, port = address.rpartition(":")
        with contextlib.ExitStack() as callers:
            for _ in range(7):  # more than there are descriptors for
                callers.enter_context(socket.create_connection((host, int(port))))
            assert process.stderr is not None
            first = process.stderr.readline()
        assert call(address, "GET", "/v1/agent/services") == {}
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(START_SECONDS) == 0
    assert "no connection is accepted for now: Too many open files" in first
    assert rest == ""
