"""Intentions and config entries of the primary, copied."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio.testing import MockClock

from datacenter.faults.endpoints import PATH
from datacenter.federation.replication import apply
from datacenter.http.context import Answer
from datacenter.services.central_defaults import CONFIG_ENTRIES
from datacenter.state.errors import ApiError
from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import Site, Wan, running, token

EXACT = "/v1/connect/intentions/exact"
MATCH = "/v1/connect/intentions/match?by=destination&name=db"
DENY = {"Action": "deny"}


async def rules(site: Site) -> list[tuple[str, str]]:
    """Source and action of every rule for callers of db."""
    matched = (await site.get(MATCH))["db"] or []
    return [(rule["SourceName"], rule["Action"]) for rule in matched]


async def test_what_is_written_in_the_primary_is_read_in_the_secondary(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await dc1.put(f"{EXACT}?source=web&destination=db", DENY)
        await trio.sleep(1)
        assert await rules(dc2) == [("web", "deny")]
        await dc1.call("DELETE", f"{EXACT}?source=web&destination=db")
        await trio.sleep(1)
        assert await rules(dc2) == []


async def test_a_frozen_replication_goes_on_where_it_was(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2", enable_faults=True)
    async with running(dc1, dc2):
        await dc2.put(PATH, {"FrozenReplication": True})
        await dc1.put(f"{EXACT}?source=web&destination=db", DENY)
        await trio.sleep(100)
        assert await rules(dc2) == []
        assert (await dc2.get(f"{MATCH}&dc=dc1"))["db"]  # the WAN is there
        await dc2.put(PATH, {})
        await trio.sleep(1)
        assert await rules(dc2) == [("web", "deny")]


async def test_a_write_in_the_secondary_goes_to_the_primary_and_comes_back(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        entry = {"Kind": "service-defaults", "Name": "db", "Protocol": "http"}
        assert await dc2.put("/v1/config", entry) is True
        assert await dc2.put(f"{EXACT}?source=web&destination=db", DENY) is True
        assert await rules(dc1) == [("web", "deny")]
        await trio.sleep(1)
        assert await rules(dc2) == [("web", "deny")]
        assert (await dc2.get("/v1/config/service-defaults/db"))["Protocol"] == "http"


async def test_a_waiting_reader_of_the_copy_wakes(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2) as nursery:
        await dc1.put(f"{EXACT}?source=api&destination=db", DENY)
        await trio.sleep(1)
        before = await dc2.call("GET", MATCH)
        began = trio.current_time()
        nursery.start_soon(dc1.put, f"{EXACT}?source=web&destination=db", DENY)
        after = await dc2.call("GET", f"{MATCH}&index={before.index}&wait=60s")
        assert trio.current_time() - began < 1
        assert len(after.body["db"]) == 2


async def test_a_cut_wan_leaves_the_last_copy(autojump_clock: MockClock) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await dc1.put(f"{EXACT}?source=web&destination=db", DENY)
        await trio.sleep(1)
        wan.cut("dc2")
        await dc1.put(f"{EXACT}?source=api&destination=db", DENY)
        await trio.sleep(600)
        assert await rules(dc2) == [("web", "deny")]
        refused = await dc2.call("PUT", f"{EXACT}?source=x&destination=db", DENY)
        assert refused.status == 500
        assert refused.body.endswith("connect: connection refused")
        wan.heal("dc2")
        await trio.sleep(40)
        assert await rules(dc2) == [("api", "deny"), ("web", "deny")]


async def test_a_token_with_too_few_rights_never_empties_the_copy(autojump_clock: MockClock) -> None:
    """Consul filters what the token may not read; a filtered list would be taken for a deletion."""
    everything = Policy(operator=Access.WRITE, intentions_prefix={"": Access.WRITE})
    guarded: dict[str, Any] = {"default_policy_allows": False, "tokens": (token("repl", everything),)}
    wan = Wan()
    dc1 = wan.site("dc1", **guarded)
    dc2 = wan.site("dc2", replication_token="repl")
    async with running(dc1, dc2):
        await dc1.put(f"{EXACT}?source=web&destination=db", DENY, token="repl")
        await trio.sleep(1)
        guarded["tokens"] = (token("repl", Policy(operator=Access.READ)),)
        wan.site("dc1", store=dc1.dc.store, **guarded)
        await trio.sleep(300)
        assert await rules(dc2) == [("web", "deny")]


@pytest.mark.parametrize("value", [None, [], {}, {"Entries": 3}, {"Entries": {"a": 1}}])
async def test_an_answer_of_another_shape_changes_nothing(
    autojump_clock: MockClock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: object,
) -> None:
    wan = Wan()
    dc1, dc2 = wan.site("dc1"), wan.site("dc2")
    async with running(dc1, dc2):
        await dc1.put(f"{EXACT}?source=web&destination=db", DENY)
        await trio.sleep(1)
        honest = dc2.dc.forwarder.call

        async def lie(method: str, url: str, **more: Any) -> Answer:
            if "config-entries" in url:
                return Answer(value=value, index=7)
            return await honest(method, url, **more)

        monkeypatch.setattr(dc2.dc.forwarder, "call", lie)
        await trio.sleep(200)
        assert await rules(dc2) == [("web", "deny")]
    said = [record for record in caplog.records if record.name == "datacenter.federation.replication"]
    assert len(said) == 1  # of the same complaint, the first


async def test_after_an_error_everything_is_asked_for_anew(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The primary may be restored from a backup: by the old index it would have nothing new for hours."""
    dc2 = Wan().site("dc2")
    asked: list[str] = []

    async def call(_method: str, url: str, **_: Any) -> Answer:
        if "config-entries" not in url:
            raise ApiError(500, "not asked of here")
        asked.append(parse_qs(urlsplit(url).query)["index"][0])
        match len(asked):
            case 1:
                return Answer(value={"Entries": {}}, index=9)
            case 2:
                raise ApiError(500, "no cluster leader")
        await trio.sleep_forever()
        raise AssertionError

    monkeypatch.setattr(dc2.dc.forwarder, "call", call)
    async with running(dc2, settle=60):
        assert asked == ["0", "9", "0"]


def test_only_what_differs_gets_a_new_index() -> None:
    site = Wan().site("dc2")
    table = site.dc.store.table(CONFIG_ENTRIES)
    one, two, three = ({"Kind": "service-defaults", "Name": name} for name in "abc")
    apply(site.dc, {"service-defaults/a": one, "service-defaults/b": two})
    before = {row.key: row.modify_index for row in table.rows()}
    apply(site.dc, {"service-defaults/a": one, "service-defaults/c": three})
    after = {row.key: row.modify_index for row in table.rows()}
    assert after.keys() == {"service-defaults/a", "service-defaults/c"}
    assert after["service-defaults/a"] == before["service-defaults/a"]
    index = table.index
    apply(site.dc, {"service-defaults/a": one, "service-defaults/c": three})
    assert table.index == index
