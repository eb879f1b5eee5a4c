"""The agent's own watches: fatal before it serves, weather afterwards."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.base.address import TcpAddress
from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.control import watches
from agent.policy.intentions import Intentions
from tests.support.agent_parts import (
    AUTHORIZE,
    MATCH,
    PROXY,
    SERVICE,
    AgentBench,
    agent_bench,
    proxy_answer,
    registration,
    settings,
)
from upstreams.spec import parse_upstream_flag


async def test_everything_is_watched_and_published(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.control.take(registration())
    bench.control.watch_credentials(registration())
    bench.control.watch_registration(PROXY)
    await trio.sleep(1)
    assert bench.snapshot.credentials.value is not None
    assert bench.snapshot.policy.value is not None
    assert bench.snapshot.own_datacenter() == "dc1"
    names = ["registration", "roots", "leaf", "intentions", "default policy"]
    assert [status.name for status in bench.control.statuses()] == names
    assert len(bench.consul.questions(MATCH)) == 2


async def test_intentions_are_watched_from_the_first_registration_on_that_accepts_callers(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.control.take(registration(public_bind=None))
    assert bench.control.status_of("intentions") is None
    bench.control.take(registration())
    bench.control.take(registration(protocol="http"))  # once is enough
    await trio.sleep(1)
    assert len(bench.consul.questions(MATCH)) == 2


async def test_a_registration_is_taken_when_it_differs(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery, settings(listen="10.0.0.1:1"))
    bench.control.take(registration())
    bench.control.take(registration())
    assert bench.snapshot.registration.version == 1
    assert bench.snapshot.own_datacenter() == "dc1"
    bench.control.take(registration(protocol="http"))
    assert bench.snapshot.registration.version == 2
    with pytest.raises(Exit) as caught:
        bench.control.take(registration(service="api"))
    assert caught.value.code is ExitCode.FAILED


async def test_listeners_that_meet_are_left_out_and_told(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    fine, meeting = parse_upstream_flag("db:9191"), parse_upstream_flag("db:localhost:8080")
    bench.control.take(registration(upstreams=(fine, meeting)))
    effective = bench.snapshot.registration.value
    assert effective is not None
    assert effective.upstreams == (fine,)
    assert [problem.where for problem in effective.problems] == ["upstream db on localhost:8080"]
    assert bench.events().count("registration.problem") == 1


async def test_a_registration_whose_names_are_looked_up_gives_way_to_a_newer_one(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        await trio.sleep(3 if host == "slow.example" else 1)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0))]

    monkeypatch.setattr(trio.socket, "getaddrinfo", getaddrinfo)
    bench = agent_bench(nursery)
    app = {host: TcpAddress(host, 9191) for host in ("slow.example", "quick.example")}
    upstreams = (parse_upstream_flag("db:9191"),)
    bench.control.take(registration(upstreams=upstreams, local_app=app["slow.example"]))
    assert bench.snapshot.registration.value is None
    bench.control.take(registration(upstreams=upstreams, local_app=app["quick.example"]))
    effective = await bench.snapshot.registration.first()
    assert (effective.local_app, effective.upstreams) == (app["quick.example"], ())
    await trio.sleep(10)
    assert bench.snapshot.registration.version == 1


async def watch_for_a_while(bench: AgentBench, seconds: float = 100) -> None:
    async with trio.open_nursery() as watching:
        bench.control.attach(watching)
        bench.control.take(registration())
        bench.control.watch_credentials(registration())
        await trio.sleep(seconds)
        watching.cancel_scope.cancel()


async def test_the_same_refusal_afterwards_is_asked_about_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    bench.control.phase = Phase.SERVING
    await watch_for_a_while(bench, 300)
    assert len(bench.consul.questions(MATCH)) > 3


async def test_a_registration_that_is_gone_is_told_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    bench.snapshot.registration.publish(registration())
    bench.control.watch_registration(PROXY)
    await trio.sleep(100)
    assert bench.events().count("registration.gone") == 1
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    await trio.sleep(20)
    assert bench.events()[-1] in {"registration.changed", "watch.recovered"}


async def test_a_new_token_is_tried_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.control.phase = Phase.SERVING
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    bench.control.take(registration())
    bench.control.watch_credentials(registration())
    bench.control.watch_registration(PROXY)
    await trio.sleep(100)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7)
    bench.control.token_changed()
    await trio.sleep(0.1)
    assert bench.snapshot.policy.value is not None
    assert "token.changed" in bench.events()


async def test_whom_we_may_not_call_is_watched_from_the_first_upstream_on_where_it_is_asked_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for wanted in ("false", "true"):
        bench = agent_bench(nursery, settings(judge_outbound=wanted))
        bench.well()
        nursery.start_soon(bench.control.watch_source_intentions)
        bench.control.take(registration(public_bind=None))
        await trio.sleep(1)
        assert bench.control.status_of("outgoing") is None, "we call nobody"
        bench.control.take(registration(public_bind=None, upstreams=(parse_upstream_flag("db:9191"),)))
        await trio.sleep(1)
        assert (bench.snapshot.source_intentions.value is not None) is (wanted == "true")
        assert ("outgoing" in {status.name for status in bench.control.statuses()}) is (wanted == "true")
        asked = [question.query["by"] for question in bench.consul.questions(MATCH)]
        assert set(asked) == ({"source"} if wanted == "true" else set())


async def test_that_consul_refuses_whom_we_may_call_ends_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery, settings(judge_outbound="true"))
    bench.well()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    nursery.start_soon(bench.control.watch_source_intentions)
    bench.control.take(registration(public_bind=None, upstreams=(parse_upstream_flag("db:9191"),)))
    await trio.sleep(100)
    assert bench.control.phase is Phase.STARTING
    assert bench.snapshot.source_intentions.value is None
    assert "watch.failed" in bench.events()


async def test_an_answer_that_says_what_is_known_is_not_read_and_only_confirms(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = agent_bench(nursery, settings(intentions_max_age="120", judge_outbound="true"))
    bench.well()
    bench.control.phase = Phase.SERVING
    reads: list[str] = []
    for name in ("read_match", "read_source_intentions"):
        monkeypatch.setattr(watches, name, counting(getattr(watches, name), reads))
    nursery.start_soon(bench.control.watch_source_intentions)
    bench.control.take(registration(upstreams=(parse_upstream_flag("db:9191"),)))
    await trio.sleep(1000)
    assert len(bench.consul.questions(MATCH)) > 20
    assert sorted(reads) == ["read_match", "read_source_intentions"]
    assert bench.snapshot.policy.version == 1
    assert bench.snapshot.source_intentions.version == 1
    assert bench.snapshot.confirmed.version > 10


async def test_the_answer_about_the_default_that_repeats_builds_no_policy(
    nursery: trio.Nursery, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7, policy="allow")
    bench.control.phase = Phase.SERVING
    bench.control.take(registration())
    await trio.sleep(1)
    built: list[str] = []
    monkeypatch.setattr(Intentions, "with_default", counting(Intentions.with_default, built))
    await trio.sleep(1000)
    assert len(bench.consul.questions(AUTHORIZE)) > 10
    assert (built, bench.snapshot.policy.version) == ([], 1)


def counting(function: Callable[..., Any], calls: list[str]) -> Callable[..., Any]:
    """The function, noting each call."""

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(function.__name__)
        return function(*args, **kwargs)

    return counted
