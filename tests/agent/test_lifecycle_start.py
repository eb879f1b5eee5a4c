"""Starts that cannot be: each ends with its exit, and what was taken is given back."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from agent.base.prometheus import text
from agent.observe.metrics import families
from agent.observe.readiness import missing
from agent.observe.status import document
from tests.support.agent_in_process import exit_of, life, live, public_life, upstream
from tests.support.agent_parts import MATCH
from tests.support.fake_consul import FakeConsul


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


async def test_a_token_file_that_holds_none_is_waited_for(nursery: trio.Nursery, tmp_path: Path) -> None:
    """An exit would be for good: a service manager does not start again what its operator must mend."""
    file = tmp_path / "token"
    file.touch()
    one = public_life(nursery, token_file=str(file))
    one.bench.well()
    bench, complaint = one.bench, f"token file {file}: it is empty"

    async def act() -> None:
        assert {asked.headers["x-consul-token"] for asked in one.bench.consul.asked} == {"s3cret"}
        assert one.bench.events().count("token.unusable") == 1
        assert "token.usable" in one.bench.events()

    async def write_at_last() -> None:
        await one.until(lambda: bench.control.start_status.failing)
        assert missing(bench.agent) == [f"registration: /v1/agent/services: {complaint}"]
        assert complaint in str((await document(bench.agent))["complaints"])
        assert not one.bench.consul.asked
        file.write_text("s3cret\n")

    nursery.start_soon(write_at_last)
    await live(one, act)


def _asked_from(consul: FakeConsul, index: str) -> bool:
    return consul.asked[-1].query.get("index") == index


async def test_a_token_file_that_is_overwritten_with_none_keeps_the_agent_as_it_is(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret")
    one = public_life(nursery, token_file=str(file))
    one.bench.well()

    async def act() -> None:
        consul = one.bench.consul
        for index, data in enumerate((b"", b"one\ntwo", b"\xff\0"), 100):
            file.write_bytes(data)
            consul.answer(MATCH, {"web": None}, index=index)
            await one.until(partial(_asked_from, consul, str(index)))
            assert consul.asked[-1].headers["x-consul-token"] == "s3cret"
        assert not missing(one.bench.agent)
        assert one.bench.events().count("token.unusable") == 3
        assert "sidecar_token_unusable 1" in text(await families(one.bench.agent))

    await live(one, act)


async def test_a_proxy_without_an_app_says_what_to_do(nursery: trio.Nursery) -> None:
    one = life(nursery)
    one.bench.well(port=1, Proxy={"DestinationServiceName": "web", "DestinationServiceID": "web"})
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).message.endswith("or give -service-addr")
