"""`sidecar run` as a process: every way not to start has its code, one clear message and no traceback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.agent.processes import command, environment, lines_until, sidecar
from tests.agent.scripted_consul import ScriptedConsul
from tests.certs.authority import Issuer, roots_answer

QUIET = ("-admin-bind", "127.0.0.1:0")
PROXY = "web-sidecar-proxy"


def proxy(port: object = 0, **extra: object) -> dict[str, object]:
    """The registration of web's sidecar."""
    return {
        "Kind": "connect-proxy",
        "ID": PROXY,
        "Service": PROXY,
        "Address": "127.0.0.1",
        "Port": port,
        "Datacenter": "dc1",
        "ContentHash": "h1",
        "Proxy": {
            "DestinationServiceName": "web",
            "DestinationServiceID": "web",
            "LocalServiceAddress": "127.0.0.1",
            "LocalServicePort": 8080,
        },
        **extra,
    }


def listed(*proxies: str) -> dict[str, object]:
    return {
        name: {"ID": name, "Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "web"}}
        for name in proxies
    }


def everything(consul: ScriptedConsul, **extra: object) -> None:
    """All that a sidecar of web needs."""
    root = Issuer.root()
    consul.answer("/v1/agent/services", listed(PROXY))
    consul.answer(f"/v1/agent/service/{PROXY}", proxy(**extra), content_hash="h1")
    consul.answer("/v1/agent/connect/ca/roots", roots_answer(root), index=5)
    consul.answer("/v1/agent/connect/ca/leaf/web", root.leaf().answer(), index=6)
    consul.answer("/v1/connect/intentions/match", {"web": None}, index=7)


@pytest.fixture
async def consul(nursery: trio.Nursery) -> ScriptedConsul:
    return ScriptedConsul()


def unused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


async def test_nothing_to_run_beside() -> None:
    ended = await sidecar("run")
    assert ended.code == 64
    assert ended.complaints == [
        "sidecar: say whom to run beside: -sidecar-for ID, -proxy-id ID or -service NAME"
    ]


async def test_an_unknown_flag() -> None:
    ended = await sidecar("run", "-sidecar-fro", "web")
    assert ended.code == 64
    assert ended.complaints == ["sidecar: unknown flag -sidecar-fro; did you mean -sidecar-for?"]


async def test_an_unknown_key_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "web.toml"
    file.write_text('sidecar_for = "web"\ndrain_second = 3\n')
    ended = await sidecar("run", "-config", str(file))
    assert ended.code == 78
    assert ended.complaints == [
        f"sidecar: file {file}: unknown key 'drain_second'; did you mean drain_seconds?"
    ]


async def test_a_missing_settings_file() -> None:
    ended = await sidecar("run", "-config", "/nowhere/web.toml")
    assert ended.code == 78
    assert ended.complaints[1] == "  file /nowhere/web.toml: cannot be read: No such file or directory"


async def test_a_missing_token_file() -> None:
    ended = await sidecar("run", "-sidecar-for", "web", "-token-file", "/nowhere/token")
    assert ended.code == 78
    assert ended.complaints == ["sidecar: flag -token-file: there is no file /nowhere/token"]


async def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    words = ("-sidecar-for", "web", "-http-addr", "https://127.0.0.1:1", "-ca-file", str(tmp_path / "ca.pem"))
    ended = await sidecar("run", *words)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith("sidecar: the TLS files for https://127.0.0.1:1 cannot be used")


async def test_several_mistakes_are_told_at_once() -> None:
    ended = await sidecar(
        "run", "-sidecar-for", "web", "-log-level", "loud", environ={"CONSUL_HTTP_SSL": "maybe"}
    )
    assert ended.code == 78
    assert ended.complaints[0] == "sidecar: 2 settings are wrong"
    assert len(ended.complaints) == 3


async def test_the_admin_port_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = await sidecar("run", "-sidecar-for", "web", "-admin-bind", address)
    assert ended.code == 78
    text = "for the admin endpoint: it is in use; end the other process or choose another address"
    assert ended.complaints == [f"sidecar: cannot listen on {address} {text}"]


async def test_the_public_port_is_in_use(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        everything(consul, port=port)
        at = await consul.listen(nursery)
        ended = await sidecar("run", "-sidecar-for", "web", "-http-addr", at, *QUIET)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith(
        f"sidecar: cannot listen on 127.0.0.1:{port} for callers from the mesh: it is in use"
    )


async def test_an_upstream_port_is_in_use(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = await sidecar("run", "-service", "web", "-upstream", f"db:{port}", "-http-addr", at, *QUIET)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith(f"sidecar: cannot listen on 127.0.0.1:{port} for upstream db: it is in use")


async def test_the_control_plane_is_unreachable() -> None:
    address = unused()
    words = ("-sidecar-for", "web", "-http-addr", address, "-start-timeout", "1", *QUIET)
    ended = await sidecar("run", *words)
    assert ended.code == 69
    (line,) = ended.complaints
    assert line.startswith("sidecar: not able to serve within 1 s: registration: /v1/agent/services")
    assert "unreachable: Connection refused" in line


async def test_the_control_plane_has_no_roots_yet(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    everything(consul)
    consul.replace("/v1/agent/connect/ca/roots")
    consul.answer("/v1/agent/connect/ca/roots", text="CA has not finished initializing", status=500)
    at = await consul.listen(nursery)
    ended = await sidecar("run", "-sidecar-for", "web", "-http-addr", at, "-start-timeout", "1", *QUIET)
    assert ended.code == 69
    (line,) = ended.complaints
    assert "credentials: roots: " in line
    assert "answered 500: CA has not finished initializing" in line


async def test_an_unknown_service_id(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", {})
    consul.answer(
        "/v1/agent/service/wbe-sidecar-proxy", text="unknown service ID: wbe-sidecar-proxy", status=404
    )
    at = await consul.listen(nursery)
    ended = await sidecar("run", "-sidecar-for", "wbe", "-http-addr", at, *QUIET)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith(
        f"sidecar: the Consul agent at http://{at} knows no sidecar for the service id 'wbe'"
    )


async def test_an_unknown_proxy_id(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/service/nope", text="unknown service ID: nope", status=404)
    ended = await sidecar("run", "-proxy-id", "nope", "-http-addr", await consul.listen(nursery), *QUIET)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith("sidecar: the Consul agent knows no service with the id 'nope'")


async def test_several_sidecars_of_one_service(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", listed("a-proxy", "b-proxy"))
    ended = await sidecar("run", "-sidecar-for", "web", "-http-addr", await consul.listen(nursery), *QUIET)
    assert ended.code == 78
    assert ended.complaints == [
        "sidecar: service 'web' has 2 sidecars: a-proxy, b-proxy; choose one with -proxy-id"
    ]


@pytest.mark.parametrize(
    "registration", [{"Kind": "", "Proxy": None}, {"Proxy": {"DestinationServiceName": ""}}]
)
async def test_a_registration_that_is_none_of_a_proxy(
    consul: ScriptedConsul, nursery: trio.Nursery, registration: dict[str, object]
) -> None:
    consul.answer(f"/v1/agent/service/{PROXY}", proxy(**registration), content_hash="h1")
    ended = await sidecar("run", "-proxy-id", PROXY, "-http-addr", await consul.listen(nursery), *QUIET)
    assert ended.code == 78
    (line,) = ended.complaints
    assert line.startswith(f"sidecar: the registration of '{PROXY}' cannot be served")


async def test_nobody_said_where_the_app_is(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    everything(consul, port=21000, Proxy={"DestinationServiceName": "web", "DestinationServiceID": "web"})
    ended = await sidecar("run", "-proxy-id", PROXY, "-http-addr", await consul.listen(nursery), *QUIET)
    assert ended.code == 78
    assert "-service-addr" in ended.complaints[0]


REFUSED = [
    "/v1/agent/services",
    f"/v1/agent/service/{PROXY}",
    "/v1/agent/connect/ca/leaf/web",
    "/v1/connect/intentions/match",
]


@pytest.mark.parametrize("path", REFUSED)
async def test_the_token_is_refused(consul: ScriptedConsul, nursery: trio.Nursery, path: str) -> None:
    everything(consul)
    consul.replace(path)
    consul.answer(path, text="Permission denied", status=403)
    words = (
        "-sidecar-for",
        "web",
        "-listen",
        "127.0.0.1:0",
        "-http-addr",
        await consul.listen(nursery),
        *QUIET,
    )
    ended = await sidecar("run", *words, environ={"CONSUL_HTTP_TOKEN": "s3cret-token"})
    assert ended.code == 77
    (line,) = ended.complaints
    assert line.startswith(
        f"sidecar: Consul refuses: {path} answered 403: Permission denied; the token needs"
    )
    assert "s3cret-token" not in ended.err


async def test_no_token_is_refused(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", {})
    consul.answer(f"/v1/agent/service/{PROXY}", text="Permission denied", status=403)
    ended = await sidecar("run", "-sidecar-for", "web", "-http-addr", await consul.listen(nursery), *QUIET)
    assert ended.code == 77
    assert "no token is set; give one with -token-file or CONSUL_HTTP_TOKEN" in ended.complaints[0]


async def test_something_that_is_not_consul(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    consul.answer("/v1/agent/services", text="<html>It works!</html>")
    at = await consul.listen(nursery)
    ended = await sidecar("run", "-sidecar-for", "web", "-http-addr", at, *QUIET)
    assert ended.code == 78
    assert ended.complaints[0].startswith(f"sidecar: http://{at} does not answer as a Consul agent does")


# --- runs ---


class Running:
    """A sidecar that runs."""

    def __init__(self, process: trio.Process, log: str) -> None:
        self.process = process
        self.log = log

    async def end(self, *, by: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(by)
        with trio.fail_after(20):
            assert self.process.stderr is not None
            async for chunk in self.process.stderr:
                self.log += chunk.decode()
            return await self.process.wait()


@asynccontextmanager
async def running(
    *words: str, environ: dict[str, str] | None = None, until: str = " ready "
) -> AsyncIterator[Running]:
    """The sidecar, from ready on; killed at the end if it is still there."""
    process = await trio.lowlevel.open_process(
        command("run", *words), env=environment(environ), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        yield Running(process, await lines_until(process.stderr, until))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_it_runs_until_it_is_told_to_end(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET, "-log-format", "json")
    async with running(*words, until='"event":"ready"') as sidecar_:
        assert await sidecar_.end() == 0
        assert "Traceback" not in sidecar_.log
        events = [json.loads(line)["event"] for line in sidecar_.log.splitlines()]
    assert events[0] == "started"
    assert events[-1] == "drained"


async def test_told_to_end_before_it_is_ready_it_ends_cleanly() -> None:
    words = ("-sidecar-for", "web", "-http-addr", unused(), *QUIET)
    async with running(*words, until="watch.failed") as sidecar_:
        assert await sidecar_.end(by=signal.SIGINT) == 0


async def test_keys_and_tokens_are_in_no_line_and_no_answer(
    consul: ScriptedConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    admin = f"unix:{tmp_path}/admin.sock"
    words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, "-log-level", "debug")
    async with running(
        *words, "-admin-bind", admin, environ={"CONSUL_HTTP_TOKEN": "s3cret-token"}
    ) as sidecar_:
        told = [await sidecar("status", "-admin-bind", admin, *extra) for extra in ((), ("-json",))]
        await sidecar_.end()
    for text in (sidecar_.log, *(one.out + one.err for one in told)):
        assert "s3cret-token" not in text
        assert "PRIVATE KEY" not in text
    assert json.loads(told[1].out)["settings"]["token"] == {
        "value": "(set, not shown)",
        "origin": "environment CONSUL_HTTP_TOKEN",
    }
    assert not (tmp_path / "admin.sock").exists()


async def test_the_service_manager_hears_of_it(
    consul: ScriptedConsul, nursery: trio.Nursery, tmp_path: Path
) -> None:
    everything(consul)
    at = await consul.listen(nursery)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "200000"}
        words = ("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET)
        async with running(*words, environ=environ) as sidecar_:
            await sidecar_.end()
        manager.setblocking(False)
        heard = []
        while True:
            try:
                heard.append(manager.recv(4096).decode())
            except BlockingIOError:
                break
    assert "WATCHDOG=1" in heard
    ready = next(n for n, text in enumerate(heard) if text.startswith("READY=1"))
    stopping = next(n for n, text in enumerate(heard) if text.startswith("STOPPING=1"))
    assert ready < stopping


async def test_an_idle_agent_stays_within_its_memory(consul: ScriptedConsul, nursery: trio.Nursery) -> None:
    """In resident megabytes; the interpreter's own share differs by two between builds of Python 3.11."""
    everything(consul)
    at = await consul.listen(nursery)
    async with running("-sidecar-for", "web", "-listen", "127.0.0.1:0", "-http-addr", at, *QUIET) as sidecar_:
        await trio.sleep(0.2)
        pages = int(Path(f"/proc/{sidecar_.process.pid}/statm").read_text().split()[1])
        resident = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
        await sidecar_.end()
    assert resident <= 48, f"{resident:.1f} MB"
