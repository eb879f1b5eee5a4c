"""A dial that would end at a listener of our own, by whatever spelling, is known beforehand."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from agent.base.address import TcpAddress, UnixAddress
from agent.net.bind import Bound, adopt, bind
from agent.net.own_listeners import OwnListeners
from tests.support.socket_pairs import listener

V4, V6 = socket.AF_INET, socket.AF_INET6


def listening(host: str, *, meshed: bool = False) -> tuple[OwnListeners, int, Bound]:
    with listener(host) as handed_over:
        bound = adopt(handed_over, "upstream db")
    own = OwnListeners()
    own.add([bound], meshed=meshed)
    return own, bound.sock.getsockname()[1], bound


@pytest.mark.parametrize(
    ("listens", "family", "dialled", "met"),
    [
        ("127.0.0.1", V4, "127.0.0.1", True),
        ("127.0.0.1", V4, "0.0.0.0", True),  # where the kernel leads such a connection
        ("127.0.0.1", V6, "::ffff:127.0.0.1", True),
        ("127.0.0.1", V4, "127.0.0.2", False),
        ("127.0.0.1", V4, "192.0.2.1", False),
        ("0.0.0.0", V4, "127.0.0.2", True),
        ("0.0.0.0", V4, "192.0.2.1", False),  # another machine's
        ("0.0.0.0", V6, "::1", False),
    ],
)
def test_by_whatever_spelling(listens: str, family: int, dialled: str, met: bool) -> None:
    own, port, bound = listening(listens)
    assert own.of_app(family, (dialled, port)) == ("upstream db" if met else "")
    assert own.of_upstreams(family, (dialled, port)) == ("upstream db" if met else "")
    assert own.of_app(family, (dialled, port + 1 if port < 65535 else 1)) == ""
    bound.close()


def test_one_that_was_closed_is_free_again() -> None:
    own, port, bound = listening("127.0.0.1")
    bound.close()
    assert own.of_app(V4, ("127.0.0.1", port)) == ""
    own.reserve(TcpAddress("127.0.0.1", port), "the admin endpoint")
    assert own.of_app(V4, ("127.0.0.1", port)) == "the admin endpoint"


def test_an_upstream_may_lead_to_our_own_public_listener_but_the_app_is_not_there() -> None:
    """A service may call itself through the mesh: its own instance is one of several."""
    own, port, bound = listening("127.0.0.1", meshed=True)
    assert own.of_upstreams(V4, ("127.0.0.1", port)) == ""
    assert own.of_app(V4, ("127.0.0.1", port)) == "upstream db"
    bound.close()


async def test_a_socket_file_through_a_link(tmp_path: Path) -> None:
    bound = await bind(UnixAddress(str(tmp_path / "db.sock")), "upstream db")
    own = OwnListeners()
    own.add([bound])
    (tmp_path / "link").symlink_to(tmp_path / "db.sock")
    (tmp_path / "there").mkdir()
    for path in ("db.sock", "link", "there/../db.sock"):
        assert own.of_app(socket.AF_UNIX, f"{tmp_path}/{path}") == "upstream db"
    assert own.of_app(socket.AF_UNIX, f"{tmp_path}/another") == ""
    assert own.of_app(socket.AF_UNIX, "\0abstract") == ""
    own.reserve(UnixAddress(str(tmp_path / "admin")), "the admin endpoint")
    assert own.of_app(socket.AF_UNIX, f"{tmp_path}/admin") == ""
    bound.close()


async def test_a_socket_file_by_another_link_is_ours_though_its_own_path_is_gone(tmp_path: Path) -> None:
    bound = await bind(UnixAddress(str(tmp_path / "db.sock")), "upstream db")
    own = OwnListeners()
    own.add([bound])
    (tmp_path / "hard").hardlink_to(tmp_path / "db.sock")
    (tmp_path / "db.sock").unlink()
    assert own.of_app(socket.AF_UNIX, f"{tmp_path}/hard") == "upstream db"
    bound.close()


async def test_a_reserved_socket_file_is_ours_once_it_is_there(tmp_path: Path) -> None:
    own = OwnListeners()
    own.reserve(UnixAddress(str(tmp_path / "admin")), "the admin endpoint")
    bound = await bind(UnixAddress(str(tmp_path / "admin")), "x")
    assert own.of_app(socket.AF_UNIX, f"{tmp_path}/admin") == "the admin endpoint"
    bound.close()
