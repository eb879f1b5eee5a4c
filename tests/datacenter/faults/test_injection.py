"""What each switch does to answers and calls. Virtual time."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from datacenter.faults.endpoints import PATH
from datacenter.federation.secondary import State
from datacenter.state.settings import Policy
from tests.datacenter.sites import MANAGEMENT, Site, Wan, assert_mutual_trust, running, token

LEAF = "/v1/agent/connect/ca/leaf/web"
ROOTS = "/v1/agent/connect/ca/roots"
ROTATE = "/v1/connect/ca/rotate"


def pair(wan: Wan) -> tuple[Site, Site]:
    return wan.site("dc1", enable_faults=True), wan.site("dc2", enable_faults=True)


@pytest.mark.parametrize("where", [0, 1])
async def test_a_wan_cut_on_either_side_and_healed(autojump_clock: MockClock, where: int) -> None:
    sites = pair(Wan())
    dc1, dc2 = sites
    async with running(dc1, dc2):
        await sites[where].put(PATH, {"WanCut": True})
        await dc1.put(ROTATE)
        await trio.sleep(30)
        assert dc2.standing[0] == State.UNREACHABLE
        assert dc2.trust.active.id != dc1.trust.active.id
        assert (await dc2.call("GET", f"{LEAF}?dc=dc1")).status == 500
        await dc2.get(LEAF)
        await sites[where].put(PATH, {})
        await trio.sleep(300)
        await assert_mutual_trust(dc1, dc2)


async def test_a_hung_watch_answers_nobody_who_waits_and_everybody_who_does_not(
    autojump_clock: MockClock,
) -> None:
    site = pair(Wan())[0]
    site.ca.start()
    await site.put(PATH, {"HungWatches": ["/v1/agent/connect/ca/leaf/"]})
    first = await site.call("GET", LEAF)
    with trio.move_on_after(3600) as patience:
        await site.call("GET", f"{LEAF}?index={first.index}&wait=10s")
    assert patience.cancelled_caught
    assert (await site.call("GET", f"{ROOTS}?index=1")).status == 200
    async with trio.open_nursery() as nursery:
        nursery.start_soon(site.call, "GET", f"{LEAF}?index={first.index}&wait=10s")
        await trio.sleep(60)
        await site.put(PATH, {})
        await trio.sleep(11)
        assert not nursery.child_tasks


async def test_a_revoked_token_is_unknown(autojump_clock: MockClock) -> None:
    management = token(MANAGEMENT, Policy(management=True))
    site = Wan().site("dc1", enable_faults=True, tokens=(management,))
    site.ca.start()
    await site.get(LEAF, token=MANAGEMENT)
    await site.put(PATH, {"RevokedTokens": [MANAGEMENT]}, token=MANAGEMENT)
    refused = await site.call("GET", LEAF, token=MANAGEMENT)
    assert (refused.status, refused.body) == (403, "ACL not found")
    await site.put(PATH, {}, token=MANAGEMENT)
    await site.get(LEAF, token=MANAGEMENT)


async def test_a_refusal_over_the_wire_stays_one(autojump_clock: MockClock) -> None:
    dc1, dc2 = pair(Wan())
    async with running(dc1, dc2):
        answered = await dc2.call("GET", "/v1/query/nope?dc=dc1")
        assert answered.status in {404, 500}
