"""`sidecar doctor`: the walk from the settings to the upstreams, and as a process beside a datacenter."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import trio

from agent import VERSION
from agent.base.address import TcpAddress, UnixAddress
from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.cli.doctor import (
    agent_findings,
    another_agent,
    examine,
    look_at_agent,
    look_at_bind,
    look_at_deny_file,
    look_at_files,
    look_at_listeners,
    main,
)
from agent.cli.findings import Finding, State
from agent.cli.instances import Running
from tests.contract.processes import process
from tests.support.agent_in_process import App, free_port, public_life, wall
from tests.support.agent_parts import registration, settings
from tests.support.agent_process import sidecar
from tests.support.beside_consul import everything, unused
from tests.support.fake_consul import FakeConsul
from upstreams.spec import LocalBind, ServiceDestination, SocketBind, Upstream

pytestmark = pytest.mark.slow

SOUND = {
    "pid": 7,
    "ready": True,
    "missing": [],
    "version": VERSION,
    "complaints": [],
    "credentials": {"not_after": "2031-05-20T12:00:00Z"},
    "watches": [{"name": "leaf", "failing": None, "answered_seconds_ago": 1.0}],
}


def states(findings: list[Finding]) -> list[State]:
    return [one.state for one in findings]


def test_a_sound_agent_and_an_ailing_one() -> None:
    assert set(states(agent_findings(SOUND))) == {State.OK}
    failing = {"since": "12:00", "reason": "unavailable", "detail": "no leader"}
    ailing = agent_findings(
        {
            **SOUND,
            "ready": False,
            "missing": ["leaf: no answer yet"],
            "version": "0.0.1",
            "complaints": ["AUDIT MODE"],
            "watches": [
                {"name": "leaf", "failing": failing, "answered_seconds_ago": 61.0},
                {"name": "roots", "failing": failing, "answered_seconds_ago": None},
            ],
        }
    )
    assert states(ailing) == [State.FAIL, State.WARN, State.WARN, State.OK, State.WARN]
    assert "leaf, roots fail since 12:00, last answered 61 s ago: no leader" in ailing[-1].found


def test_the_agent_that_answers_is_another_service_s() -> None:
    for proxy_id, expected in (("web-sidecar-proxy", []), ("db-sidecar-proxy", [State.WARN])):
        running = Running(document={"pid": 7, "placement": {"proxy_id": proxy_id}})
        assert states(another_agent(registration(), running)) == expected
    assert another_agent(registration(), Running()) == []


def test_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("agent.cli.doctor.resource.getrlimit", lambda _what: (1024, 1024))
    assert look_at_files(Running()).state is State.WARN
    monkeypatch.setattr("agent.cli.doctor.resource.getrlimit", lambda _what: (1024, 65536))
    assert look_at_files(Running()).state is State.OK
    short = Running(document={"complaints": ["open files run out: 88 of 100 (LimitNOFILE), so callers wait"]})
    found = look_at_files(short)
    assert (found.state, found.found) == (State.WARN, "88 of 100 (LimitNOFILE), so callers wait")
    assert look_at_deny_file(settings()) == []
    assert states(look_at_deny_file(settings(deny_file="/nowhere/x"))) == [State.FAIL]
    (tmp_path / "denied").write_text("")
    assert states(look_at_deny_file(settings(deny_file=str(tmp_path / "denied")))) == [State.OK]


async def test_a_bind(tmp_path: Path) -> None:
    app = App()
    host, port = app.sock.getsockname()
    taken = LocalBind(host, port)
    assert (await look_at_bind("public", taken, Running())).state is State.FAIL
    holder = Running(document={"pid": 7, "public": {"addresses": [str(taken)]}})
    held = await look_at_bind("public", taken, holder)
    assert held.found == f"{taken} is held by the running agent (pid 7)"
    app.sock.close()
    assert (await look_at_bind("public", taken, Running())).state is State.OK
    assert (await look_at_bind("u", SocketBind(f"{tmp_path}/s"), Running())).state is State.OK
    assert (await look_at_bind("u", SocketBind("/nowhere/s"), Running())).state is State.FAIL
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("live", "state"), [(1, State.OK), (2, State.WARN)])
async def test_a_listener_at_its_limit_is_full(live: int, state: State) -> None:
    place = LocalBind("127.0.0.1", free_port())
    row = {"addresses": [str(place)], "live": live, "limit": 2, "overflow": 14}
    for document in ({"public": row}, {"upstreams": [{"bind": str(place), "listener": row}]}):
        found = await look_at_bind("x", place, Running(document={"pid": 7, **document}))
        assert found.state is state
        assert ("2 of 2 connections, 14 callers turned away" in found.found) is (state is State.WARN)


async def test_a_listener_that_systemd_holds_at_another_port_is_not_free() -> None:
    public, upstream = LocalBind("127.0.0.1", free_port()), LocalBind("127.0.0.1", free_port())
    elsewhere = Running(
        document={
            "pid": 7,
            "placement": {"public_bind": str(public)},
            "public": {"addresses": ["[::]:21001"]},
            "upstreams": [{"bind": str(upstream), "listener": {"addresses": ["127.0.0.1:9192"]}}],
        }
    )
    for place, there in ((public, "[::]:21001"), (upstream, "127.0.0.1:9192")):
        found = await look_at_bind("x", place, elsewhere)
        assert found.state is State.FAIL
        assert found.found == f"the running agent (pid 7) listens at {there} instead of {place}"


@pytest.mark.parametrize("everywhere", ["[::]", "0.0.0.0"])
async def test_a_listener_at_every_address_holds_the_port_of_each(everywhere: str) -> None:
    """`ListenStream=21000` of a socket unit is `[::]:21000`."""
    running = Running(document={"pid": 7, "public": {"addresses": [f"{everywhere}:21000"]}})
    for host in ("0.0.0.0", "::", "127.0.0.1"):
        assert (await look_at_bind("public", LocalBind(host, 21000), running)).state is State.OK


async def test_listeners_and_the_app() -> None:
    app = App()
    where = TcpAddress("127.0.0.1", app.sock.getsockname()[1])
    public = TcpAddress("127.0.0.1", free_port())
    sound = registration(public_bind=public, local_app=where)
    assert states(await look_at_listeners(sound, Running())) == [State.OK, State.OK]
    outside = registration(public_bind=TcpAddress("127.0.0.9", free_port()), local_app=UnixAddress("/no/app"))
    told = await look_at_listeners(outside, Running())
    assert states(told) == [State.OK, State.FAIL]
    assert told[1].code is ExitCode.APP_DOWN
    nowhere = registration(public_bind=public, local_app=None)
    assert states(await look_at_listeners(nowhere, Running())) == [State.OK, State.FAIL]
    assert states(await look_at_listeners(registration(public_bind=None), Running())) == [State.SKIP]
    meeting = registration(public_bind=where, local_app=where, public_unserved=True)
    assert states(await look_at_listeners(meeting, Running())) == [State.SKIP, State.OK]
    app.sock.close()


async def test_an_app_that_is_our_own_listener_is_no_app() -> None:
    """Something takes connections there: the upstream's listener of the sidecar that runs."""
    app = App()
    where = TcpAddress("127.0.0.1", app.sock.getsockname()[1])
    upstream = Upstream(destination=ServiceDestination("db"), bind=LocalBind(where.host, where.port))
    looped = registration(local_app=where, upstreams=(upstream,), public_unserved=True)
    told = await look_at_listeners(looped, Running())
    assert states(told) == [State.SKIP, State.FAIL]
    assert "our own listener for upstream db" in told[1].found
    app.sock.close()


async def test_a_running_agent_is_heard(nursery: trio.Nursery) -> None:
    life = public_life(nursery)
    life.bench.well()
    findings: list[Finding] = []
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        admin = life.bench.agent.admin_addresses[0].removeprefix("http://")
        running = await look_at_agent(settings(admin_bind=admin), findings)
        host, port = life.address()
        life.cycle.drain("the test")
    assert findings[0].found == "ready"
    assert running.holds(LocalBind(host, port))
    assert not (await look_at_agent(settings(admin_bind="unix:/nowhere/x"), findings)).document
    assert findings[-1].state is State.WARN


async def test_the_whole_walk(nursery: trio.Nursery) -> None:
    consul, app = FakeConsul(), App()
    consul.answer("/v1/catalog/datacenters", ["dc1"])
    everything(consul, port=free_port())
    at = await consul.listen(nursery)
    flags = {"admin_bind": "unix:/nowhere/x", "service_addr": app.address}
    told = await examine(settings(http_addr=at, **flags), wall)
    assert State.FAIL not in states(told), [str(one) for one in told]
    subjects = [
        "settings",
        "open files",
        "running agent",
        "token",
        "consul",
        "clock",
        "consul connections",
        "registration",
    ]
    assert [one.subject for one in told] == [
        *subjects,
        "roots",
        "leaf",
        "intentions",
        "replica",
        "public",
        "app",
        "instance",
    ]
    away = await examine(settings(http_addr=unused(), **flags), wall)
    assert states(away)[-3:] == [State.FAIL, State.SKIP, State.SKIP]
    app.sock.close()


def test_wrong_settings() -> None:
    console = Console(words=("-narrow", "x", "-json"), environ={}, out=io.StringIO(), err=io.StringIO())
    assert main("doctor", console) == 78
    assert isinstance(console.out, io.StringIO)
    told = json.loads(console.out.getvalue())
    assert told["exit"] == 78
    assert len(told["findings"]) == 2  # whom it is for is not said either


async def test_beside_a_datacenter_as_a_process(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    words = ("datacenter", "-name", "dc1", "-http-addr", address, "-data-dir", f"{tmp_path}/data")
    ask = ("doctor", "-service", "web", "-http-addr", address, "-admin-bind", "unix:/nowhere/x")
    with process([sys.executable, "-m", "agent", *words], tmp_path / "log"), trio.fail_after(30):
        while (ended := await sidecar(*ask)).code == ExitCode.UNAVAILABLE:
            pass  # it is starting; the question itself takes its time
        missing = await sidecar(*ask, "-upstream", f"db:{free_port()}")
    assert ended.code == 0, ended.out
    assert "ok    leaf: spiffe://" in ended.out
    assert missing.code == ExitCode.FAR_SIDE
    assert "fail  upstream db: 0 instances, 0 passing or warning; register a sidecar" in missing.out
