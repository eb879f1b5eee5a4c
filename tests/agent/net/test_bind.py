"""Sockets to listen on, and the clear word when they cannot be had."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from agent.base.address import Address, TcpAddress, UnixAddress
from agent.base.exits import ExitCode
from agent.net.bind import BindFailed, address_of, adopt, bind


async def test_a_tcp_address() -> None:
    bound = await bind(TcpAddress("127.0.0.1", 0), "x")
    port = bound.sock.getsockname()[1]
    assert bound.address == f"127.0.0.1:{port}"
    assert not bound.sock.getblocking()
    with socket.socket() as caller:
        assert caller.connect_ex(("127.0.0.1", port)) != 0, "bound is not yet listening"
    bound.listen()
    socket.create_connection(("127.0.0.1", port)).close()
    bound.close()


async def test_what_is_accepted_is_tuned_already() -> None:
    bound = await bind(TcpAddress("127.0.0.1", 0), "x")
    bound.listen()
    with socket.create_connection(bound.sock.getsockname()):
        accepted, _ = bound.sock.accept()
    with accepted:
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    bound.close()


async def test_an_ipv6_address_is_shown_in_brackets() -> None:
    bound = await bind(TcpAddress("::1", 0), "x")
    assert bound.address.startswith("[::1]:")
    bound.close()


async def test_an_address_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(
            BindFailed, match=f"cannot listen on 127.0.0.1:{port} for x: it is in use"
        ) as caught:
            await bind(TcpAddress("127.0.0.1", port), "x")
    assert caught.value.code is ExitCode.CONFIGURATION


async def test_of_two_bound_to_one_port_the_second_may_not_listen() -> None:
    first = await bind(TcpAddress("127.0.0.1", 0), "x")
    second = await bind(TcpAddress("127.0.0.1", first.sock.getsockname()[1]), "y")
    first.listen()
    with pytest.raises(BindFailed, match="for y: it is in use"):
        second.listen()
    first.close()
    second.close()


@pytest.mark.parametrize(
    ("host", "text"),
    [("203.0.113.7", "not an address of this machine"), ("no-such-host.invalid", "no-such-host.invalid")],
)
async def test_an_address_that_is_not_ours(host: str, text: str) -> None:
    with pytest.raises(BindFailed, match=text):
        await bind(TcpAddress(host, 0), "x")


@pytest.mark.parametrize(
    "address",
    [
        TcpAddress("x\0y", 1),
        TcpAddress("ü" * 70, 1),
        TcpAddress("127.0.0.1", 70_000),
        UnixAddress("/run/\0"),
        UnixAddress("/run/" + "x" * 200),
    ],
    ids=str,
)
async def test_what_can_be_no_address(address: Address) -> None:
    with pytest.raises(BindFailed, match=r"cannot listen on .* for x: ") as failed:
        await bind(address, "x")
    assert failed.value.code is ExitCode.CONFIGURATION


def test_no_permission_has_its_own_exit_code() -> None:
    failed = BindFailed("x", "127.0.0.1:80", PermissionError(13, "Permission denied"))
    assert failed.code is ExitCode.PERMISSION
    assert str(failed) == "cannot listen on 127.0.0.1:80 for x: no permission"


async def test_a_unix_socket_with_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "db.sock"
    bound = await bind(UnixAddress(str(path)), "x", 0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    bound.listen()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    bound.close()
    assert not path.exists()


async def test_a_unix_socket_without_a_mode_is_made_by_the_process_default(tmp_path: Path) -> None:
    bound = await bind(UnixAddress(str(tmp_path / "s")), "x")
    assert bound.address == f"unix:{tmp_path}/s"
    bound.close()


async def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    bound = await bind(UnixAddress(str(path)), "x")
    bound.listen()
    bound.close()


async def test_a_socket_somebody_answers_at_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(1)
        for _ in range(4):  # also when its backlog is full
            with pytest.raises(BindFailed, match="it is in use"):
                await bind(UnixAddress(str(path)), "x")
    assert path.exists()


async def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    with pytest.raises(BindFailed, match="something that is not a socket is there"):
        await bind(UnixAddress(str(path)), "x")
    assert path.read_text() == "precious"


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BindFailed, match="its directory does not exist"):
        await bind(UnixAddress(str(tmp_path / "no" / "s")), "x", 0o600)


async def test_a_socket_file_that_is_no_longer_ours_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bound = await bind(UnixAddress(str(path)), "x")
    path.unlink()
    bound.close()  # nothing to remove
    again = await bind(UnixAddress(str(path)), "x")
    again.inode += 1
    again.close()
    assert path.exists()


def test_sockets_that_were_handed_in(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        for sock, address in ((tcp, f"127.0.0.1:{tcp.getsockname()[1]}"), (unix, f"unix:{tmp_path}/s")):
            bound = adopt(sock, "x")
            assert bound.address == address
            bound.close()
            assert str(address_of(sock)) == address, "what was handed in stays open"
