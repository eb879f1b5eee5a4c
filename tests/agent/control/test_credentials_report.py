"""What status and metrics say of credentials, at each stage of their life."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import cast

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding
from trio.testing import MockClock

from agent.base.prometheus import text
from agent.control.credentials import RenewalResult, RenewalSource
from agent.control.credentials_report import families, row
from tests.certs.authority import Issuer
from tests.support.agent_parts import LEAF, START, AgentBench, agent_bench, registration, virtual
from tests.support.fake_consul import Scripted

HOUR = 3600
DATE = "Sat, 17 May 2031 13:00:00 GMT"


async def begin(nursery: trio.Nursery) -> tuple[AgentBench, Issuer]:
    bench = agent_bench(nursery)
    root = bench.well()
    bench.control.watch_credentials(registration())
    await trio.sleep(1)
    return bench, root


async def test_nothing_is_known_yet(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    assert row(bench.control, virtual()) is None
    assert list(families(bench.control)) == []


async def test_what_is_in_force(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench, _ = await begin(nursery)
    told = row(bench.control, virtual())
    assert told is not None
    assert (told["generation"], told["serial"], told["churning"], told["rejected"]) == (1, "0d", None, None)
    assert bench.snapshot.credentials.value is not None
    leaf = bench.snapshot.credentials.value.credentials.leaf
    assert told["chain"] == {"certificates": 1, "bytes": len(leaf.certificate.public_bytes(Encoding.DER))}
    assert told["intermediates"] == []
    assert told["refreshes"] == {"watch_new": 1}
    (rotation,) = cast("list[dict[str, object]]", told["rotations"])
    assert (rotation["generation"], rotation["leaf"]) == (1, "0d")
    assert str(rotation["at"]).startswith(START.isoformat()[:16])
    assert told["roots_read_for_a_leaf"] == {}
    (listed,) = cast("list[dict[str, str]]", told["roots"])
    assert listed["not_after"].startswith(
        (START + timedelta(days=3650) - timedelta(minutes=1)).isoformat()[:19]
    )
    written = text(families(bench.control))
    leaf_end = (START + timedelta(hours=72) - timedelta(minutes=1)).timestamp()
    assert f"sidecar_leaf_expiry_timestamp_seconds {leaf_end:.0f}" in written.replace(".0\n", "\n")
    assert 'sidecar_leaf_info{serial="0d",id="spiffe://' in written
    assert 'sidecar_leaf_refreshes_total{by="watch",result="new"} 1' in written
    assert "sidecar_root_expiry_timestamp_seconds{" in written
    assert "sidecar_leaf_churning 0" in written
    assert "sidecar_clock_skew_seconds" not in written


async def test_an_intermediate_is_told_with_its_time(
    autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    bench = agent_bench(nursery)
    root = Issuer.root(now=START)
    bench.well(root=root)
    bench.consul.answer(LEAF, root.intermediate().leaf().answer(), index=6)
    bench.control.watch_credentials(registration())
    await trio.sleep(1)
    told = row(bench.control, virtual())
    assert told is not None
    (listed,) = cast("list[dict[str, str]]", told["intermediates"])
    assert listed["serial"] != told["serial"]
    assert listed["not_before"] < START.isoformat() < listed["not_after"]


async def test_every_figure_of_what_is_in_force(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench, _ = await begin(nursery)
    contexts, rotation = bench.snapshot.credentials.value, bench.control.credentials
    assert contexts is not None
    assert rotation is not None
    assert rotation.status.renewal_due is not None
    leaf = contexts.credentials.leaf
    figures = {family.name: family.samples[0][1] for family in families(bench.control) if family.samples}
    assert figures == {
        "sidecar_leaf_info": 1,
        "sidecar_leaf_begin_timestamp_seconds": leaf.not_before.timestamp(),
        "sidecar_leaf_expiry_timestamp_seconds": leaf.not_after.timestamp(),
        "sidecar_leaf_renewal_due_timestamp_seconds": rotation.status.renewal_due.timestamp(),
        "sidecar_leaf_chain_bytes": leaf.chain_bytes,
        "sidecar_leaf_chain_certificates": 1,
        "sidecar_leaf_refreshes_total": 1,
        "sidecar_leaf_churning": 0,
        "sidecar_roots": 1,
        "sidecar_root_expiry_timestamp_seconds": contexts.credentials.bundle.active.not_after.timestamp(),
        "sidecar_credentials_generation": 1,
        "sidecar_credentials_total": 1,
        "sidecar_credentials_unservable": False,
        "sidecar_roots_unreadable": 0,
    }


async def test_the_clock_is_measured_by_the_answers(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench, root = await begin(nursery)
    body = json.dumps(root.leaf(serial=0x0E).answer()).encode()
    bench.consul.say(LEAF, Scripted(body=body, headers={"X-Consul-Index": "50", "Date": DATE}))
    await trio.sleep(1)
    told = row(bench.control, virtual())
    assert told is not None
    assert told["clock_skew_seconds"] == pytest.approx(HOUR, abs=5)
    assert told["clock_skew_notable"] is True
    assert "clock.skewed" in bench.events()


async def test_what_went_wrong(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    bench, root = await begin(nursery)
    rotation = bench.control.credentials
    assert rotation is not None
    bench.consul.answer(LEAF, root.leaf(service="db").answer(), index=50)
    await trio.sleep(5)
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="Rate limit reached, try again later", status=429)
    assert await rotation.refresh(RenewalSource.OPERATOR) is RenewalResult.FAILED
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, Issuer.root(now=START).leaf(serial=0x0F).answer(), index=51)
    assert await rotation.refresh(RenewalSource.OPERATOR) is RenewalResult.REJECTED
    bench.consul.replace(LEAF)
    bench.consul.answer(LEAF, text="Rate limit reached, try again later", status=429)
    assert await rotation.refresh(RenewalSource.OPERATOR) is RenewalResult.FAILED
    for number in range(6):
        rotation._take_leaf(rotation._leaf.value, RenewalSource.WATCH)  # type: ignore[arg-type]
        rotation._churn.taken(trio.current_time() + number, 72 * 3600.0)
    bench.control.skew.take(DATE, 0)
    told = row(bench.control, virtual())
    assert told is not None
    assert told["rejected"]["reason"] == "untrusted_chain"  # type: ignore[index]
    assert "429" in str(told["refresh_failed"])
    assert str(told["churning"]).startswith("6 leaves within")
    assert told["clock_skew_notable"] is True
    written = text(families(bench.control))
    assert 'sidecar_credentials_rejected_total{reason="wrong_service"}' in written
    assert 'sidecar_leaf_refreshes_total{by="operator",result="failed"} 2' in written
    assert told["roots_read_for_a_leaf"] == {"behind": 1}
    assert 'sidecar_leaf_ahead_total{result="behind"} 1' in written
    assert "roots.behind" in bench.events()
    assert "sidecar_leaf_churning 1" in written
    assert "sidecar_clock_skew_seconds 3" in written
    assert "clock.skewed" in bench.events()
