"""What the service manager keeps is taken by the next process, at the same address, and given up by name."""

from __future__ import annotations

import socket
from pathlib import Path

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.net.bind import Bound, bind
from agent.net.kept import MOST_NAME, KeptSockets, name_of, slot_of
from tests.support.descriptor_store import Store

ANY = TcpAddress("127.0.0.1", 0)


async def kept(sockets: KeptSockets, address: Address = ANY) -> Bound:
    """Return a listening socket that is kept from now on."""
    bound = await bind(address, "x")
    bound.listen()
    sockets.keep(bound)
    return bound


async def left_behind(store: Store, address: Address = ANY) -> Address:
    """Return where a process listened that has ended."""
    with store.process() as sockets:
        bound = await kept(sockets, address)
        bound.close()
    return TcpAddress("127.0.0.1", int(bound.address.rpartition(":")[2])) if address is ANY else address


def connects(address: Address) -> bool:
    """Return whether a caller finds a listener there."""
    assert isinstance(address, TcpAddress)
    with socket.socket() as caller:
        return caller.connect_ex((address.host, address.port)) == 0


async def test_a_kept_socket_listens_between_two_processes_and_is_taken_by_address(store: Store) -> None:
    there = await left_behind(store)
    assert connects(there)
    with store.process() as sockets:
        (again,) = await sockets.take(there, "y")
        assert (again.address, [again.kept], again.purpose) == (str(there), list(store.kept), "y")
        assert await sockets.take(TcpAddress("127.0.0.2", 1), "y") == []
        sockets.keep(again)  # it is
        again.close()
    assert connects(there)


async def test_a_name_is_looked_up_and_one_that_cannot_be_leaves_the_mistake_to_the_bind(
    store: Store,
) -> None:
    there = await left_behind(store)
    assert isinstance(there, TcpAddress)
    with store.process() as sockets:
        (again,) = await sockets.take(TcpAddress("localhost", there.port), "y")
        assert again.address == str(there)
        for host in ("no.such.host.invalid", "a" * 70, "\0"):
            assert await sockets.take(TcpAddress(host, there.port), "y") == []
        again.close()


async def test_what_is_not_wanted_any_more_is_closed_everywhere(store: Store) -> None:
    there = await left_behind(store)
    with store.process() as sockets:
        (again,) = await sockets.take(there, "y")
        sockets.forget([again])
        again.close()
        assert not connects(there)
        assert (store.kept, sockets.all()) == ({}, {})


async def test_what_no_listener_has_taken_is_given_up(store: Store) -> None:
    one, other = await left_behind(store), await left_behind(store)
    with store.process() as sockets:
        (taken,) = await sockets.take(one, "y")
        sockets.forget_rest()
        assert list(store.kept) == list(sockets.all()) == [taken.kept]
        taken.close()
    assert (connects(one), connects(other)) == (True, False)
    with store.process() as sockets:
        sockets.forget_all()
    assert not connects(one)


async def test_the_file_of_a_kept_unix_socket_stays_and_goes_with_it(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "s"
    there = await left_behind(store, UnixAddress(str(path)))
    with store.process() as sockets:
        (again,) = await sockets.take(there, "y")
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path))
        sockets.forget([again])
        again.close()
    assert not path.exists()


async def test_a_unix_socket_whose_file_was_replaced_is_not_taken(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "s"
    there = await left_behind(store, UnixAddress(str(path)))
    with store.process() as sockets, socket.socket(socket.AF_UNIX) as other:
        path.rename(tmp_path / "away")  # so that the inode is not used again
        assert await sockets.take(there, "y") == []
        other.bind(str(path))
        assert await sockets.take(there, "y") == []
        sockets.forget_rest()
    assert store.kept == {}


async def test_nothing_is_kept_without_a_store_nor_what_a_socket_unit_has(store: Store) -> None:
    bound = await kept(KeptSockets())
    assert bound.kept == ""
    bound.handed = True
    KeptSockets(store=store).keep(bound)
    assert store.kept == {}
    bound.close()


def test_a_name_has_worker_and_address_and_is_never_too_long_for_the_manager() -> None:
    with socket.socket() as sock:
        bound = Bound(purpose="x", address="[::1]:9191", sock=sock)
        assert name_of(bound, 3) == "kept-3-%5B%3A%3A1%5D%3A9191-0"
        bound.address = "unix:/" + "ü" * 60
        assert len(name_of(bound)) <= MOST_NAME
    assert [slot_of(name) for name in ("kept-3-x-0", "kept-", "kept-x")] == [3, 0, 0]
