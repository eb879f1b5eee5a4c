"""`status`, `wait` and `drain` against a running agent, and against none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from agent.clients import summary
from agent.exits import ExitCode
from agent.status import document
from tests.agent.assembled import MATCH
from tests.agent.living import Life, public_life
from tests.agent.processes import sidecar


@asynccontextmanager
async def beside(
    nursery: trio.Nursery, tmp_path: Path, *, ready: bool = True
) -> AsyncIterator[tuple[Life, str]]:
    """An agent with an admin socket; its address."""
    admin = f"unix:{tmp_path}/admin.sock"
    life = public_life(nursery, admin_bind=[admin, "127.0.0.1:0"])
    life.bench.well()
    if not ready:
        life.bench.consul.replace(MATCH)
        life.bench.consul.answer(MATCH, text="No cluster leader", status=500)
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.until(lambda: life.bench.parts.admin_addresses)
        if ready:
            await life.ready()
        yield life, admin
        life.cycle.drain("the test")


async def test_status(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        short = await sidecar("status", "-admin-bind", admin)
        whole = await sidecar("status", "-json", environ={"SIDECAR_ADMIN_BIND": f"{admin} 127.0.0.1:1"})
        over_tcp = await sidecar("status", "-admin-bind", life.bench.parts.admin_addresses[1])
    assert short.code == whole.code == over_tcp.code == 0
    assert short.out.startswith("serving, ready\nidentity    spiffe://")
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
    assert line.startswith("sidecar: not ready within 0.5 s: intentions: ")


async def test_drain(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path) as (life, admin):
        refused = await sidecar("drain", "-admin-bind", life.bench.parts.admin_addresses[1])
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
    ended = await sidecar("status", "-jsn", "word", "-admin-bind", "nonsense", "stray")
    assert ended.code == 64
    assert ended.complaints == [
        "sidecar: unknown flag -jsn; did you mean -json?",
        "sidecar: what is 'stray' for?",
        "sidecar: -admin-bind: 'nonsense': write ADDR:PORT",
    ]


async def test_the_page_says_what_is_wrong(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with beside(nursery, tmp_path, ready=False) as (life, _):
        await life.until(lambda: life.bench.parts.contexts.value)
        await life.until(lambda: "watch.failed" in life.bench.events())
        page = summary(document(life.bench.parts))
    assert page.startswith("starting, not ready: intentions: ")
    assert "\nfailing     intentions since " in page
