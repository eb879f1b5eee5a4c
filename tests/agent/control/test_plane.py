"""The agent's own watches: fatal before it serves, weather afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from agent.base.exits import Exit, ExitCode
from agent.base.phase import Phase
from agent.control.plane import OwnWatches
from agent.observe.readiness import missing
from tests.support.agent_parts import (
    LEAF,
    MATCH,
    PROXY,
    SERVICE,
    Assembled,
    assembled,
    proxy_answer,
    registration,
    settings,
)
from upstreams.spec import parse_upstream_flag


def own(bench: Assembled, nursery: trio.Nursery) -> OwnWatches:
    return OwnWatches(parts=bench.parts, nursery=nursery)


async def test_everything_is_watched_and_published(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    bench = assembled(nursery)
    bench.well()
    watches = own(bench, nursery)
    watches.take(registration())
    watches.credentials(registration())
    watches.intentions()
    watches.intentions()  # once is enough
    watches.registration(PROXY)
    await trio.sleep(1)
    parts = bench.parts
    assert parts.contexts.value is not None
    assert parts.intentions.value is not None
    assert parts.own_datacenter() == "dc1"
    names = ["registration", "roots", "leaf", "intentions", "default policy"]
    assert [status.name for status in parts.watches()] == names
    assert len(bench.consul.questions(MATCH)) == 2


async def test_before_there_is_a_registration_there_is_nothing_to_watch_intentions_of(
    nursery: trio.Nursery,
) -> None:
    bench = assembled(nursery)
    own(bench, nursery).intentions()
    assert bench.parts.intentions_watch is None
    assert bench.parts.own_datacenter() == ""


async def test_a_registration_is_taken_when_it_differs(nursery: trio.Nursery) -> None:
    bench = assembled(nursery, settings(listen="10.0.0.1:1"))
    watches = own(bench, nursery)
    watches.take(registration())
    watches.take(registration())
    assert bench.parts.placement.version == 1
    assert bench.parts.own_datacenter() == "dc1"
    watches.take(registration(protocol="http"))
    assert bench.parts.placement.version == 2
    with pytest.raises(Exit) as caught:
        watches.take(registration(service="api"))
    assert caught.value.code is ExitCode.FAILED


@pytest.mark.parametrize("path", [LEAF, MATCH])
async def test_a_refusal_before_it_serves_ends_it(
    nursery: trio.Nursery, autojump_clock: MockClock, path: str
) -> None:
    bench = assembled(nursery)
    bench.well()
    bench.consul.replace(path)
    bench.consul.answer(path, text="Permission denied", status=403)
    with pytest.raises(BaseExceptionGroup) as caught:
        await watch_for_a_while(bench)
    error: BaseException = caught.value
    while isinstance(error, BaseExceptionGroup):
        (error,) = error.exceptions
    assert isinstance(error, Exit)
    assert error.code is ExitCode.PERMISSION


async def watch_for_a_while(bench: Assembled, seconds: float = 100) -> None:
    async with trio.open_nursery() as watching:
        watches = own(bench, watching)
        watches.take(registration())
        watches.credentials(registration())
        watches.intentions()
        await trio.sleep(seconds)
        watching.cancel_scope.cancel()


async def test_the_same_refusal_afterwards_is_asked_about_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.well()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    bench.parts.phase = Phase.SERVING
    await watch_for_a_while(bench, 300)
    assert len(bench.consul.questions(MATCH)) > 3


async def test_a_registration_that_is_gone_is_told_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    bench.parts.placement.publish(registration())
    own(bench, nursery).registration(PROXY)
    await trio.sleep(100)
    assert bench.events().count("registration.gone") == 1
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    await trio.sleep(20)
    assert bench.events()[-1] in {"registration.changed", "watch.recovered"}


async def test_a_new_token_is_tried_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock, tmp_path: Path
) -> None:
    bench = assembled(nursery)
    bench.well()
    bench.parts.phase = Phase.SERVING
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    watches = own(bench, nursery)
    watches.take(registration())
    watches.credentials(registration())
    watches.intentions()
    watches.registration(PROXY)
    await trio.sleep(100)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7)
    watches.token_changed()
    await trio.sleep(0.1)
    assert bench.parts.intentions.value is not None
    assert "token.changed" in bench.events()


async def test_intentions_are_published_with_our_settings_and_datacenter(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery, settings(narrow=["web@dc1"], audit="true"))
    bench.well()
    watches, parts = own(bench, nursery), bench.parts
    watches.take(registration(datacenter=None))
    watches.intentions()
    await trio.sleep(1)
    assert parts.intentions.value is not None
    assert (parts.intentions.value.datacenter, parts.intentions.value.audit) == ("", True)
    assert list(map(str, parts.intentions.value.narrowings)) == ["web@dc1"]
    watches.credentials(registration(datacenter=None))  # the leaf says where we are
    await trio.sleep(1)
    assert parts.intentions.value.datacenter == "dc1"
    assert parts.intentions.value.audit


async def test_intentions_are_too_old_when_consul_does_not_answer_and_good_again_when_it_does(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery, settings(intentions_max_age="120"))
    bench.well()
    bench.parts.phase = Phase.SERVING
    watches, parts = own(bench, nursery), bench.parts
    watches.take(registration())
    watches.intentions()
    await trio.sleep(1000)  # unchanged answers, about one a minute, keep them good
    assert missing(parts) == ["credentials: not asked for yet"]
    assert "intentions.too_old" not in bench.events()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="rpc error", status=500)
    await trio.sleep(200)
    (piece,) = [piece for piece in missing(parts) if piece.startswith("intentions")]
    assert piece.startswith("intentions: too old since 2031-05-17T")
    assert piece.endswith("(intentions_max_age): /v1/connect/intentions/match answered 500: rpc error")
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, {"web": None}, index=7)  # the same as before
    await trio.sleep(100)
    assert missing(parts) == ["credentials: not asked for yet"]
    events = bench.events()
    assert (events.count("intentions.too_old"), events.count("intentions.current")) == (1, 1)
    assert events.count("intentions.changed") == 1, "that they are as good as before is no change"


async def test_without_a_greatest_age_intentions_are_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery)
    bench.well()
    bench.parts.phase = Phase.SERVING
    watches, parts = own(bench, nursery), bench.parts
    watches.take(registration())
    watches.intentions()
    await trio.sleep(1000)
    version = parts.intentions.version
    bench.consul.down = True
    bench.consul.drop()
    await trio.sleep(10**5)
    assert parts.intentions.value is not None
    assert (parts.intentions.value.too_old, parts.intentions.value.good_until) == (False, None)
    assert parts.intentions.version == version == 1


async def test_a_datacenter_that_becomes_known_makes_old_intentions_no_younger(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery, settings(intentions_max_age="120"))
    bench.well()
    bench.parts.phase = Phase.SERVING
    watches, parts = own(bench, nursery), bench.parts
    watches.take(registration(datacenter=None))
    watches.intentions()
    await trio.sleep(1)
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="rpc error", status=500)
    await trio.sleep(300)
    watches.credentials(registration(datacenter=None))
    before = parts.intentions.version
    known, _ = await parts.intentions.newer(before)
    await trio.sleep(1)
    assert (known.datacenter, known.too_old) == ("dc1", True)
    assert parts.intentions.version == before + 1, "not even for a moment"


async def test_whom_we_may_not_call_is_watched_from_the_first_upstream_on_where_it_is_asked_for(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for wanted in ("false", "true"):
        bench = assembled(nursery, settings(judge_outbound=wanted))
        bench.well()
        watches, parts = own(bench, nursery), bench.parts
        nursery.start_soon(watches.outgoing)
        watches.take(registration())
        await trio.sleep(1)
        assert parts.outgoing_watch is None, "we call nobody"
        watches.take(registration(upstreams=(parse_upstream_flag("db:9191"),)))
        await trio.sleep(1)
        assert (parts.outgoing.value is not None) is (wanted == "true")
        assert ("outgoing" in {status.name for status in parts.watches()}) is (wanted == "true")
        asked = [question.query["by"] for question in bench.consul.questions(MATCH)]
        assert set(asked) == ({"source"} if wanted == "true" else set())


async def test_that_consul_refuses_whom_we_may_call_ends_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = assembled(nursery, settings(judge_outbound="true"))
    bench.well()
    bench.consul.replace(MATCH)
    bench.consul.answer(MATCH, text="Permission denied", status=403)
    watches, parts = own(bench, nursery), bench.parts
    nursery.start_soon(watches.outgoing)
    watches.take(registration(upstreams=(parse_upstream_flag("db:9191"),)))
    await trio.sleep(100)
    assert parts.phase is Phase.STARTING
    assert parts.outgoing.value is None
    assert "watch.failed" in bench.events()
