"""One agent's life in this process: real sockets and a real relay, a scripted Consul."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from agent.connections.records import Direction
from agent.observe.readiness import missing
from agent.process.systemd import Inherited
from agent.proxy.reconcile import PUBLIC
from tests.support.agent_in_process import (
    App,
    Caller,
    answers,
    exit_of,
    free_port,
    life,
    live,
    public_life,
    upstream,
)
from tests.support.agent_parts import MATCH, PROXY, SERVICE, proxy_answer


async def test_it_becomes_ready_and_ends(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        assert missing(one.bench.agent) == []
        assert one.bench.snapshot.own_datacenter() == "dc1"

    await live(one, act)
    assert one.code is ExitCode.CLEAN
    assert missing(one.bench.agent) == ["draining"]
    events = one.bench.events()
    assert events.index("credentials.published") < events.index("listening", 2) < events.index("ready")


async def test_nobody_is_let_in_before_credentials_and_intentions_are_there(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()
    one.bench.consul.replace(MATCH)
    one.bench.consul.answer(MATCH, text="No cluster leader", status=500)
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.until(lambda: one.bench.snapshot.credentials.value)
        await one.until(lambda: "watch.failed" in one.bench.events())
        with socket.socket() as caller:
            assert caller.connect_ex(one.address()) != 0
        (piece,) = missing(one.bench.agent)
        assert piece.startswith("intentions: ")
        one.bench.consul.answer(MATCH, {"web": None}, index=7)
        await one.ready()
        socket.create_connection(one.address()).close()
        one.cycle.drain("the test")
    assert one.code is ExitCode.CLEAN


async def test_without_a_public_listener_intentions_are_not_needed(nursery: trio.Nursery) -> None:
    one = life(nursery, service="web")
    one.bench.well()

    async def act() -> None:
        assert one.bench.data.reconciler.listeners.get(PUBLIC) is None
        assert not one.bench.consul.questions(MATCH)
        assert not one.bench.consul.questions(SERVICE)

    await live(one, act)


async def test_a_caller_is_served_and_has_time_to_finish(nursery: trio.Nursery) -> None:
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address)
    caller = Caller(one.bench.well())
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        await caller.connect(one.address())
        assert await caller.say(b"hello") == b"hello"
        address = one.address()
        one.cycle.drain("the test")
        await one.until(lambda: "listening.ended" in one.bench.events())
        with socket.socket() as late:
            assert late.connect_ex(address) != 0, "nobody is let in any more"
        assert await caller.say(b"still here") == b"still here"
        caller.close()
    assert one.code is ExitCode.CLEAN
    assert app.accepted == 1


@pytest.mark.parametrize("how", ["deadline", "second signal"])
async def test_who_does_not_finish_in_time_is_cut(nursery: trio.Nursery, how: str) -> None:
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address, drain_seconds="0.2" if how == "deadline" else "60")
    caller = Caller(one.bench.well())
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.ready()
        await caller.connect(one.address())
        await caller.say(b"hello")
        os.kill(os.getpid(), signal.SIGTERM)
        if how == "second signal":
            await one.until(lambda: "draining" in one.bench.events())
            os.kill(os.getpid(), signal.SIGTERM)
        await one.until(lambda: not one.bench.data.ledger.live())
        assert await caller.say(b"cut") == b""
        caller.close()
    assert one.code is ExitCode.FAILED
    assert one.bench.data.ledger.counters()[Direction.INBOUND, "drain_deadline"] == 1


async def test_a_deny_cuts_a_live_connection_within_a_second(nursery: trio.Nursery) -> None:
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address)
    caller = Caller(one.bench.well())

    async def act() -> None:
        await caller.connect(one.address())
        assert await caller.say(b"hello") == b"hello"
        rule = {"SourceName": "client", "DestinationName": "web", "Action": "deny", "SourceNS": "default",
                "DestinationNS": "default", "SourceType": "consul", "Precedence": 9}  # fmt: skip
        one.bench.consul.answer(MATCH, {"web": [rule]}, index=8)
        with trio.fail_after(1):
            await one.bench.data.ledger.empty()
        assert await caller.say(b"denied") == b""
        caller.close()

    await live(one, act)
    assert "rejudged" in one.bench.events()


async def test_upstreams_come_and_go_without_a_touch_to_the_others(nursery: trio.Nursery) -> None:
    kept, gone, new = free_port(), free_port(), free_port()
    one = public_life(nursery)
    for name in ("a", "b", "c", "d"):
        one.bench.consul.answer(f"/v1/health/connect/{name}", [], index=3)
    one.bench.well(upstream("a", kept), upstream("b", gone))

    async def act() -> None:
        upstreams = one.bench.data.reconciler.upstreams
        assert upstreams is not None
        before = {bind.port: upstreams.listeners.get(bind) for bind in upstreams.current}  # type: ignore[union-attr]
        changed = proxy_answer(upstream("c", kept), upstream("d", new))
        one.bench.consul.answer(SERVICE, changed, content_hash="h2")
        await one.until(lambda: any("d on" in str(t.upstream) for t in upstreams.current.values()))
        await one.until(lambda: answers(new))
        after = {bind.port: upstreams.listeners.get(bind) for bind in upstreams.current}  # type: ignore[union-attr]
        assert after[kept] is before[kept], "the same listener, with another destination behind it"
        assert [str(t.upstream.destination) for t in upstreams.current.values()] == ["c", "d"]
        assert not answers(gone)

    await live(one, act)


async def test_an_address_that_is_taken_later_is_told_and_tried_again(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.net.listeners.RETRY_SECONDS", 0.05)
    one = public_life(nursery)
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    one.bench.well()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        async def act() -> None:
            one.bench.consul.answer(SERVICE, proxy_answer(upstream("db", port)), content_hash="h2")
            await one.until(lambda: missing(one.bench.agent))
            (piece,) = missing(one.bench.agent)
            assert piece.startswith(
                f"listener: cannot listen on 127.0.0.1:{port} for upstream db: it is in use"
            )
            other.close()
            await one.until(lambda: not missing(one.bench.agent))
            assert answers(port)

        await live(one, act)
    assert one.bench.events().count("listening.failed") == 1


async def test_the_public_listener_moves(nursery: trio.Nursery) -> None:
    one = life(nursery)
    first, second = free_port(), free_port()
    one.bench.well(port=first)

    async def act() -> None:
        assert answers(first)
        one.bench.consul.answer(SERVICE, proxy_answer(port=second), content_hash="h2")
        await one.until(lambda: answers(second))
        assert not answers(first)
        one.bench.consul.answer(SERVICE, proxy_answer(port=0), content_hash="h3")
        await one.until(lambda: not answers(second))

    await live(one, act)


async def test_another_service_behind_the_proxy_is_another_agent(nursery: trio.Nursery) -> None:
    one = public_life(nursery)
    one.bench.well()

    async def act() -> None:
        one.bench.consul.answer(SERVICE, proxy_answer(service="api"), content_hash="h2")
        await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await live(one, act)
    assert exit_of(caught).code is ExitCode.FAILED
    assert (
        exit_of(caught).message
        == f"proxy '{PROXY}' now stands for 'api', not 'web'; starting again takes it up"
    )


async def test_a_socket_that_was_handed_in_is_the_public_listener(nursery: trio.Nursery) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    handed = sock.getsockname()
    one = life(nursery, Inherited(name="public", sock=sock))
    bench = one.bench
    bench.well(port=free_port())

    async def act() -> None:
        assert one.address() == handed
        socket.create_connection(handed).close()
        (piece,) = missing(bench.agent)
        assert piece.startswith("listener: socket_elsewhere: 'public' of systemd at 127.0.0.1:")
        changed = proxy_answer(port=free_port())
        bench.consul.answer(SERVICE, changed, content_hash="h2")
        await one.until(lambda: bench.events().count("registration.changed") == 2)
        socket.create_connection(handed).close()

    with sock:
        await live(one, act)


async def test_a_lone_socket_of_an_upstream_is_that_upstream_s_and_its_port_is_not_in_use(
    nursery: trio.Nursery,
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    held = sock.getsockname()
    one = public_life(nursery, Inherited(name="upstream-db", sock=sock), upstream=[f"db:{held[1]}"])
    one.bench.well()

    async def act() -> None:
        assert one.address() != held
        assert one.bench.data.problems() == []
        assert one.bench.data.warnings() == []
        (upstream,) = (await one.bench.data.report(rows=True)).upstreams
        assert upstream["listener"]["addresses"] == [f"127.0.0.1:{held[1]}"]

    with sock:
        await live(one, act)


async def test_a_socket_that_serves_no_caller_is_a_complaint_and_one_line_of_the_log(
    nursery: trio.Nursery,
) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    one = life(nursery, Inherited(name="web", sock=sock))
    bench = one.bench
    bench.well(port=free_port())

    async def act() -> None:
        assert missing(bench.agent) == []
        (complaint,) = bench.data.warnings()
        assert complaint.startswith("socket_unused: 'web' of systemd at 127.0.0.1:")
        bench.consul.answer(SERVICE, proxy_answer(port=free_port()), content_hash="h2")
        await one.until(lambda: bench.events().count("registration.changed") == 2)
        assert bench.events().count("socket.complaint") == 1

    with sock:
        await live(one, act)


async def test_it_registers_itself_and_says_goodbye(nursery: trio.Nursery) -> None:
    one = public_life(nursery, service="web", service_addr="127.0.0.1:8080", register="true")
    one.bench.well()
    for path in ("service/register", "check/update/web-proxy-ttl", "service/deregister/web-proxy"):
        one.bench.consul.answer(f"/v1/agent/{path}", text="")

    async def act() -> None:
        await one.until(lambda: one.bench.consul.questions("/v1/agent/check/update/web-proxy-ttl"))

    await live(one, act)
    assert b"connect-proxy" in one.bench.consul.questions("/v1/agent/service/register")[0].body
    assert one.bench.consul.questions("/v1/agent/service/deregister/web-proxy")


async def test_the_admin_endpoint_is_there_from_the_start_and_removed_at_the_end(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    one = public_life(nursery, admin_bind=[f"unix:{tmp_path}/admin.sock", "127.0.0.1:0"])
    one.bench.consul.down = True
    async with trio.open_nursery() as inner:
        inner.start_soon(one.run)
        await one.until(lambda: one.bench.agent.admin_addresses)
        stream = await trio.open_unix_socket(str(tmp_path / "admin.sock"))
        async with stream:
            await stream.send_all(b"GET /ready HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"503" in await stream.receive_some()
            await stream.send_all(b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            assert b"202" in await stream.receive_some()
    assert one.code is ExitCode.CLEAN
    assert not (tmp_path / "admin.sock").exists()


async def test_readiness_that_comes_and_goes_is_told(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("agent.lifecycle.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("agent.net.listeners.RETRY_SECONDS", 0.05)
    one = public_life(nursery)
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    one.bench.well()
    blocked = tmp_path / "db"
    blocked.write_text("in the way")

    async def act() -> None:
        changed = proxy_answer({"DestinationName": "db", "LocalBindSocketPath": str(blocked)})
        one.bench.consul.answer(SERVICE, changed, content_hash="h2")
        await one.until(lambda: "unready" in one.bench.events())
        blocked.unlink()
        await one.until(lambda: one.bench.events().count("ready") == 2)

    await live(one, act)
