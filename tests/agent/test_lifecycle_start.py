"""Starts that wait, and those that cannot be: what is missing is said, what was taken is given back."""

from __future__ import annotations

import errno
import socket
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import Address
from agent.base.exits import ExitCode
from agent.base.prometheus import text
from agent.consul.watch import NEARBY_CEILING
from agent.net.bind import BindFailed, Bound, bind
from agent.observe.metrics import families
from agent.observe.readiness import headline, missing
from agent.observe.status import document
from tests.support.agent_in_process import answers, exit_of, free_port, life, live, public_life, upstream
from tests.support.agent_parts import LEAF, MATCH, ROOTS, SERVICE, SERVICES
from tests.support.fake_consul import FakeConsul


async def test_it_gives_up_when_it_cannot_serve_in_time(nursery: trio.Nursery) -> None:
    one = public_life(nursery, start_timeout="0.1")
    one.bench.consul.down = True
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).code is ExitCode.UNAVAILABLE
    assert "Connection refused" in exit_of(caught).message


@pytest.mark.parametrize("waited", [0.0, 45.0, 60.2])
async def test_what_files_have_taken_is_taken_from_the_one_time_that_a_start_has(
    nursery: trio.Nursery, autojump_clock: MockClock, waited: float
) -> None:
    one = public_life(nursery, start_timeout="60")
    one.bench.consul.down = True
    one.cycle.waited = waited
    began = trio.current_time()
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert trio.current_time() - began == pytest.approx(max(0.0, 60 - waited), abs=0.01)
    files = f", of which files took {waited:.1f} s" if waited else ""
    assert exit_of(caught).message.startswith(f"not able to serve within 60 s{files}: registration: ")


REFUSED = {"text": "ACL not found", "status": 403}


@pytest.mark.parametrize("path", [SERVICES, SERVICE, LEAF, ROOTS, MATCH])
async def test_a_starting_consul_that_refuses_a_valid_token_is_waited_for(
    nursery: trio.Nursery, autojump_clock: MockClock, path: str
) -> None:
    one = public_life(nursery, token="s3cret")
    one.bench.well()
    consul = one.bench.consul
    granted = consul.forget(path)
    consul.answer(path, **REFUSED)  # type: ignore[arg-type]  # a table of tests' own making
    async with trio.open_nursery() as living:
        living.start_soon(one.run)
        await trio.sleep(30)
        (piece,) = [piece for piece in missing(one.bench.agent) if "403" in piece]
        assert "ACL not found; Consul does not know this token" in piece
        assert headline(one.bench.agent).startswith("starting · ")
        consul.replace(path)
        consul.say(path, granted)
        with trio.fail_after(NEARBY_CEILING):
            while missing(one.bench.agent):  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
        one.cycle.drain("the test")
    assert one.code is ExitCode.CLEAN


async def test_a_refusal_that_lasts_ends_it_as_unavailable_with_the_reason(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    one = life(nursery, start_timeout="60")
    one.bench.consul.answer(SERVICES, **REFUSED)  # type: ignore[arg-type]  # as above
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).code is ExitCode.UNAVAILABLE
    assert one.bench.agent.uptime == pytest.approx(60)
    assert "403: ACL not found; no token is given" in exit_of(caught).message


async def test_addresses_in_use_at_start_are_tried_again_and_the_rest_served(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("net.listeners", "observe.admin_listeners"):
        monkeypatch.setattr(f"agent.{module}.RETRY_SECONDS", 0.05)
    kept, taken, admin = free_port(), free_port(), f"unix:{tmp_path}/admin"
    (tmp_path / "admin").write_text("in the way")
    one = public_life(nursery, admin_bind=[admin, "127.0.0.1:0"])
    for name in ("a", "b"):
        one.bench.consul.answer(f"/v1/health/connect/{name}", [], index=3)
    one.bench.well(upstream("a", taken), upstream("b", kept))
    other = socket.create_server(("127.0.0.1", taken))

    async def act() -> None:
        (piece,) = missing(one.bench.agent)
        assert "for upstream a: it is in use" in piece
        assert str(tmp_path) in headline(one.bench.agent)
        assert answers(kept)
        other.close()
        (tmp_path / "admin").unlink()
        await one.until(lambda: headline(one.bench.agent).startswith("serving"))
        assert answers(taken)
        await one.until(lambda: not one.bench.agent.admin_problems)
        await (await trio.open_unix_socket(str(tmp_path / "admin"))).aclose()

    await live(one, act)


async def test_an_address_that_takes_a_permission_ends_a_start_and_gives_back_the_others(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = public_life(nursery, admin_bind=[f"unix:{tmp_path}/admin", "127.0.0.1:7"])

    async def denied(address: Address, purpose: str, mode: int) -> Bound:
        if str(address) == "127.0.0.1:7":
            raise BindFailed(purpose, address, PermissionError(errno.EACCES, "Permission denied"))
        return await bind(address, purpose, mode)

    monkeypatch.setattr("agent.observe.admin_listeners.bind", denied)
    with pytest.raises(BaseExceptionGroup) as caught:
        await one.run()
    assert exit_of(caught).code is ExitCode.PERMISSION
    assert not (tmp_path / "admin").exists()


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
    return consul.questions(MATCH)[-1].query.get("index") == index


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
            assert consul.questions(MATCH)[-1].headers["x-consul-token"] == "s3cret"
        assert not missing(one.bench.agent)
        assert one.bench.events().count("token.unusable") == 3
        assert "sidecar_token_unusable 1" in text(await families(one.bench.agent))

    await live(one, act)


async def test_a_proxy_without_an_app_serves_its_upstreams_and_no_public_listener(
    nursery: trio.Nursery,
) -> None:
    """A worker without a port: Consul gives its sidecar a public port, behind which there is nothing."""
    one, port = life(nursery), free_port()
    one.bench.consul.answer("/v1/health/connect/db", [], index=3)
    worker = {"DestinationServiceName": "web", "DestinationServiceID": "web"}
    one.bench.well(port=free_port(), Proxy={**worker, "Upstreams": [upstream("db", port)]})

    async def act() -> None:
        assert missing(one.bench.agent) == []
        assert [opening.purpose for opening in one.bench.data.reconciler.listeners.all().values()] == [
            "upstream db"
        ]
        socket.create_connection(("127.0.0.1", port)).close()
        told = await document(one.bench.agent)
        assert "no_local_app" in str(told["placement"])
        assert any("no public listener" in str(complaint) for complaint in told["complaints"])  # type: ignore[attr-defined]

    await live(one, act)
    assert not one.bench.consul.questions(MATCH)
