"""Answers nobody can read and exceptions nobody foresaw, in a whole agent: what ends, and what goes on.

The page docs/failures.md says the same in a table.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from agent.base.containment import Where
from agent.base.prometheus import text
from agent.connections import reauthorize
from agent.connections.records import Direction
from agent.observe.metrics import families
from agent.observe.readiness import missing
from agent.observe.status import document
from tests.certs.authority import Issuer
from tests.support.agent_in_process import App, Caller, Life, free_port, life, live, public_life, upstream
from tests.support.agent_parts import LEAF, MATCH, ROOTS, SERVICE, proxy_answer
from tests.support.fake_consul import Scripted

Act = Callable[[Life, Caller, Issuer], Awaitable[None]]
HEALTH = "/v1/health/connect/db"
DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"  # Python 3.13 reads many thousands


async def serving(nursery: trio.Nursery, act: Act) -> Life:
    """An agent with a caller that talks to its app; it must still do so afterwards."""
    app = App()
    nursery.start_soon(app.serve)
    one = public_life(nursery, service_addr=app.address)
    root = one.bench.well(upstream("db", free_port()))
    caller = Caller(root)
    one.bench.consul.answer(HEALTH, [], index=9)

    async def acted() -> None:
        await caller.connect(one.address())
        assert await caller.say(b"before") == b"before"
        await act(one, caller, root)
        caller.close()

    await live(one, acted)
    return one


def failures(one: Life, watch: str) -> dict[str, int]:
    return next(dict(s.failures) for s in one.bench.control.statuses() if s.name == watch)


async def counted(one: Life, where: Where, least: int = 1) -> None:
    """In the log with its traceback, in the metric and in `/status`."""
    agent = one.bench.agent
    page = text(await families(agent))
    (line,) = [
        line
        for line in page.splitlines()
        if line.startswith(f'sidecar_internal_errors_total{{where="{where.value}"}}')
    ]
    assert float(line.split()[-1]) >= least
    assert (await document(agent))["counters"]["internal_errors"][where.value] >= least  # type: ignore[index]
    assert any(
        f"internal_error: where={where.value}" in told and "Traceback" in told for told in one.bench.log
    )


@pytest.mark.parametrize(
    ("path", "watch"),
    [
        (SERVICE, "registration"),
        (ROOTS, "roots"),
        (LEAF, "leaf"),
        (MATCH, "intentions"),
        (HEALTH, "endpoints db"),
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        Scripted(body=DEEP, headers={"X-Consul-Index": "50"}),
        Scripted(body=b'{"a":"\xff"}', headers={"X-Consul-Index": "50"}),
        Scripted(body=b"[" * 10, headers={"X-Consul-Index": "9" * 4300}),
    ],
    ids=["nested", "not utf-8", "an index of 4300 digits"],
)
async def test_an_answer_nobody_can_read_fails_one_watch_by_name(
    nursery: trio.Nursery, path: str, watch: str, answer: Scripted
) -> None:
    async def act(one: Life, caller: Caller, root: Issuer) -> None:
        one.bench.consul.say(path, answer)
        await one.until(lambda: "malformed" in failures(one, watch))
        # An index that is no number is one before ours, and is seen before a list of intentions is read.
        assert failures(one, watch).keys() <= {"malformed", "index_went_back"}
        assert missing(one.bench.agent) == []
        assert await caller.say(b"after") == b"after"

    await serving(nursery, act)


async def test_a_neighbour_nested_too_deep_keeps_nobody_from_starting(nursery: trio.Nursery) -> None:
    one = life(nursery, listen="127.0.0.1:0")
    one.bench.well()
    one.bench.consul.replace("/v1/agent/services")
    one.bench.consul.say("/v1/agent/services", Scripted(body=DEEP))

    async def act() -> None:
        assert one.bench.snapshot.registration.value is not None

    await live(one, act)


def fail(*_: object, **__: object) -> None:
    raise KeyError("a bug")


@pytest.mark.internal_errors
async def test_a_bug_in_taking_an_answer_ends_nothing_and_it_is_taken_again(nursery: trio.Nursery) -> None:
    async def act(one: Life, caller: Caller, root: Issuer) -> None:
        watch, bugs = one.bench.control.watches["registration"], [KeyError("a bug")]
        take = watch.publish

        def fail_once(value: object) -> None:
            if bugs:
                raise bugs.pop()
            take(value)

        watch.publish = fail_once
        one.bench.consul.answer(SERVICE, proxy_answer(Address="127.0.0.2"), content_hash="h2")
        await one.until(lambda: "watch.recovered" in one.bench.events())
        assert not bugs
        assert await caller.say(b"after") == b"after"
        await counted(one, Where.WATCH)

    await serving(nursery, act)


@pytest.mark.internal_errors
async def test_a_bug_in_one_connection_ends_that_connection(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(one: Life, caller: Caller, root: Issuer) -> None:
        second = Caller(root)
        with monkeypatch.context() as patched:
            patched.setattr("agent.inbound.inbound._identify", fail)
            await second.connect(one.address())  # with TLS 1.3 our end is through before the other has looked
            assert await second.say(b"x") == b""
        second.close()
        assert one.bench.data.ledger.counters()[Direction.INBOUND, "internal_error"] == 1
        assert await caller.say(b"after") == b"after"
        await counted(one, Where.CONNECTION)

    await serving(nursery, act)


@pytest.mark.internal_errors
async def test_who_cannot_be_judged_is_cut(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(one: Life, caller: Caller, root: Issuer) -> None:
        monkeypatch.setattr(reauthorize, "_by_policy", fail)
        rule = {"SourceName": "x", "DestinationName": "web", "Action": "deny", "Precedence": 9}
        one.bench.consul.answer(MATCH, {"web": [rule]}, index=8)
        with trio.fail_after(5):
            await one.bench.data.ledger.empty()
        assert await caller.say(b"cut") == b""
        assert one.bench.data.ledger.counters()[Direction.INBOUND, "internal_error"] == 1
        await counted(one, Where.CONNECTION)

    await serving(nursery, act)


@pytest.mark.internal_errors
@pytest.mark.parametrize(
    ("what", "where"),
    [
        ("agent.net.accept._Gate._accept", Where.LISTENER),
        ("agent.control.credentials.CredentialsKeeper._take_leaf", Where.TASK),
        ("agent.observe.announcement.missing", Where.TASK),
    ],
)
async def test_what_runs_for_ever_is_begun_again(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, what: str, where: Where
) -> None:
    async def act(one: Life, caller: Caller, root: Issuer) -> None:
        errors = one.bench.agent.log.internal_errors
        with monkeypatch.context() as patched:
            patched.setattr(what, fail)
            one.bench.consul.answer(LEAF, root.leaf(serial=0x0E).answer(), index=20)
            async with await trio.open_tcp_stream(*one.address()):
                await one.until(lambda: errors[where.value])
        assert await caller.say(b"after") == b"after"
        again = Caller(root)
        await again.connect(one.address())
        assert await again.say(b"again") == b"again"
        again.close()
        await counted(one, where)

    await serving(nursery, act)


@pytest.mark.parametrize(
    "what",
    [
        "agent.connections.reauthorize.rejudge",
        "agent.connections.reauthorize.Freshness.becomes_too_old",
    ],
)
async def test_what_enforces_ends_the_process(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Nobody would know whether what was withdrawn has been cut, or a list outlived."""

    async def broken(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    one = public_life(nursery, intentions_max_age="2m")
    one.bench.well()
    monkeypatch.setattr(what, broken if what.endswith("becomes_too_old") else fail)
    with pytest.raises(BaseExceptionGroup) as caught, trio.fail_after(10):
        await one.run()
    assert caught.value.subgroup(KeyError) is not None
