"""`status`, `wait` and `drain` against a running agent, and against none."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from agent.cli import admin_commands as clients
from agent.cli import instances
from agent.cli.console import Console
from agent.config.parsers import parse_admin
from agent.net.bind import bind
from agent.observe.server import Admin
from agent.observe.status import document
from agent.overview.summary import summary
from tests.agent.observe.test_server import Heard
from tests.certs.authority import Issuer
from tests.support.agent_in_process import Life, public_life
from tests.support.agent_parts import LEAF, MATCH
from tests.support.agent_process import sidecar

pytestmark = pytest.mark.slow


@asynccontextmanager
async def beside(
    nursery: trio.Nursery, tmp_path: Path, *, ready: bool = True, root: Issuer | None = None
) -> AsyncIterator[tuple[Life, str]]:
    """An agent with an admin socket; its address."""
    admin = f"unix:{tmp_path}/admin.sock"
    life = public_life(nursery, admin_bind=[admin, "127.0.0.1:0"])
    life.bench.well(root=root)
    if not ready:
        life.bench.consul.replace(MATCH)
        life.bench.consul.answer(MATCH, text="No cluster leader", status=500)
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.until(lambda: life.bench.agent.admin_addresses)
        if ready:
            await life.ready()
        yield life, admin
        life.cycle.drain("the test")


async def test_status(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        short = await sidecar("status", "-admin-bind", admin)
        whole = await sidecar("status", "-json", environ={"SIDECAR_ADMIN_BIND": f"{admin} 127.0.0.1:1"})
        over_tcp = await sidecar("status", "-admin-bind", life.bench.agent.admin_addresses[1])
    assert short.code == whole.code == over_tcp.code == 0
    assert short.out.startswith("serving · leaf 2 d 23 h\nidentity    spiffe://")
    assert "\nroots       1 trusted, active " in short.out
    assert json.loads(whole.out)["credentials"]["serial"] == "0d"
    assert over_tcp.out.splitlines()[1] == short.out.splitlines()[1]


async def test_wait_until_it_is_ready(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (_, admin):
        assert (await sidecar("wait", "-admin-bind", admin)).code == 0


async def test_wait_in_vain(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path, ready=False) as (_, admin):
        ended = await sidecar("wait", "-admin-bind", admin, "-timeout", "0.5")
    assert ended.code == 69
    (line,) = ended.complaints
    assert line.startswith("sidecar: not ready within 0.5 s: starting · intentions: ")


async def test_rotate(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        over_tcp = await sidecar("rotate", "-admin-bind", life.bench.agent.admin_addresses[1])
        same = await sidecar("rotate", "-admin-bind", admin)
        root = Issuer.root()
        life.bench.consul.replace(LEAF)
        life.bench.consul.answer(LEAF, root.leaf(serial=0x0E).answer(), index=30)
        foreign = await sidecar("rotate", "-admin-bind", admin)
        life.bench.consul.answer(LEAF, text="Rate limit reached, try again later", status=429)
        failed = await sidecar("rotate", "-admin-bind", admin)
        asked = [dict(each.query) for each in life.bench.consul.questions(LEAF)]
    assert over_tcp.code == 77
    assert same.out.startswith("Consul hands out the leaf we have: 0d until ")
    assert same.out.endswith(", generation 1\n")
    assert (foreign.code, failed.code) == (69, 69)
    assert "untrusted_chain" in foreign.complaints[0]
    assert "Rate limit reached" in failed.complaints[0]
    assert {"reissue": "true"} in asked  # the watch of the leaf asks beside it


async def test_rotate_brings_a_new_leaf(nursery: trio.Nursery, tmp_path: Path) -> None:
    root = Issuer.root()
    async with beside(nursery, tmp_path, root=root) as (life, admin):
        life.bench.consul.answer(LEAF, root.leaf(serial=0x0E).answer(), index=30)
        ended = await sidecar("rotate", "-admin-bind", admin)
    assert ended.code == 0
    assert ": 0e until " in ended.out


async def test_rotate_before_there_is_a_leaf(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        rotation, life.bench.control.credentials = life.bench.control.credentials, None
        ended = await sidecar("rotate", "-admin-bind", admin)
        life.bench.control.credentials = rotation
    assert ended.code == 1
    assert "no leaf to replace yet" in ended.complaints[0]


async def test_drain(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        refused = await sidecar("drain", "-admin-bind", life.bench.agent.admin_addresses[1])
        assert refused.code == 77
        assert "over the unix socket only" in refused.complaints[0]
        ended = await sidecar("drain", "-admin-bind", admin)
        assert (ended.code, ended.out) == (0, "draining; connections have 5 s\n")
    assert life.code is ExitCode.CLEAN


@pytest.mark.parametrize("command", ["status", "drain"])
async def test_no_agent(tmp_path: Path, command: str) -> None:
    ended = await sidecar(command, "-admin-bind", f"unix:{tmp_path}/none")
    assert ended.code == 69
    assert ended.complaints[0].startswith(f"sidecar: no agent answers at unix:{tmp_path}/none (unreachable: ")


async def test_wait_for_no_agent(tmp_path: Path) -> None:
    ended = await sidecar("wait", "-admin-bind", f"unix:{tmp_path}/none", "-timeout", "0.3")
    assert ended.code == 69
    assert "no agent answers" in ended.complaints[0]


async def test_wrong_words() -> None:
    ended = await sidecar("status", "-jsn", "word", "-admin-bind", "nonsense", "stray", "another")
    assert ended.code == 64
    assert ended.complaints == [
        "sidecar: unknown flag -jsn; did you mean -json?",
        "sidecar: what is 'another' for?",
        "sidecar: -admin-bind: 'nonsense': write ADDR:PORT",
        "sidecar: 'stray' and -admin-bind: only one of them says where the agent is",
    ]


async def test_the_page_says_what_is_wrong(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path, ready=False) as (life, _):
        await life.until(lambda: life.bench.snapshot.credentials.value)
        await life.until(lambda: "watch.failed" in life.bench.events())
        page = summary(await document(life.bench.agent))
    assert page.startswith("starting · intentions: ")
    assert "\nfailing     intentions since " in page


# --- the same in this process ---


class Terminal:
    """A console, and what was written to it."""

    def __init__(self) -> None:
        self.console = Console(words=(), environ={}, out=io.StringIO(), err=io.StringIO())

    @property
    def out(self) -> str:
        assert isinstance(self.console.out, io.StringIO)
        return self.console.out.getvalue()

    @property
    def err(self) -> str:
        assert isinstance(self.console.err, io.StringIO)
        return self.console.err.getvalue()

    async def talk(self, name: str, admin: str, **told: object) -> int:
        words = {"json": False, "timeout": 0.3, **told, "admin_bind": parse_admin(admin)}
        return await clients._talk(name, self.console, words)


async def test_every_command_in_one_life(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        tcp = life.bench.agent.admin_addresses[1]
        for name, at, code in (
            ("status", admin, ExitCode.CLEAN),
            ("status", tcp, ExitCode.CLEAN),
            ("wait", tcp, ExitCode.CLEAN),
            ("drain", tcp, ExitCode.PERMISSION),
            ("drain", admin, ExitCode.CLEAN),
        ):
            assert await Terminal().talk(name, at) == code, (name, at)
    assert life.code is ExitCode.CLEAN


async def test_nobody_is_there_in_any_case(tmp_path: Path) -> None:
    for name in ("status", "wait", "drain"):
        terminal = Terminal()
        assert await terminal.talk(name, f"unix:{tmp_path}/none") == ExitCode.UNAVAILABLE
        assert "no agent answers" in terminal.err


async def test_an_agent_of_another_kind_is_told_as_such(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Something answers, and not what was asked."""
    bound = await bind(parse_admin(f"unix:{tmp_path}/s"), "x")
    bound.listen()
    nursery.start_soon(Admin((), Heard()).serve, [bound.sock])
    terminal = Terminal()
    assert await terminal.talk("status", f"unix:{tmp_path}/s") == ExitCode.FAILED
    assert terminal.err.startswith("sidecar: the agent answered 404: ")
    bound.close()


def test_words_are_read_before_anybody_is_asked() -> None:
    terminal = Terminal()
    for words, code in ((("-help",), ExitCode.CLEAN), (("-nonsense",), ExitCode.USAGE)):
        console = Console(words=words, environ={}, out=terminal.console.out, err=terminal.console.err)
        assert clients.main("wait", console) == code
    assert terminal.out.startswith("usage: sidecar wait")


async def test_the_page_shows_where_upstreams_are(nursery: trio.Nursery, tmp_path: Path) -> None:
    life = public_life(nursery)
    entry = {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": "db-1-proxy", "Port": 21000, "Proxy": {"DestinationServiceName": "db"}},
        "Checks": [{"Status": "passing"}],
    }
    life.bench.consul.answer("/v1/health/connect/db", [entry], index=3)
    life.bench.consul.answer("/v1/health/connect/cache", [], index=3)
    life.bench.well(
        {"DestinationName": "db", "LocalBindSocketPath": f"{tmp_path}/db"},
        {"DestinationName": "cache", "LocalBindSocketPath": f"{tmp_path}/cache"},
    )
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        assert life.bench.control.endpoints is not None
        await life.until(lambda: all(watch.answers for watch in life.bench.control.statuses()))
        page = summary(await document(life.bench.agent))
        life.cycle.drain("the test")
    assert f"upstream    db on unix:{tmp_path}/db\n" in page
    assert "db-1-proxy on n1 in dc1 at 10.0.0.1:21000 (local_node_address), passing" in page
    assert f"upstream    cache on unix:{tmp_path}/cache\n              no instance" in page


async def command(name: str, *words: str) -> tuple[int, str, str]:
    """Run a command in a thread, with its own trio; its code, and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    console = Console(words=words, environ={}, out=out, err=err)
    code = await trio.to_thread.run_sync(clients.main, name, console)
    return code, out.getvalue(), err.getvalue()


async def test_commands_find_the_one_instance_and_of_several_the_named(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instances, "RUNTIME", tmp_path)
    (tmp_path / "web").mkdir()
    async with beside(nursery, tmp_path / "web") as (life, _):
        code, out, _ = await command("status")
        assert (code, out.splitlines()[0]) == (0, "serving · leaf 2 d 23 h")
        (tmp_path / "db").mkdir()
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "db" / "admin.sock"))
        code, out, err = await command("status")
        assert code == ExitCode.UNAVAILABLE
        assert out.startswith("db:\nweb:\n  serving · leaf 2 d 23 h\n  identity ")
        assert err.startswith(f"sidecar: db: no agent answers at unix:{tmp_path}/db/admin.sock ")
        code, out, _ = await command("status", "-json")
        assert list(json.loads(out)) == ["web"]
        code, _, err = await command("drain")
        assert (code, err) == (64, "sidecar: several instances run here, say which: db, web\n")
        code, _, err = await command("drain", "web", "-admin-bind", "127.0.0.1:1")
        assert (code, err) == (
            64,
            "sidecar: 'web' and -admin-bind: only one of them says where the agent is\n",
        )
        assert (await command("drain", "web"))[0] == 0
    assert life.code is ExitCode.CLEAN


async def test_the_log_level_is_changed_by_one_word(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        assert await command("log-level", "error", "-admin-bind", admin) == (
            0,
            "log level error, was debug\n",
            "",
        )
        assert life.bench.agent.log.level.value == "error"
        tcp = life.bench.agent.admin_addresses[1]
        code, _, err = await command("log-level", "warn", "-admin-bind", tcp)
        assert (code, "unix socket only" in err) == (ExitCode.PERMISSION, True)
    for words in ((), ("loud",)):
        code, _, err = await command("log-level", *words)
        assert (code, err) == (64, "sidecar: say which level: debug, info, warn, error\n")


async def test_the_status_is_printed_again_until_interrupted(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (_, admin):
        terminal = Terminal()
        with trio.move_on_after(3):
            await terminal.talk("status", admin, watch=True)
        assert terminal.out.count("serving · leaf 2 d 23 h\nidentity    spiffe://") >= 2
        assert "\x1b" not in terminal.out
