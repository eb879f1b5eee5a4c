"""A generation that no connection uses is released: the newest stays, and each that a connection uses."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import trio
from OpenSSL import SSL
from trio.testing import MockClock

from certs.contexts import Contexts
from certs.credentials import Credentials
from tests.certs.authority import Issuer
from tests.rotation.handshakes import shake
from tests.support.credentials_keeper import START, Bench, begin
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import Mesh, Side, echo, mesh, until

ROTATIONS = 20


def credentials_alive() -> int:
    """All of this process."""
    gc.collect()
    return sum(isinstance(thing, Credentials) for thing in gc.get_objects())


class Generations:
    """Which of the contexts it was shown are still there, by the order they were shown in."""

    def __init__(self) -> None:
        self._shown: list[weakref.ref[SSL.Context]] = []

    def show(self, contexts: Contexts) -> None:
        self._shown += (weakref.ref(contexts.server), weakref.ref(contexts.client))

    @property
    def alive(self) -> list[int]:
        gc.collect()
        return [number // 2 for number, context in enumerate(self._shown) if context() is not None]


async def test_twenty_rotations_leave_one(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    before, shown = credentials_alive(), Generations()
    shown.show(bench.current)
    roots = [bench.root]
    for number in range(ROTATIONS):
        new = Issuer.root(now=START, name=f"root {number}")
        bench.roots(new, *roots[-3:])
        bench.leaf(new.with_chain(roots[-1].cross_sign(new)).leaf(serial=0x20 + number))
        roots.append(new)
        await trio.sleep(30)
        peer = contexts_of(new.leaf(service="db", datacenter="dc2"), new)
        shake(peer, bench.current)
        shake(bench.current, peer)
        shown.show(bench.current)
    assert bench.contexts.version > ROTATIONS
    assert shown.alive == [ROTATIONS, ROTATIONS], "only the newest"
    assert credentials_alive() == before + 1, "and its peer's, here"


async def test_a_corrupt_leaf_holds_nothing(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench = Bench(nursery)
    bench.roots(bench.root)
    bench.leaf(bench.root.leaf())
    await begin(bench, nursery)
    before, shown = credentials_alive(), Generations()
    shown.show(bench.current)
    for number in range(ROTATIONS):
        bench.leaf(bench.root.leaf(service="db", serial=0x40 + number))
        await trio.sleep(30)
    assert bench.rotation.status.rejections["wrong_service"] >= ROTATIONS
    assert shown.alive == [0, 0]
    assert credentials_alive() == before


async def test_a_connection_keeps_its_own_for_as_long_as_it_lives() -> None:
    async with mesh(echo) as m:
        web, db = Generations(), Generations()
        clients = []
        for number in range(5):
            _rotate(m, number)
            for side, shown in ((m.web, web), (m.db, db)):
                shown.show(_in_force(side))
            client = await m.connect()
            await client.send_all(b"here")
            assert await client.receive_some() == b"here"
            if number in (1, 3):
                clients.append(client)
            else:
                await client.aclose()
        await until(lambda: len(m.web.ledger.live()) == len(m.db.ledger.live()) == 2)
        assert (set(web.alive), set(db.alive)) == ({1, 3, 4}, {1, 3, 4})
        for client in clients:
            await client.aclose()
        await m.quiet()
        await until(_all_gone(web, db))


def _all_gone(*sides: Generations) -> Callable[[], bool]:
    return lambda: all(set(side.alive) == {4} for side in sides)


def _rotate(m: Mesh, number: int) -> None:
    """Both sides have another leaf, and a context for it."""
    for side, service, datacenter in ((m.web, "web", "dc1"), (m.db, "db", "dc2")):
        leaf = m.root.leaf(service=service, datacenter=datacenter, serial=0x50 + number)
        side.contexts.publish(contexts_of(leaf, m.root, generation=number + 2))


def _in_force(side: Side) -> Contexts:
    assert side.contexts.value is not None
    return side.contexts.value
