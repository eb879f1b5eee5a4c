"""The page of reference is what the code says, and nothing that an operator can meet is missing from it."""

from __future__ import annotations

import msgspec
import trio

from agent.base.exits import ExitCode
from agent.config.options import OPTIONS
from agent.deployment.manual import EXITS
from agent.observe.metrics import families
from agent.observe.status import document
from tests.reference import PAGE, STATUS, events, metrics, page, reasons
from tests.support.agent_in_process import public_life
from tests.support.agent_parts import agent_bench


def test_the_page_is_made_from_the_code() -> None:
    assert PAGE.read_text() == page(), "make reference"


def test_every_exit_code_and_setting_is_on_it() -> None:
    assert set(EXITS) == set(ExitCode)
    text = page()
    assert all(f"| `{option.name}` |" in text for option in OPTIONS)


async def test_every_field_of_the_status_is_on_it(nursery: trio.Nursery) -> None:
    read = msgspec.json.decode(msgspec.json.encode(await document(agent_bench(nursery).agent)))
    assert list(read) == [name for name in STATUS if name != "workers"]


async def test_every_metric_and_event_of_a_life_is_on_it(nursery: trio.Nursery) -> None:
    life = public_life(nursery)
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        shown = await families(life.bench.agent)
        life.cycle.drain("the test")
    assert {family.name for family in shown} <= {metric.name for metric in metrics()}
    assert set(life.bench.events()) <= {event.name for event in events()}


def test_each_metric_event_and_reason_has_its_sentence() -> None:
    assert len(events()) > 45
    assert [one.name for one in metrics() if not one.says] == []
    assert [one.name for one in events() if not one.says] == []
    assert all(says and says[-1] != "." for says in reasons().values())
