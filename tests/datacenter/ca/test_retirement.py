"""A root stays while any leaf of the federation may be alive under it, and goes after that. Virtual time."""

from __future__ import annotations

from datetime import timedelta

import pytest
import trio
from trio.testing import MockClock

from datacenter.ca.retirement import longest_leaf_life
from tests.datacenter.sites import Site, Wan, accepts, assert_mutual_trust, running

pytestmark = pytest.mark.slow

HOUR = 3600.0
ROTATE = "/v1/connect/ca/rotate"
CONFIGURATION = "/v1/connect/ca/configuration"
LEAF = "/v1/agent/connect/ca/leaf/web"


def roots(*sites: Site) -> list[int]:
    return [len(site.trust.roots) for site in sites]


async def test_the_longest_life_in_the_federation_counts_everywhere(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=1 * HOUR), wan.site("dc2", leaf_ttl=24 * HOUR)
    async with running(dc1, dc2):
        assert longest_leaf_life(dc1.dc) == longest_leaf_life(dc2.dc) == timedelta(hours=24)
        old = await dc2.get(LEAF)
        await dc1.put(ROTATE)
        await trio.sleep(23 * HOUR)
        assert accepts(dc1.trust, old), "dc1's own leaves would be dead by now, dc2's are not"
        await trio.sleep(24 * HOUR)
        assert roots(dc1, dc2) == [2, 2]
        await trio.sleep(3 * HOUR)
        assert roots(dc1, dc2) == [1, 1]
        await assert_mutual_trust(dc1, dc2)


async def test_a_secondary_with_short_lives_keeps_what_the_primarys_leaves_need(
    autojump_clock: MockClock,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=24 * HOUR), wan.site("dc2", leaf_ttl=1 * HOUR)
    async with running(dc1, dc2):
        old = await dc1.get(LEAF)
        await dc1.put(ROTATE)
        await trio.sleep(20 * HOUR)
        assert accepts(dc2.trust, old)
        await trio.sleep(31 * HOUR)
        assert roots(dc1, dc2) == [1, 1]


async def test_a_root_stays_while_a_datacenter_that_is_cut_off_signs_under_it(
    autojump_clock: MockClock,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=1 * HOUR), wan.site("dc2", leaf_ttl=1 * HOUR)
    async with running(dc1, dc2):
        wan.cut("dc2")
        await dc1.put(ROTATE)
        await trio.sleep(10 * HOUR)
        late = await dc2.get(f"{LEAF}-late")
        assert accepts(dc1.trust, late), "twice the life of a leaf is long over"
        wan.heal("dc2")
        await trio.sleep(0.5 * HOUR)
        assert accepts(dc1.trust, late)
        assert roots(dc1, dc2) == [2, 2]
        await trio.sleep(4 * HOUR)
        assert roots(dc1, dc2) == [1, 1]


async def test_who_missed_several_rotations_still_follows_the_bridges(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=1 * HOUR), wan.site("dc2", leaf_ttl=1 * HOUR)
    async with running(dc1, dc2):
        wan.cut("dc2")
        for number in range(4):
            await dc1.put(ROTATE)
            await trio.sleep(3 * HOUR)
            new = await dc1.get(f"{LEAF}-{number}")
            assert accepts(dc2.trust, new), f"after {number + 1} rotations"
        assert len(dc1.trust.active.intermediates) == 4
        wan.heal("dc2")
        await trio.sleep(1 * HOUR)
        await dc1.put(ROTATE)
        await trio.sleep(60)
        assert len(dc1.trust.active.intermediates) == 1, "nobody lags behind any more"


async def test_a_life_made_shorter_counts_as_long_as_older_leaves_live(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=24 * HOUR), wan.site("dc2", leaf_ttl=1 * HOUR)
    async with running(dc1, dc2):
        old = await dc1.get(LEAF)
        short = {"Provider": "consul", "Config": {"LeafCertTTL": "1h"}}
        await dc1.put(CONFIGURATION, short)
        await dc1.put(CONFIGURATION, short)
        await dc1.put(ROTATE)
        await trio.sleep(23 * HOUR)
        assert longest_leaf_life(dc2.dc) == timedelta(hours=24)
        assert accepts(dc1.trust, old)
        assert accepts(dc2.trust, old)
        await trio.sleep(3 * HOUR)
        assert longest_leaf_life(dc1.dc) == timedelta(hours=1)
        assert roots(dc1, dc2) == [1, 1]


async def test_a_life_made_longer_is_reported(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1", leaf_ttl=1 * HOUR), wan.site("dc2", leaf_ttl=1 * HOUR)
    async with running(dc1, dc2):
        await dc2.put(CONFIGURATION, {"Provider": "consul", "Config": {"LeafCertTTL": "48h"}})
        await trio.sleep(70)
        assert longest_leaf_life(dc1.dc) == timedelta(hours=48)
