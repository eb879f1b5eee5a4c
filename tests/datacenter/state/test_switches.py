"""The switches themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from datacenter.state.switches import Faults

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_everything_is_off_at_first_and_off_again() -> None:
    faults = Faults()
    clock = faults.clock(lambda: NOW)
    assert (faults.wan_cut, faults.hangs("/v1/x"), clock()) == (False, False, NOW)
    faults.set(wan_cut=True, hung=("/v1/x",), skew=timedelta(hours=1))
    assert (faults.wan_cut, faults.hangs("/v1/x/y"), faults.hangs("/v1/y")) == (True, True, False)
    assert clock() == NOW + timedelta(hours=1)
    faults.set()
    assert (faults.wan_cut, faults.hangs("/v1/x"), clock()) == (False, False, NOW)


async def test_a_change_wakes(autojump_clock: MockClock) -> None:
    faults, woken = Faults(), []

    async def wait() -> None:
        await faults.changed()
        woken.append(faults.wan_cut)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        faults.set(wan_cut=True)
    assert woken == [True]


def test_it_prints_no_secret() -> None:
    faults = Faults()
    faults.set(revoked=frozenset({"s3cret"}))
    assert "s3cret" not in repr(faults)
