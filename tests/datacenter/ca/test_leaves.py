"""When a leaf is replaced: renewal, rotation, jitter, and who gets it when."""

from __future__ import annotations

from datetime import datetime

import pytest
import trio
from trio.testing import MockClock

from datacenter.ca.leaves import Leaves
from tests.datacenter.sites import (
    Site,
    Wan,
    now,
)

LEAF = "/v1/agent/connect/ca/leaf/web"
CONFIGURATION = "/v1/connect/ca/configuration"
ROTATE = "/v1/connect/ca/rotate"


@pytest.fixture
async def site() -> Site:
    site = Wan().site("dc1")
    site.ca.start()
    return site


def expiry(leaf: dict[str, str]) -> datetime:
    return datetime.fromisoformat(leaf["ValidBefore"])


def configuration(**config: object) -> dict[str, object]:
    return {"Provider": "consul", "Config": config}


async def test_a_leaf_is_kept_by_token_and_service(autojump_clock: MockClock, site: Site) -> None:
    first = await site.call("GET", LEAF)
    await trio.sleep(49)
    again = await site.call("GET", LEAF)
    assert (first.headers["X-Cache"], again.headers["X-Cache"], again.headers["Age"]) == ("MISS", "HIT", "49")
    assert again.body == first.body
    other = await site.call("GET", LEAF, token="other")
    assert other.body["PrivateKeyPEM"] != first.body["PrivateKeyPEM"]
    assert other.headers["X-Cache"] == "MISS"


async def test_a_blocked_leaf_runs_to_its_timeout_unchanged(autojump_clock: MockClock, site: Site) -> None:
    first = await site.call("GET", LEAF)
    blocked = await site.call("GET", f"{LEAF}?index={first.index}&wait=2s")
    assert 2 <= trio.current_time() <= 2 + 2 / 16
    assert (blocked.body, blocked.index) == (first.body, first.index)
    assert blocked.headers["X-Cache"] == "MISS"


async def test_a_blocked_leaf_is_renewed_within_its_share_of_life(
    autojump_clock: MockClock, site: Site
) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="11m", SkipValidate=True))
    answered = await site.call("GET", LEAF)
    moments = []
    for _ in range(12):
        begun = trio.current_time()
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=10m")
        moments.append(trio.current_time() - begun)
    assert all(336 <= moment <= 534 for moment in moments)  # docs/consul-api.md#leaf, computed for 11 minutes
    assert max(moments) - min(moments) > 60


async def test_an_unblocked_leaf_is_renewed_when_its_time_has_come(
    autojump_clock: MockClock, site: Site
) -> None:
    first = await site.get(LEAF)
    await trio.sleep(0.59 * 72 * 3600)
    assert await site.get(LEAF) == first
    await trio.sleep(0.31 * 72 * 3600)
    assert await site.get(LEAF) != first


async def test_short_lived_leaves_are_born_valid_and_do_not_spin(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1", leaf_ttl=60.0)
    site.ca.start()
    answered = await site.call("GET", LEAF)
    rounds = 0
    while trio.current_time() < 600:
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=10m")
        assert expiry(answered.body) > now()
        rounds += 1
    assert rounds < 25
    assert (await site.get(CONFIGURATION))["Config"]["SkipValidate"] is True


async def test_after_a_rotation_who_waits_gets_the_leaf_with_jitter_and_who_asks_at_once(
    autojump_clock: MockClock, site: Site
) -> None:
    first = {name: await site.call("GET", LEAF, token=name) for name in "abcdefgh"}
    woken: dict[str, float] = {}

    async def watch(name: str) -> None:
        answered = await site.call("GET", f"{LEAF}?index={first[name].index}&wait=60s", token=name)
        assert answered.body["SerialNumber"] != first[name].body["SerialNumber"]
        woken[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        for name in first:
            nursery.start_soon(watch, name)
        await trio.sleep(10)
        await site.put(ROTATE)
        unblocked = await site.call("GET", LEAF, token="a")
        assert unblocked.body["SerialNumber"] != first["a"].body["SerialNumber"]
    assert woken.pop("a") == 10  # the same cache entry: the waiter sees what the other was given
    assert all(10 < moment <= 40 for moment in woken.values())
    assert max(woken.values()) - min(woken.values()) > 5


async def test_a_waiter_that_comes_back_does_not_start_its_jitter_again(
    autojump_clock: MockClock, site: Site
) -> None:
    answered = await site.call("GET", LEAF)
    first = answered.body
    await site.put(ROTATE)
    while answered.body == first:
        answered = await site.call("GET", f"{LEAF}?index={answered.index}&wait=1s")
    assert trio.current_time() <= 32


async def test_no_jitter_when_it_is_set_to_nothing(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1", leaf_rotation_jitter=0.0)
    site.ca.start()
    first = await site.call("GET", LEAF)
    await site.put(ROTATE)
    await site.call("GET", f"{LEAF}?index={first.index}&wait=60s")
    assert trio.current_time() == 0


async def test_leaves_nobody_asks_for_are_forgotten(autojump_clock: MockClock, site: Site) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="8760h", IntermediateCertTTL="30000h"))
    first = await site.get(LEAF)
    await trio.sleep(73 * 3600)
    await site.get("/v1/agent/connect/ca/leaf/db")
    assert await site.get(LEAF) != first


async def test_a_leaf_asked_for_again_and_again_is_kept_among_forgotten_ones(
    autojump_clock: MockClock, site: Site
) -> None:
    await site.put(CONFIGURATION, configuration(LeafCertTTL="8760h", IntermediateCertTTL="30000h"))
    first, other = await site.get(LEAF), await site.get("/v1/agent/connect/ca/leaf/db")
    for _ in range(4):
        await trio.sleep(24 * 3600)
        assert await site.get(LEAF) == first
    await site.get("/v1/agent/connect/ca/leaf/api")
    assert await site.get(LEAF) == first
    assert await site.get("/v1/agent/connect/ca/leaf/db") != other


async def test_an_index_goes_on_after_a_restart(autojump_clock: MockClock, site: Site) -> None:
    """A client that comes back with its old index gets the new leaf at once, not after its wait."""
    before = await site.call("GET", LEAF)
    again = Wan().site("dc1", store=site.dc.store)
    again.ca.start()
    after = await again.call("GET", f"{LEAF}?index={before.index}&wait=60s")
    assert after.index > before.index
    assert trio.current_time() == 0


class _Waits:
    """Counts how often the reads that are held look at their leaf."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.looks: list[tuple[str, str]] = []
        look = Leaves._current

        async def counted(leaves: Leaves, key: tuple[str, str], index: int) -> object:
            self.looks.append(key)
            return await look(leaves, key, index)

        monkeypatch.setattr(Leaves, "_current", counted)


async def test_a_signature_wakes_the_reads_of_its_own_leaf_and_no_others(
    autojump_clock: MockClock, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await site.call("GET", LEAF)
    other = await site.call("GET", LEAF, token="other")
    waits = _Waits(monkeypatch)
    answers: list[str] = []

    async def read(index: int, token: str) -> None:
        answered = await site.call("GET", f"{LEAF}?index={index}&wait=90s", token=token)
        answers.append(answered.body["SerialNumber"])

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(read, first.index, "")
        nursery.start_soon(read, other.index, "other")
        await trio.testing.wait_all_tasks_blocked()
        waits.looks.clear()
        anew = await site.call("GET", f"{LEAF}?reissue")
        await trio.testing.wait_all_tasks_blocked()
        assert ("other", "web") not in waits.looks
        assert answers == [anew.body["SerialNumber"]] * 3
        await site.put(ROTATE)  # a new root is everybody's
    assert answers[-1] != other.body["SerialNumber"]
