"""The switchboard: who may use it, what it says, and that it is not there unless asked for."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from datacenter.faults.endpoints import PATH
from datacenter.state.settings import Access, Policy
from tests.datacenter.sites import MANAGEMENT, Site, Wan, now, running, token

LEAF = "/v1/agent/connect/ca/leaf/web"
ROOTS = "/v1/agent/connect/ca/roots"


def faulty(wan: Wan, name: str = "dc1", **changes: object) -> Site:
    return wan.site(name, enable_faults=True, **changes)  # type: ignore[arg-type]


async def test_it_is_off_by_default(autojump_clock: MockClock) -> None:
    site = Wan().site("dc1")
    for method in ("GET", "PUT"):
        assert (await site.call(method, PATH, {"WanCut": True})).status == 404
    assert site.dc.faults is None


async def test_it_says_what_is_broken_but_no_secret(autojump_clock: MockClock) -> None:
    site = faulty(Wan())
    everything = {
        "WanCut": True,
        "HungWatches": ["/v1/health"],
        "ClockSkewSeconds": -3600.0,
        "Corrupt": "wrong_key",
        "IntermediateSeconds": 30.0,
        "RevokedTokens": ["s3cret"],
        "FrozenReplication": True,
    }
    await site.put(PATH, everything)
    assert await site.get(PATH) == everything | {"RevokedTokens": 1}
    assert "s3cret" not in repr(site.dc)
    await site.put(PATH, {})
    assert not any((await site.get(PATH)).values())


@pytest.mark.parametrize(
    "body", [{"Corrupt": "a bit"}, {"WanCut": "yes"}, {"Fire": True}, {"ClockSkewSeconds": 1e300}]
)
async def test_what_is_no_fault(autojump_clock: MockClock, body: dict[str, object]) -> None:
    refused = await faulty(Wan()).call("PUT", PATH, body)
    assert refused.status == 400


async def test_it_needs_operator_rights(autojump_clock: MockClock) -> None:
    reader = token("reader", Policy(operator=Access.READ))
    management = token(MANAGEMENT, Policy(management=True))
    site = faulty(Wan(), default_policy_allows=False, tokens=(reader, management))
    assert (await site.call("GET", PATH)).status == 403
    assert (await site.call("GET", PATH, token="reader")).status == 200
    assert (await site.call("PUT", PATH, {}, token="reader")).status == 403
    assert (await site.call("PUT", PATH, {}, token=MANAGEMENT)).status == 200


async def test_a_skewed_clock_dates_certificates(autojump_clock: MockClock) -> None:
    site = faulty(Wan())
    site.ca.start()
    await site.put(PATH, {"ClockSkewSeconds": 7200})
    assert (site.dc.clock() - now()).total_seconds() == 7200
    assert (await site.get(LEAF))["ValidAfter"] > now().isoformat()


async def test_an_intermediate_that_ends_soon(autojump_clock: MockClock) -> None:
    """Signed short, then cut off: leaves end with it, and a new one is had as soon as the wire is back."""
    wan = Wan()
    dc1, dc2 = faulty(wan), faulty(wan, "dc2")
    await dc1.put(PATH, {"IntermediateSeconds": 400})
    async with running(dc1, dc2):
        await dc2.put(PATH, {"WanCut": True})
        await trio.sleep(500)
        refused = await dc2.call("GET", LEAF)
        assert (refused.status, "error signing" in refused.body) == (500, True)
        await dc1.put(PATH, {})
        await dc2.put(PATH, {})
        await trio.sleep(60)
        await dc2.get(LEAF)
