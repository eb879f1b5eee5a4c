"""`/metrics`, read by Prometheus's own parser."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from agent.base.prometheus import text
from agent.connections.calls import MOST
from agent.connections.records import Audited, Direction, FailedAttempt
from agent.net.dial import DialReason
from agent.net.shortage import open_files
from agent.observe.agent import Agent
from agent.observe.metrics import families
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.proxy.report import resident_bytes
from agent.relay.splice import Ending
from certs.peer import Peer
from certs.spiffe import ServiceId, TrustDomain
from tests.support.agent_in_process import free_port, public_life
from tests.support.agent_parts import START, agent_bench, settings

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


async def scrape(agent: Agent) -> Samples:
    """Every sample by name and labels; none may come twice."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text(await families(agent))):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def test_an_agent_that_has_not_started(nursery: trio.Nursery) -> None:
    samples = await scrape(agent_bench(nursery).agent)
    assert value(samples, "sidecar_ready") == 0
    assert value(samples, "sidecar_connections_live", direction="inbound") == 0
    assert value(samples, "sidecar_build_info", version="0.1.0") == 1
    assert value(samples, "sidecar_tasks") >= 1
    resident = value(samples, "process_resident_memory_bytes")
    assert 0 < resident < value(samples, "process_virtual_memory_bytes")


async def test_reasons_are_labels(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    ledger = bench.data.ledger
    with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        attempt = FailedAttempt(endpoint="e", address="a", reason=DialReason.REFUSED, detail="d")
        ledger.attempt_failed(connection, attempt)
        connection.end(OutboundReason.ALL_FAILED)
    with ledger.open(Direction.INBOUND, "10.0.0.1:1") as connection:
        ledger.probe(connection)
    with ledger.open(Direction.INBOUND, "10.0.0.1:1") as connection:
        connection.relaying()
        connection.progress.to_plain = 7
        connection.end(Ending.CLEAN)
    ledger.request_passed(VerdictReason.PERMISSION_ALLOW)
    samples = await scrape(bench.agent)
    assert value(samples, "sidecar_http_requests_total", reason="permission_allow") == 1
    ended = {"direction": "outbound", "reason": "all_failed"}
    assert value(samples, "sidecar_connections_total", **ended) == 1
    assert value(samples, "sidecar_connections_total", direction="inbound", reason="clean") == 1
    assert value(samples, "sidecar_attempts_failed_total", reason="connect_refused") == 1
    assert value(samples, "sidecar_probes_total") == 1
    assert value(samples, "sidecar_bytes_total", direction="inbound", leg="plain") == 7


async def test_an_agent_that_serves(nursery: trio.Nursery) -> None:
    life = public_life(nursery, max_connections="9")
    root = life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        life.bench.consul.answer("/v1/agent/connect/ca/leaf/web", root.leaf(service="db").answer(), index=9)
        await life.until(lambda: "credentials.rejected" in life.bench.events())
        samples = await scrape(life.bench.agent)
        life.cycle.drain("the test")
    assert value(samples, "sidecar_ready") == 1
    assert value(samples, "sidecar_credentials_total") == 1
    assert value(samples, "sidecar_credentials_rejected_total", reason="wrong_service") == 1
    assert value(samples, "sidecar_roots") == 1
    contexts = life.bench.snapshot.credentials.value
    assert contexts is not None
    expiry = value(samples, "sidecar_leaf_expiry_timestamp_seconds")
    assert expiry == pytest.approx(contexts.credentials.leaf.not_after.timestamp())
    assert value(samples, "sidecar_listener_limit", listener="public") == 9
    assert value(samples, "sidecar_listener_open", listener="public") == 1
    assert value(samples, "sidecar_watch_changes_total", watch="leaf") == 2
    assert value(samples, "sidecar_watch_failing", watch="roots") == 0
    assert value(samples, "sidecar_watch_age_seconds", watch="intentions") >= 0


def test_the_process_itself() -> None:
    assert 10e6 < resident_bytes() < 10e9
    before = open_files()
    with Path("/proc/self/statm").open("rb"):
        assert open_files() == before + 1


async def test_policy(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery, settings(audit="true"))
    with bench.data.ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        told = Audited(reason=VerdictReason.DEFAULT_DENY, rule="default policy (deny)")
        bench.data.ledger.audit(connection, told)
        bench.data.ledger.audit(connection, told)  # of one connection each rule once
    page = text(await families(bench.agent))
    assert "sidecar_audit_mode 1\n" in page
    assert "sidecar_deny_list_entries 0\n" in page
    assert "sidecar_deny_list_unusable 0\n" in page
    assert 'sidecar_audited_total{reason="default_deny"} 1\n' in page


async def test_every_reason_is_there_from_zero_and_an_increment_shows(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    denied = {"direction": "inbound", "reason": "intention_deny"}
    before = await scrape(bench.agent)
    assert value(before, "sidecar_connections_total", **denied) == 0
    assert value(before, "sidecar_connections_total", direction="outbound", reason="denied_by_peer") == 0
    assert value(before, "sidecar_attempts_failed_total", reason="connect_refused") == 0
    assert not [labels for name, labels in before if ("reason", "probe") in labels]
    with bench.data.ledger.open(Direction.INBOUND, "10.0.0.1:1") as connection:
        connection.end(VerdictReason.INTENTION_DENY)
    after = await scrape(bench.agent)
    assert value(after, "sidecar_connections_total", **denied) == 1
    who = {"direction": "inbound", "service": "unproven", "datacenter": ""}
    assert value(after, "sidecar_calls_total", verdict="intention_deny", **who) == 1
    assert before.keys() <= after.keys()


async def test_the_steps_of_connections_are_timed(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    with bench.data.ledger.open(Direction.OUTBOUND, "10.0.0.1:1", "db") as connection:
        connection.connect_seconds = 0.03
        connection.end(Ending.CLEAN)
    samples = await scrape(bench.agent)
    of = {"direction": "outbound", "step": "connect"}
    assert value(samples, "sidecar_connection_step_seconds_bucket", le="0.025", **of) == 0
    assert value(samples, "sidecar_connection_step_seconds_bucket", le="0.05", **of) == 1
    assert value(samples, "sidecar_connection_step_seconds_count", **of) == 1
    assert value(samples, "sidecar_connection_step_seconds_count", direction="inbound", step="connect") == 0
    assert (
        value(samples, "sidecar_connection_step_seconds_count", direction="outbound", step="first_byte") == 0
    )
    assert value(samples, "sidecar_rejudge_seconds_count") == 0


async def test_the_lag_of_the_loop_is_there_from_zero(nursery: trio.Nursery) -> None:
    agent = agent_bench(nursery).agent
    assert value(await scrape(agent), "sidecar_loop_lag_seconds_count") == 0
    agent.loop_lag.observe(0.3)
    samples = await scrape(agent)
    assert value(samples, "sidecar_loop_lag_seconds_bucket", le="0.25") == 0
    assert value(samples, "sidecar_loop_lag_seconds_bucket", le="0.5") == 1
    assert value(samples, "sidecar_loop_lag_seconds_sum") == 0.3


async def test_ten_thousand_connections_of_a_thousand_peers_do_not_grow_the_labels(
    nursery: trio.Nursery,
) -> None:
    bench = agent_bench(nursery)
    before = await scrape(bench.agent)
    domain, reasons = TrustDomain("x.consul"), (VerdictReason.INTENTION_DENY, Ending.CLEAN)
    for number in range(10_000):
        with bench.data.ledger.open(Direction.INBOUND, f"10.0.{number % 250}.1:{number}") as connection:
            identity = ServiceId(
                trust_domain=domain, datacenter=f"dc{number % 7}", service=f"s{number % 1000}"
            )
            connection.peer = Peer(id=identity, serial=f"{number:x}", not_after=START, root="")
            if number % 2:
                connection.relaying()
            connection.end(reasons[number % 2])
    grown = (await scrape(bench.agent)).keys() - before.keys()
    assert {name for name, _ in grown} == {"sidecar_calls_total"}
    assert len(grown) == 2 * (MOST + 1), "each name with both verdicts, and the row of the others"


async def test_an_upstream_is_there_from_zero_before_its_first_call(nursery: trio.Nursery) -> None:
    life = public_life(nursery, upstream=[f"db@dc2:127.0.0.1:{free_port()}"])
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        samples = await scrape(life.bench.agent)
        of = {"direction": "outbound", "service": "db", "datacenter": "dc2"}
        for verdict in ("allowed", "denied_by_peer"):
            assert value(samples, "sidecar_calls_total", verdict=verdict, **of) == 0
        inner.cancel_scope.cancel()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not here")
async def test_promtool_has_nothing_to_say_about_the_page(nursery: trio.Nursery) -> None:
    life = public_life(nursery)
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        with life.bench.data.ledger.open(Direction.OUTBOUND, "10.0.0.1:1", "db@dc2") as connection:
            connection.end(Ending.CLEAN)
        page = text(await families(life.bench.agent))
        inner.cancel_scope.cancel()
    words = ["promtool", "check", "metrics"]
    said = await trio.run_process(
        words, stdin=page.encode(), capture_stdout=True, capture_stderr=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, b"")
