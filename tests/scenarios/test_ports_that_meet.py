"""A whole agent whose listeners would meet its app, each other or itself: that one is not served."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from agent.base.address import TcpAddress
from agent.connections.records import Direction
from agent.net.dial import DialReason
from agent.observe.readiness import missing
from agent.proxy.reconcile import PUBLIC
from tests.support.agent_in_process import Caller, Life, free_port, live, public_life, upstream
from tests.support.agent_parts import SERVICE, proxy_answer

HEALTH = "/v1/health/connect/db"


def listened_to(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) == 0


def instance(port: int, host: str = "127.0.0.1") -> dict[str, object]:
    """An instance of db, as Consul answers."""
    return {
        "Node": {"Node": "n1", "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {"ID": "db-1", "Address": host, "Port": port, "Proxy": {"DestinationServiceName": "db"}},
        "Checks": [{"Status": "passing"}],
    }


def problems(one: Life) -> list[str]:
    placed = one.bench.snapshot.registration.value
    return [] if placed is None else list(map(str, placed.problems))


@pytest.mark.parametrize("bind", ["127.0.0.1", "0.0.0.0", "localhost", "::ffff:127.0.0.1"])
async def test_while_the_app_is_not_up_its_callers_are_not_led_to_an_upstream(
    nursery: trio.Nursery, bind: str
) -> None:
    """Else who may call the app, but not the upstream, would be relayed there under our identity."""
    app, other = free_port(), free_port()
    one = public_life(nursery, service_addr=f"127.0.0.1:{app}")
    one.bench.consul.answer(HEALTH, [instance(free_port())], index=3)
    root = one.bench.well(upstream("db", app, LocalBindAddress=bind), upstream("db", other))

    async def act() -> None:
        assert not listened_to(app)
        assert listened_to(other)
        caller = Caller(root)
        await caller.connect(one.address())
        assert await caller.say(b"hello") == b""
        caller.close()
        await one.bench.data.ledger.empty(Direction.INBOUND)
        (ended,) = (end for end in one.bench.data.ledger.recent() if end.direction is Direction.INBOUND)
        assert ended.reason is DialReason.REFUSED
        assert missing(one.bench.agent) == []
        (problem,) = problems(one)
        assert problem.startswith("upstream db on ")
        assert "bind_of_the_app" in problem

    await live(one, act)
    assert one.bench.events().count("registration.problem") == 1


async def test_a_registration_that_changes_into_it_and_out_of_it(nursery: trio.Nursery) -> None:
    app, elsewhere = free_port(), free_port()
    one = public_life(nursery, service_addr=f"127.0.0.1:{app}")
    one.bench.consul.answer(HEALTH, [], index=3)
    one.bench.well(upstream("db", elsewhere))

    async def act() -> None:
        assert listened_to(elsewhere)
        changed = proxy_answer(upstream("db", app, LocalBindAddress="localhost"))
        one.bench.consul.answer(SERVICE, changed, content_hash="h2")
        await one.until(lambda: problems(one))
        await one.until(lambda: not listened_to(elsewhere))
        assert not listened_to(app)
        one.bench.consul.answer(SERVICE, proxy_answer(upstream("db", elsewhere)), content_hash="h3")
        await one.until(lambda: listened_to(elsewhere))
        assert problems(one) == []

    await live(one, act)


async def test_a_public_listener_where_the_app_is(nursery: trio.Nursery) -> None:
    """The upstreams are served, and readiness says what is not."""
    port, other = free_port(), free_port()
    one = public_life(nursery, listen=f"0.0.0.0:{port}")
    one.bench.consul.answer(HEALTH, [], index=3)
    one.bench.well(upstream("db", other))
    one.bench.consul.replace(SERVICE)
    answer = proxy_answer(upstream("db", other))
    answer["Proxy"] |= {"LocalServiceAddress": "127.0.0.1", "LocalServicePort": port}  # type: ignore[operator]
    one.bench.consul.answer(SERVICE, answer, content_hash="h1")

    async def act() -> None:
        assert one.bench.data.reconciler.listeners.get(PUBLIC) is None
        assert not listened_to(port)
        assert listened_to(other)
        (piece,) = missing(one.bench.agent)
        assert piece.startswith(f"listener: the public listener on 0.0.0.0:{port}: bind_of_the_app")

    await live(one, act)


async def test_an_app_at_the_admin_endpoint_gets_no_caller(nursery: trio.Nursery) -> None:
    admin = free_port()
    one = public_life(nursery, admin_bind=f"127.0.0.1:{admin}")
    one.bench.well()
    one.bench.consul.replace(SERVICE)
    answer = proxy_answer()
    answer["Proxy"] |= {"LocalServiceAddress": "localhost", "LocalServicePort": admin}  # type: ignore[operator]
    one.bench.consul.answer(SERVICE, answer, content_hash="h1")

    async def act() -> None:
        assert one.bench.data.reconciler.listeners.get(PUBLIC) is None
        assert any("the admin endpoint" in problem for problem in problems(one))

    await live(one, act)


async def test_an_admin_port_that_the_kernel_chose_is_known_to_the_dial_guard(nursery: trio.Nursery) -> None:
    one = public_life(nursery, admin_bind="127.0.0.1:0")
    one.bench.well()

    async def act() -> None:
        (place,) = one.bench.agent.control.admin_at
        assert isinstance(place, TcpAddress)
        own = one.bench.data.reconciler.listeners.own
        assert place.port
        assert own.of_upstreams(socket.AF_INET, (place.host, place.port)) == "the admin endpoint"

    await live(one, act)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::ffff:127.0.0.1"])
async def test_an_endpoint_that_is_our_own_listener_is_a_named_loop(nursery: trio.Nursery, host: str) -> None:
    """One connection of the app is one connection, not one more for each that is made."""
    port = free_port()
    one = public_life(nursery)
    one.bench.consul.answer(HEALTH, [instance(port, host)], index=3)
    one.bench.well(upstream("db", port))

    async def act() -> None:
        ledger = one.bench.data.ledger
        (targets,) = one.bench.data.reconciler.upstreams.current.values()
        await one.until(lambda: targets.sources()[0].endpoints.value)
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.setblocking(False)
            await trio.lowlevel.wait_readable(sock)
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        await ledger.empty()
        assert ledger.failed_attempts() == {"own_listener": 1}
        assert sum(ledger.counters().values()) == 1

    await live(one, act)


async def test_an_upstreams_socket_through_a_link_to_the_apps(nursery: trio.Nursery, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    one = public_life(nursery, service_addr=f"unix:{tmp_path}/run/app.sock")
    one.bench.consul.answer(HEALTH, [], index=3)
    one.bench.well({"DestinationName": "db", "LocalBindSocketPath": f"{tmp_path}/link/../run/app.sock"})

    async def act() -> None:
        assert not (tmp_path / "run" / "app.sock").exists()
        assert "bind_of_the_app" in problems(one)[0]

    await live(one, act)


async def test_an_app_that_becomes_our_own_listener_by_its_name_is_not_dialled(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name is another's as the registration is read, and ours when a caller comes."""
    port = free_port()
    places = ["192.0.2.1"]

    async def getaddrinfo(host: str, number: int | None, *_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        place = places[0] if host == "app.example" else host
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, number or 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    one = public_life(nursery, service_addr=f"app.example:{port}")
    one.bench.consul.answer(HEALTH, [], index=3)
    root = one.bench.well(upstream("db", port))

    async def act() -> None:
        assert problems(one) == []
        assert listened_to(port)
        places[:] = ["127.0.0.1"]
        caller = Caller(root)
        await caller.connect(one.address())
        assert await caller.say(b"hello") == b""
        caller.close()
        await one.bench.data.ledger.empty(Direction.INBOUND)
        assert DialReason.OWN_LISTENER in {end.reason for end in one.bench.data.ledger.recent()}

    await live(one, act)
