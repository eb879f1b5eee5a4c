"""Two workers, as processes: rotation, revocation, drain and every number are those of one agent.

Each test holds connections in both workers, and finds in `/status` which has which.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.net.handshake import client_handshake
from tests.certs.authority import Issuer, roots_answer
from tests.scenarios.two_workers import SECONDS, Agent, Held, running
from tests.support.agent_in_process import free_port
from tests.support.socket_pairs import contexts_of

RECORD_OF_FIRST = 5 + len(b"first") + 1 + 16  # header, text, content type, tag
MATCH = "/v1/connect/intentions/match"
ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"


@pytest.fixture
async def agent(nursery: trio.Nursery) -> AsyncIterator[Agent]:
    async with running(nursery) as made:
        yield made


async def test_no_ticket_goes_before_the_first_byte(agent: Agent) -> None:
    """A worker reads agent/process/openssl.cnf as an agent alone does."""
    sock = socket.create_connection(agent.address, timeout=SECONDS)
    with sock:
        sock.setblocking(False)
        context = contexts_of(agent.root.leaf(service="client"), agent.root).client
        tls = await client_handshake(sock, context, "web", SECONDS)
        tls.send(b"first")
        await trio.lowlevel.wait_readable(sock)
        assert len(sock.recv(65536, socket.MSG_PEEK)) == RECORD_OF_FIRST
        assert tls.recv(100) == b"first"


async def test_both_serve_and_every_number_is_a_sum(agent: Agent) -> None:
    by_worker = await agent.in_both()
    count = sum(map(len, by_worker.values()))
    told = await agent.status()
    assert told["ready"] is True
    assert told["public"]["live"] == told["public"]["admitted"] == count
    assert {row["worker"]: row["connections"] for row in told["workers"]} == {
        number: len(held) for number, held in by_worker.items()
    }
    assert len({row["pid"] for row in told["workers"]} | {told["pid"]}) == 3
    assert told["counters"]["bytes"]["inbound"] == {"to_plain": 5 * count, "to_tls": 5 * count}
    page = await metrics(agent)
    assert f'sidecar_connections_live{{direction="inbound"}} {count}' in page
    assert "sidecar_workers_serving 2" in page


async def test_an_intention_that_denies_cuts_what_lives_in_both(agent: Agent) -> None:
    await agent.in_both()
    agent.consul.answer(MATCH, {"web": None}, index=8, policy="deny")
    with trio.fail_after(SECONDS):
        for held in agent.held:
            while await held.say():
                pass
    told = await agent.until(lambda told: not told["connections"])
    assert told["counters"]["endings"]["inbound"] == {"intention_withdrawn": len(agent.held)}


async def test_a_rotation_reaches_both_and_disturbs_nobody(agent: Agent) -> None:
    await agent.in_both()
    old, new = agent.root, Issuer.root()
    agent.consul.answer(ROOTS, roots_answer(new, old), index=8)
    agent.consul.answer(LEAF, new.leaf(serial=99).answer(), index=9)
    await agent.until(lambda told: told["credentials"]["serial"] == "63")
    assert [await held.say() for held in agent.held] == [b"hello"] * len(agent.held)
    context = contexts_of(new.leaf(service="client"), new, old).client
    in_row = 0  # new leaves shown one after the other: both workers are asked, for the kernel decides
    with trio.fail_after(SECONDS):
        while in_row < 12:
            sock = socket.create_connection(agent.address)
            sock.setblocking(False)
            tls = await client_handshake(sock, context, "web", SECONDS)
            shown = tls.get_peer_certificate()
            agent.held.append(Held(sock, tls))
            assert shown is not None
            in_row = in_row + 1 if shown.get_serial_number() == 99 else 0


async def test_a_worker_that_is_killed_loses_its_own_connections_and_is_replaced(agent: Agent) -> None:
    by_worker = await agent.in_both()
    victim = next(row["pid"] for row in (await agent.status())["workers"] if row["worker"] == 0)
    os.kill(victim, signal.SIGKILL)
    told = await agent.until(
        lambda told: all(row["serving"] and row["pid"] != victim for row in told["workers"])
    )
    assert [await held.say() for held in by_worker[0]] == [b""] * len(by_worker[0])
    assert [await held.say() for held in by_worker[1]] == [b"hello"] * len(by_worker[1])
    assert told["ready"] is True
    assert told["workers"][0]["deaths"] == {"killed": 1}
    for _ in range(8):
        await agent.call()  # by whichever
    page = await metrics(agent)
    assert 'sidecar_worker_deaths_total{reason="killed"} 1' in page
    assert 'sidecar_connections_total{direction="inbound",reason="worker_died"}' in page


async def test_they_drain_as_one(agent: Agent) -> None:
    by_worker = await agent.in_both()
    agent.process.send_signal(signal.SIGTERM)
    await agent.until(lambda told: told["phase"] == "draining")
    with trio.fail_after(SECONDS):
        while not refuses(agent.address):  # noqa: ASYNC110 - a worker hears of it a moment later
            await trio.sleep(0.01)
    for held in by_worker[0]:
        held.tls.shutdown()
        held.sock.close()
    assert [await held.say() for held in by_worker[1]] == [b"hello"] * len(by_worker[1])
    assert agent.process.returncode is None
    for held in by_worker[1]:
        held.tls.shutdown()
        held.sock.close()
    with trio.fail_after(SECONDS):
        assert await agent.process.wait() == 0


async def test_upstreams_are_reached_through_both_and_endpoints_follow(nursery: trio.Nursery) -> None:
    """web calls web: out through one worker or the other, and in through one or the other."""
    port = free_port()
    async with running(nursery, "-upstream", f"web:{port}") as agent:
        assert await echoed(port) == b""  # nobody knows where it is
        agent.consul.answer("/v1/health/connect/web", [instance(agent.address)], index=3)
        with trio.fail_after(SECONDS):
            in_row = 0
            while in_row < 12:  # whichever serves it knows, one perhaps a moment after the other
                in_row = in_row + 1 if await echoed(port) == b"hello" else 0
        (row,) = (await agent.status())["upstreams"]
        assert [e["instance"] for e in row["targets"][0]["endpoints"]] == ["web-1 on n1 in dc1"]
        agent.consul.answer("/v1/health/connect/web", [], index=4)
        with trio.fail_after(SECONDS):
            in_row = 0
            while in_row < 12:
                in_row = in_row + 1 if await echoed(port) == b"" else 0
        assert (await agent.status())["counters"]["endings"]["outbound"]["no_endpoints"] >= 12


async def test_our_own_list_reaches_both(nursery: trio.Nursery) -> None:
    """web calls web, which our list then denies; so does the far side's, who is not even asked."""
    port, rule = free_port(), {"SourceName": "web", "DestinationName": "web", "Action": "deny"}
    async with running(nursery, "-upstream", f"web:{port}", "-judge-outbound") as agent:
        agent.consul.answer("/v1/health/connect/web", [instance(agent.address)], index=3)

        async def refused() -> int:
            assert await echoed(port) != b"hello"
            told = await agent.status()
            return int(told["counters"]["endings"]["outbound"].get("intention_deny", 0))

        with trio.fail_after(SECONDS):
            while await echoed(port) != b"hello":
                pass
            agent.consul.answer(MATCH, {"web": [rule]}, index=8)
            await agent.until(lambda told: told["outgoing"]["rules"] == ["web => web (deny, precedence 9)"])
            in_row = 0
            while in_row < 12:  # whichever serves it, one perhaps a moment after the other
                in_row = in_row + 1 if await refused() < await refused() else 0


async def test_what_is_left_at_the_deadline_is_cut_and_counted(nursery: trio.Nursery) -> None:
    async with running(nursery, "-drain-seconds", "0.2") as agent:
        await agent.in_both()
        pids = [row["pid"] for row in (await agent.status())["workers"]]
        agent.process.send_signal(signal.SIGTERM)
        with trio.fail_after(SECONDS):
            assert await agent.process.wait() == 1
        assert not any(Path(f"/proc/{pid}/fd").exists() for pid in pids)


async def test_workers_whose_control_process_is_gone_end(nursery: trio.Nursery) -> None:
    async with running(nursery, "-drain-seconds", "0.2") as agent:
        await agent.in_both()
        pids = [row["pid"] for row in (await agent.status())["workers"]]
        agent.process.kill()
        with trio.fail_after(SECONDS):
            while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - a test looks
                await trio.sleep(0.01)


async def test_keys_and_tokens_are_in_no_argument_variable_or_file(agent: Agent) -> None:
    await agent.in_both()
    told = await agent.status()
    for row in told["workers"]:
        process = Path(f"/proc/{row['pid']}")
        given = process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
        assert b"PRIVATE" not in given
        assert b"s3cret" not in given
        assert b"CONSUL" not in given
        own = [path for path in process.joinpath("fd").iterdir() if int(path.name) > 2]
        opened = [str(path.readlink()) for path in own]
        assert [path for path in opened if path.startswith("/")] == []
    assert "PRIVATE" not in "".join(agent.log) + json.dumps(told)


def instance(at: tuple[str, int]) -> dict[str, Any]:
    """As health tells of one."""
    service = {"Kind": "connect-proxy", "ID": "web-1", "Address": at[0], "Port": at[1]}
    return {
        "Node": {"Node": "n1", "Address": at[0], "Datacenter": "dc1"},
        "Service": {**service, "Proxy": {"DestinationServiceName": "web"}},
        "Checks": [],
    }


async def echoed(port: int) -> bytes:
    """What the app on the other side says; empty when there is no way to it."""
    try:
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"hello")
            return bytes(await stream.receive_some())
    except (trio.BrokenResourceError, OSError):  # reset, maybe before we saw it open
        return b""


def refuses(address: tuple[str, int]) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(address) != 0


def alive(pid: int) -> bool:
    try:
        return "(zombie)" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def metrics(agent: Agent) -> str:
    host, _, port = agent.admin.partition(":")
    stream = await trio.open_tcp_stream(host, int(port))
    async with stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        page = b""
        async for chunk in stream:
            page += chunk
    return page.decode()
