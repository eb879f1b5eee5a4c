"""Sockets of systemd: the name decides which listener each is, and what serves no caller is reported."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent.base.address import TcpAddress, UnixAddress
from agent.net.inherited import InheritedSockets, SocketReason
from upstreams.spec import Upstream, parse_upstream_flag

PUBLIC = TcpAddress("0.0.0.0", 0)  # any port


@contextmanager
def handed(*names: str) -> Iterator[tuple[InheritedSockets, list[socket.socket]]]:
    """Listening sockets with these names."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        yield InheritedSockets(zip(names, sockets, strict=True)), sockets


def port(sock: socket.socket) -> int:
    found: int = sock.getsockname()[1]
    return found


def upstream(spec: str) -> Upstream:
    return parse_upstream_flag(spec)


@pytest.mark.parametrize("name", ["public", "sidecar@web.socket"])
def test_the_public_listener_s_by_its_name_or_by_that_of_the_template(name: str) -> None:
    with handed("extra", name) as (inherited, (_, ours)):
        assert inherited.public == (ours,)


@pytest.mark.parametrize("name", ["upstream-web", "web.socket", "unknown", "", "publicity"])
def test_a_lone_socket_of_another_name_is_not_the_public_one_and_is_reported(name: str) -> None:
    with handed(name) as (inherited, (sock,)):
        assert inherited.public == ()
        (complaint,) = inherited.complaints(PUBLIC, ())
        assert (complaint.reason, complaint.name) == (SocketReason.UNUSED, name)
        assert complaint.address == f"127.0.0.1:{port(sock)}"


def test_an_upstream_s_by_its_name_and_datacenter() -> None:
    with handed("upstream-db", "upstream-db@dc2", "upstream-nightly") as (inherited, (here, there, query)):
        wanted = [
            upstream(f"db@dc2:{port(there)}"),
            upstream(f"db:{port(here)}"),
            upstream(f"prepared_query:nightly:{port(query)}"),
            upstream("cache:9999"),
        ]
        assert inherited.of_upstreams(wanted) == {
            wanted[0].bind: (there,),
            wanted[1].bind: (here,),
            wanted[2].bind: (query,),
        }
        assert inherited.complaints(None, wanted) == []


def test_of_two_upstreams_with_one_name_the_one_at_its_port_has_it() -> None:
    with handed("upstream-db") as (inherited, (sock,)):
        other, at_port = upstream("db:9999"), upstream(f"db:{port(sock)}")
        assert inherited.of_upstreams([other, at_port]) == {at_port.bind: (sock,)}
        assert inherited.of_upstreams([other]) == {other.bind: (sock,)}


def test_one_at_another_port_than_callers_look_at_is_reported() -> None:
    with handed("public", "upstream-db") as (inherited, (public, db)):
        wanted = [upstream("db:9999")]
        found = inherited.complaints(TcpAddress("0.0.0.0", 7), wanted)
        assert [one.reason for one in found] == [SocketReason.ELSEWHERE] * 2
        there = f"socket_elsewhere: 'public' of systemd at 127.0.0.1:{port(public)}"
        assert str(found[0]).startswith(f"{there}: callers look for it at 0.0.0.0:7; ")
        assert "127.0.0.1:9999" in found[1].detail
        assert inherited.complaints(TcpAddress("0.0.0.0", port(public)), [upstream(f"db:{port(db)}")]) == []


def test_one_of_two_public_sockets_at_the_port_is_enough() -> None:
    with handed("public", "public") as (inherited, (first, second)):
        assert inherited.public == (first, second)
        assert inherited.complaints(TcpAddress("0.0.0.0", port(second)), ()) == []


def test_a_public_one_without_a_public_listener_is_unused() -> None:
    with handed("public") as (inherited, _):
        assert [one.reason for one in inherited.complaints(None, ())] == [SocketReason.UNUSED]


def test_what_no_caller_can_be_accepted_on_is_unused_by_whatever_name() -> None:
    with socket.socket() as deaf, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        inherited = InheritedSockets([("public", deaf), ("public", datagrams)])
        assert inherited.public == ()
        details = {one.detail for one in inherited.complaints(PUBLIC, ())}
        assert details == {"it is no listening stream socket"}


def test_a_unix_socket_is_known_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{tmp_path}/s")
        sock.listen()
        inherited = InheritedSockets([("public", sock)])
        assert inherited.complaints(UnixAddress(f"{tmp_path}/link/s"), ()) == []
        assert len(inherited.complaints(UnixAddress(f"{tmp_path}/t"), ())) == 1
        assert len(inherited.complaints(PUBLIC, ())) == 1
