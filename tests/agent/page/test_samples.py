"""The ring keeps the newest samples, in order, in little memory."""

from __future__ import annotations

import trio
import trio.testing

from agent.base.histogram import Histogram, histogram
from agent.page.samples import COUNT, EVERY, FIELDS, Ring, keep, steps, totals
from agent.proxy.report import STEP_SECONDS
from tests.agent.observe.test_metrics import scrape, value
from tests.support.agent_parts import agent_bench


def test_the_newest_are_kept_oldest_first() -> None:
    ring = Ring()
    assert ring.columns()["live"] == []
    for number in range(COUNT + 3):
        ring.take(**dict.fromkeys(FIELDS, float(number)))
    assert ring.columns()["live"] == [float(number) for number in range(3, COUNT + 3)]
    assert sum(column.buffer_info()[1] * column.itemsize for column in ring._columns.values()) == 10560


def test_what_did_not_end_in_order_is_counted_apart() -> None:
    counters = {
        "endings": {"inbound": {"clean": 2, "intention_deny": 3}, "outbound": {"clean": 1}},
        "bytes": {
            "inbound": {"to_plain": 10, "to_tls": 20},
            "outbound": {"to_plain": 1, "to_tls": 2},
        },
    }
    assert totals(counters) == {"ended": 6, "refused": 3, "to_plain": 11, "to_tls": 22}


def test_steps_are_added_up_over_both_directions() -> None:
    timed, other = histogram(STEP_SECONDS, ""), histogram("another", "")
    for direction, step, seconds in (
        ("inbound", "first_byte", 0.25),
        ("outbound", "first_byte", 0.5),
        ("outbound", "handshake", 2.0),
        ("outbound", "queue", 4.0),
    ):
        counted = Histogram()
        counted.observe(seconds)
        counted.add_to(timed, direction=direction, step=step)
    assert steps([other, timed]) == {
        "first_byte": 0.75,
        "first_bytes": 2.0,
        "handshake": 2.0,
        "handshakes": 1.0,
    }


def test_without_a_worker_that_answers_no_step_has_been_taken() -> None:
    other = histogram("another", "")
    assert steps([other]) == dict.fromkeys(("first_byte", "first_bytes", "handshake", "handshakes"), 0.0)


async def test_a_loop_that_wakes_late_is_seen(
    nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    agent, ring = agent_bench(nursery).agent, Ring()
    nursery.start_soon(keep, agent, ring)
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(EVERY + 0.3)  # as one who computes for long does
    await trio.testing.wait_all_tasks_blocked()
    assert round(ring.columns()["lag"][0], 3) == 0.3
    assert value(await scrape(agent), "sidecar_loop_lag_seconds_count") == 1
    nursery.cancel_scope.cancel()
