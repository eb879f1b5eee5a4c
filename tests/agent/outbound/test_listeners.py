"""Upstreams followed as the registration changes; connections of one that is gone have their time."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from agent.connections.connection import Connection
from agent.connections.records import CloseReason, Direction
from agent.net.admission import Admission, Slot
from agent.net.inherited import InheritedSockets
from agent.net.listeners import Listeners
from agent.outbound.listeners import UpstreamListeners
from agent.outbound.upstream_state import UpstreamState
from tests.support.agent_parts import AgentBench, agent_bench
from tests.support.descriptors import no_descriptor_leaked
from tests.support.upstream_doubles import Lookups, Told, surroundings
from upstreams.spec import SocketBind, Upstream, parse_upstream_flag


class Bench:
    upstreams: UpstreamListeners

    def __init__(self, feeds: Lookups, agent: AgentBench) -> None:
        self.feeds = feeds
        self.agent = agent
        self.served: Counter[str] = Counter()

    async def serve(self, sock: socket.socket, _place: Slot, targets: UpstreamState) -> None:
        """Answer with the destination, then hold the connection until it is closed from outside."""
        destination = str(targets.upstream.destination)
        self.served[destination] += 1
        with sock, self.agent.data.ledger.open(Direction.OUTBOUND, "unix", destination) as connection:
            connection.relaying()
            sock.send(destination.encode())
            await trio.Event().wait()

    @property
    def destinations(self) -> list[str]:
        return [str(targets.upstream.destination) for targets in self.upstreams.current.values()]


@asynccontextmanager
async def bench(
    nursery: trio.Nursery, inherited: InheritedSockets | None = None
) -> AsyncIterator[tuple[Bench, trio.Nursery]]:
    agent = agent_bench(nursery)
    feeds = Lookups()
    made = Bench(feeds, agent)
    async with trio.open_nursery() as connections, trio.open_nursery() as loops:
        listeners = Listeners(agent.agent.log).serve_in(loops, connections)
        made.upstreams = UpstreamListeners(
            listeners=listeners,
            sources=feeds,
            ledger=agent.data.ledger,
            serve=made.serve,
            context=surroundings(feeds, Told()),
            limit=None,
            unsettled_limit=None,
            current={},
            inherited=inherited or InheritedSockets(),
        )
        yield made, connections
        await listeners.close_all()
        connections.cancel_scope.cancel()


def at(path: Path, name: str, bind: str) -> Upstream:
    return parse_upstream_flag(f"{name}:unix:{path}/{bind}")


async def call(path: Path, bind: str) -> tuple[trio.SocketStream, bytes]:
    stream = await trio.open_unix_socket(str(path / bind))
    with trio.fail_after(5):
        return stream, bytes(await stream.receive_some())


def _closing(connection: Connection) -> str:
    return connection.closing.value if connection.closing else ""


async def test_from_the_first_registration_to_the_next(nursery: trio.Nursery, tmp_path: Path) -> None:
    async with bench(nursery) as (b, connections):
        await b.upstreams.bind([at(tmp_path, "a", "1"), at(tmp_path, "b", "2")])
        b.upstreams.listeners.open()
        kept, heard = await call(tmp_path, "1")
        assert heard == b"a"
        changed = [at(tmp_path, "c", "1"), at(tmp_path, "d", "3")]
        await b.upstreams.follow(changed, 0.01, connections)
        assert b.destinations == ["c", "d"]
        assert b.feeds.wanted == [["a", "b"], ["c", "d"]]
        assert not (tmp_path / "2").exists()
        for bind, name in (("1", b"c"), ("3", b"d")):
            stream, heard = await call(tmp_path, bind)
            assert heard == name
            await stream.aclose()
        assert b.agent.data.ledger.live(Direction.OUTBOUND)[0].upstream == "a", "it goes on as it was"
        await kept.aclose()


async def test_a_removed_upstream_closes_its_connections_and_no_others(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    async with bench(nursery) as (b, connections):
        await b.upstreams.bind([at(tmp_path, "a", "1"), at(tmp_path, "b", "2")])
        b.upstreams.listeners.open()
        streams = [(await call(tmp_path, bind))[0] for bind in ("1", "2")]
        await b.upstreams.follow([at(tmp_path, "b", "2")], 0.05, connections)
        ledger = b.agent.data.ledger
        (last,) = [connection for connection in ledger.live() if connection.upstream == "a"]
        assert not _closing(last)
        with trio.fail_after(5):
            assert await streams[0].receive_some() == b""
        assert _closing(last) == CloseReason.UPSTREAM_REMOVED.value
        assert [connection.upstream for connection in ledger.live()] == ["b"]
        for stream in streams:
            await stream.aclose()


async def test_a_destination_that_only_moved_keeps_its_connections(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    async with bench(nursery) as (b, connections):
        await b.upstreams.bind([at(tmp_path, "a", "1")])
        b.upstreams.listeners.open()
        stream, _ = await call(tmp_path, "1")
        await b.upstreams.follow([at(tmp_path, "a", "2")], 0, connections)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert len(b.agent.data.ledger.live()) == 1
        await stream.aclose()


async def test_a_connection_beyond_the_places_waits_as_long_as_the_upstream_says(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    async with bench(nursery) as (made, connections):
        upstream = replace(at(tmp_path, "db", "db.sock"), deadline=3.0)
        await made.upstreams.follow([upstream], 0, connections)
        opening = made.upstreams.listeners.get(upstream.bind)
        assert opening is not None
        assert opening.admission.patience == 3.0
        await made.upstreams.follow([replace(upstream, deadline=7.0)], 0, connections)
        assert opening.admission.patience == 7.0


@pytest.mark.parametrize(("most", "each"), [(512, 128), (3, 1), (None, None)])
async def test_two_processes_have_no_more_handshakes_than_a_callee_allows_to_one_source(
    nursery: trio.Nursery, tmp_path: Path, most: int | None, each: int | None
) -> None:
    async with bench(nursery) as (made, connections):
        made.upstreams.unsettled_limit = most
        upstream = at(tmp_path, "db", "db.sock")
        await made.upstreams.follow([upstream], 0, connections)
        opening = made.upstreams.listeners.get(upstream.bind)
        assert opening is not None
        assert opening.admission.unsettled_limit == each


async def test_an_address_that_is_taken(nursery: trio.Nursery, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("in the way")
    async with bench(nursery) as (b, connections):
        await b.upstreams.bind([at(tmp_path, "a", "1")])
        assert len(b.upstreams.listeners.problems) == 1
        b.upstreams.current.clear()
        b.upstreams.listeners.open()
        await b.upstreams.follow([at(tmp_path, "b", "1"), at(tmp_path, "c", "2")], 0, connections)
        assert b.destinations == ["b", "c"]
        assert len(b.upstreams.listeners.problems) >= 1
        stream, heard = await call(tmp_path, "2")
        assert heard == b"c"
        await stream.aclose()


async def test_a_connection_accepted_as_the_listener_closed_is_let_go(nursery: trio.Nursery) -> None:
    async with bench(nursery) as (b, _):
        ours, theirs = socket.socketpair()
        await b.upstreams._serve(SocketBind("/nowhere"), ours, Admission().enter())
        assert theirs.recv(1) == b""
        theirs.close()


async def test_a_thousand_changes_close_no_other_connection_and_leak_nothing(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Calls `follow` for each change: the watch of the registration would merge them."""
    async with bench(nursery) as (b, connections):
        steady = [at(tmp_path, "a", "1"), at(tmp_path, "b", "2")]
        await b.upstreams.bind(steady)
        b.upstreams.listeners.open()
        kept = [(await call(tmp_path, bind))[0] for bind in ("1", "2") * 5]
        async with no_descriptor_leaked():
            for change in range(1000):
                others = [at(tmp_path, f"c{change % 3}", f"{3 + (change + n) % 5}") for n in range(2)]
                await b.upstreams.follow([*steady, *others], 0, connections)
                if change % 50 == 0:
                    stream, heard = await call(tmp_path, f"{3 + change % 5}")
                    assert heard == f"c{change % 3}".encode()
                    await stream.aclose()
            await b.upstreams.follow(steady, 0, connections)
        left = [connection.upstream for connection in b.agent.data.ledger.live()]
        assert (left.count("a"), left.count("b")) == (5, 5)
        assert not any(map(_closing, b.agent.data.ledger.live()))
        assert b.destinations == ["a", "b"]
        assert {path.name for path in tmp_path.iterdir()} == {"1", "2"}
        for stream in kept:
            await stream.aclose()


async def test_a_socket_of_systemd_stays_with_its_name_when_another_upstream_has_the_port(
    nursery: trio.Nursery,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        db, cache = (parse_upstream_flag(f"{name}:{port}") for name in ("db", "cache"))
        async with bench(nursery, InheritedSockets([("upstream-db", held)])) as (made, connections):
            listeners = made.upstreams.listeners
            await made.upstreams.bind([db])
            listeners.open()
            assert listeners.problems == []
            await made.upstreams.follow([cache], 1.0, connections)
            assert "in use" in listeners.problems[0]
            await made.upstreams.follow([db], 1.0, connections)
            assert listeners.problems == []
