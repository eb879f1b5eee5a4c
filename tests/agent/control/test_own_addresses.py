"""What this machine says of addresses: names, paths, and which are its own."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import TcpAddress, UnixAddress
from agent.control.own_addresses import known_now, look_up


def test_paths_and_addresses_at_once(tmp_path: Path) -> None:
    (tmp_path / "real").touch()
    (tmp_path / "link").symlink_to("real")
    known = known_now([UnixAddress(f"{tmp_path}/link"), TcpAddress("127.1", 80), TcpAddress("192.0.2.1", 80)])
    assert known.paths == {f"{tmp_path}/link": str((tmp_path / "real").resolve())}
    assert known.ours == {"127.0.0.1"}


async def test_names_that_share_a_port_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        asked.append(host)
        if host == "gone.example":
            raise socket.gaierror(socket.EAI_NONAME, "no")
        return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::ffff:127.0.0.9", 0, 0, 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    addresses = [TcpAddress(host, 80) for host in ("127.0.0.1", "app.example", "gone.example")]
    known = await look_up([*addresses, TcpAddress("other.example", 81)])
    assert sorted(asked) == ["app.example", "gone.example"]
    assert known.hosts == {"app.example": {"127.0.0.9"}}
    assert known.ours == {"127.0.0.1", "127.0.0.9"}


async def test_a_resolver_that_hangs_is_not_waited_for(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[object]:
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    known = await look_up([TcpAddress("app.example", 80), TcpAddress("127.0.0.1", 80)])
    assert known.hosts == {}
