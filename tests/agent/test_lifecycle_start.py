"""Starts that cannot be: each ends with its exit, and what was taken is given back."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from tests.support.agent_in_process import exit_of, life, public_life, upstream


async def test_it_gives_up_when_it_cannot_serve_in_time(nursery: trio.Nursery) -> None:
    one = public_life(nursery, start_timeout="0.1")
    one.bench.consul.down = True
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).code is ExitCode.UNAVAILABLE
    assert "Connection refused" in exit_of(caught).message


async def test_an_address_in_use_at_start_ends_it_and_gives_back_the_others(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        one = public_life(nursery, admin_bind=[f"unix:{tmp_path}/admin", f"127.0.0.1:{port}"])
        with pytest.raises(BaseExceptionGroup) as caught:
            await one.run()
        assert exit_of(caught).code is ExitCode.CONFIGURATION
        assert not (tmp_path / "admin").exists()
        one = life(nursery)
        socket_path = str(tmp_path / "db")
        one.bench.well({"DestinationName": "db", "LocalBindSocketPath": socket_path}, upstream("x", port))
        with pytest.raises(BaseExceptionGroup) as caught:
            await one.run()
        assert "for upstream x: it is in use" in exit_of(caught).message
        assert not (tmp_path / "db").exists()


async def test_a_proxy_without_an_app_says_what_to_do(nursery: trio.Nursery) -> None:
    one = life(nursery)
    one.bench.well(port=1, Proxy={"DestinationServiceName": "web", "DestinationServiceID": "web"})
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).message.endswith("or give -service-addr")
