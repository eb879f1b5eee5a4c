"""A run that Consul does not answer serves from the state of the last one, says so, and not for ever."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import trio

from agent.base.exits import ExitCode
from agent.handover import resume
from agent.handover.state import decode, encode
from agent.observe.metrics import families
from agent.observe.readiness import headline
from agent.observe.status import document
from tests.agent.handover.runs import lived, run, state_of
from tests.support.agent_in_process import App, Caller, exit_of, free_port, upstream
from tests.support.descriptor_store import Store

CONFIRMED = "state.confirmed"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "PATIENCE", 0.05)
    monkeypatch.setattr(resume, "LOOK_SECONDS", 0.05)


async def test_callers_are_served_without_consul_and_each_value_is_replaced_when_it_answers(
    nursery: trio.Nursery, store: Store
) -> None:
    app, port = App(), free_port()
    nursery.start_soon(app.serve)
    before = run(nursery, store, service_addr=app.address)
    before.bench.consul.answer("/v1/health/connect/db", [], index=3)
    root = before.bench.well(upstream("db", port))
    await lived(before)
    after = run(nursery, store, service_addr=app.address)
    caller = Caller(root)
    async with trio.open_nursery() as inner:
        inner.start_soon(after.run)
        await after.ready()
        await caller.connect(after.address())
        assert await caller.say(b"hello") == b"hello"
        caller.close()
        agent, values = after.bench.agent, ["registration", "leaf", "roots", "intentions", "endpoints"]
        assert state_of(after).resume.values() == values
        assert "degraded: from the last run, confirmed at 20" in headline(agent)
        told = await document(agent)
        assert (told["last_run"], told["ready"]) == (values, True)
        measured = {family.name: family.samples for family in await families(agent)}
        assert measured["sidecar_degraded"] == [({}, 5)]
        assert measured["sidecar_state_age_seconds"][0][1] > 0
        assert "state.resumed" in after.bench.events()
        after.bench.consul.answer("/v1/health/connect/db", [], index=3)
        after.bench.well(upstream("db", port), root=root)
        agent.control.ask_again()
        agent.control.credentials.leaf_watch.kick()  # type: ignore[union-attr]  # it is there
        await after.until(lambda: CONFIRMED in after.bench.events())
        assert "degraded" not in headline(agent)
        after.cycle.drain("the test")
    assert after.code is ExitCode.CLEAN


async def test_while_consul_answers_nothing_of_the_last_run_is_used(
    nursery: trio.Nursery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resume, "PATIENCE", 2)  # a busy machine takes longer than 0.05 s
    before = run(nursery, store)
    root = before.bench.well()
    await lived(before)
    after = run(nursery, store)
    after.bench.well(root=root)
    async with trio.open_nursery() as inner:
        inner.start_soon(after.run)
        await after.ready()
        await after.until(lambda: state_of(after).resume.state is None)
        after.cycle.drain("the test")
    assert "state.resumed" not in after.bench.events()


async def test_a_state_that_becomes_too_old_meanwhile_ends_the_agent_with_the_reason(
    nursery: trio.Nursery, store: Store
) -> None:
    before = run(nursery, store)
    before.bench.well()
    await lived(before)
    after = run(nursery, store, state_max_age="3")  # of which a slow start takes a part
    with pytest.raises(BaseExceptionGroup) as caught:
        await after.run()
    assert exit_of(caught).code is ExitCode.UNAVAILABLE
    assert "state_too_old" in exit_of(caught).message
    assert "ready" in after.bench.events()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ({"state_max_age": "0"}, "state_too_old"),
        ({"sidecar_for": "other"}, "state_other_service"),
        ({"http_addr": "127.0.0.1:1"}, "state_other_service"),
    ],
)
async def test_a_state_that_may_not_be_used_is_named_and_the_start_waits_for_consul(
    nursery: trio.Nursery, store: Store, flags: dict[str, str | list[str]], reason: str
) -> None:
    before = run(nursery, store)
    before.bench.well()
    await lived(before)
    refused = trio.Event()
    after = run(nursery, store, None, **flags)
    state_of(after).resume.on_refused = refused.set
    assert reason in headline(after.bench.agent) or reason in state_of(after).resume.complaint
    async with trio.open_nursery() as inner:
        inner.start_soon(after.run)
        with trio.fail_after(5):
            await refused.wait()
        assert after.bench.snapshot.registration.value is None
        inner.cancel_scope.cancel()
    assert after.bench.events().count("state.unusable") == 1


async def test_the_newest_of_several_states_is_taken_and_the_file_where_memory_has_none(
    nursery: trio.Nursery, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("0" * 32)
    before = run(nursery, store, tmp_path)
    before.bench.well()
    await lived(before)
    memory = state_of(run(nursery, store)).memory
    (text,) = memory.states()
    older = decode(text)
    memory.keep(encode(replace(older, at=older.at - timedelta(minutes=5))))
    after = run(nursery, store, tmp_path)
    taken = state_of(after).resume.state
    assert taken is not None
    assert taken.at == older.at  # of the file
    memory.forget()
    assert state_of(run(nursery, store, tmp_path)).resume.state is not None
    (tmp_path / "secret").write_text("1" * 32)
    assert "state_unreadable" in state_of(run(nursery, store, tmp_path)).resume.unusable
    for one in (after,):
        state_of(one).memory.close()
