"""Running checks: TTL alarms in virtual time, probes of real sockets."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from datacenter.services import checks
from tests.datacenter.world import Site, World, settings

REGISTER = "/v1/agent/service/register"


class Still(random.Random):
    """No stagger."""

    def random(self) -> float:
        return 0.0


class Late(random.Random):
    """The whole stagger."""

    def random(self) -> float:
        return 1.0


@asynccontextmanager
async def running(definition: dict[str, Any] | None = None) -> AsyncIterator[Site]:
    """A datacenter that runs its checks; `web` has the one given."""
    site = World().add(settings("dc1"))
    object.__setattr__(site.dc, "rng", Still())  # frozen for everyone but a test
    if definition is not None:
        await site.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", **definition}})
    async with trio.open_nursery() as nursery:
        await nursery.start(checks.run, site.dc)
        yield site
        nursery.cancel_scope.cancel()


def found(site: Site, check: str = "c") -> tuple[str, str]:
    row = site.dc.inventory.check("dc1-node", check)
    assert row is not None
    return row.value["Status"], row.value["Output"]


async def until(site: Site, wanted: Callable[[str, str], bool]) -> None:
    """Wait until the check has found something like this."""
    with trio.fail_after(10):
        while not wanted(*found(site)):  # noqa: ASYNC110  a new output alone touches no topic to wait for
            await trio.sleep(0.01)


@pytest.mark.parametrize(
    ("definition", "status"),
    [
        ({"TCP": "127.0.0.1:1", "Interval": "1h"}, "critical"),
        ({"HTTP": "http://127.0.0.1:1", "Interval": "1h"}, "critical"),
        ({"TTL": "1h"}, "critical"),
    ],
)
async def test_after_a_start_what_a_probe_has_found_is_critical_until_it_passes_again(
    autojump_clock: object, definition: dict[str, Any], status: str
) -> None:
    site = World().add(settings("dc1"))
    object.__setattr__(site.dc, "rng", Late())  # frozen for everyone but a test
    check = {"CheckID": "c", "Status": "passing", **definition}
    await site.ok("PUT", REGISTER, {"Name": "web", "Check": check})
    assert found(site)[0] == "passing"
    async with trio.open_nursery() as nursery:
        await nursery.start(checks.run, site.dc)
        assert found(site)[0] == status
        nursery.cancel_scope.cancel()


async def test_after_a_start_what_a_workload_has_told_holds_for_another_ttl(autojump_clock: object) -> None:
    site = World().add(settings("dc1"))
    await site.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", "TTL": "1h"}})
    await site.ok("PUT", "/v1/agent/check/pass/c?note=fine")
    await site.ok("PUT", REGISTER, {"Name": "web", "Tags": ["a"], "Check": {"CheckID": "c", "TTL": "1h"}})
    async with trio.open_nursery() as nursery:
        await nursery.start(checks.run, site.dc)
        assert found(site) == ("passing", "fine")
        await trio.sleep(3601)
        assert found(site) == ("critical", "TTL expired")
        nursery.cancel_scope.cancel()


async def test_a_ttl_that_passes_in_silence_is_critical(autojump_clock: object) -> None:
    async with running({"TTL": "10s"}) as site:
        await site.ok("PUT", "/v1/agent/check/pass/c?note=fine")
        await trio.sleep(9.9)
        assert found(site) == ("passing", "fine")
        await trio.sleep(0.2)
        assert found(site) == ("critical", "TTL expired")


async def test_every_word_starts_the_ttl_anew(autojump_clock: object) -> None:
    async with running({"TTL": "10s"}) as site:
        for word, status in (
            ("pass", "passing"),
            ("warn", "warning"),
            ("fail", "critical"),
            ("pass", "passing"),
        ):
            await site.ok("PUT", f"/v1/agent/check/{word}/c")
            await trio.sleep(9)
            assert found(site)[0] == status


async def test_an_expired_check_can_come_back(autojump_clock: object) -> None:
    async with running({"TTL": "10s"}) as site:
        await trio.sleep(100)
        await site.ok("PUT", "/v1/agent/check/pass/c")
        await trio.sleep(9)
        assert found(site)[0] == "passing"
        await trio.sleep(2)
        assert found(site) == ("critical", "TTL expired")


async def test_after_a_start_the_last_word_holds_for_one_ttl(autojump_clock: object) -> None:
    site = World().add(settings("dc1"))
    await site.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", "TTL": "10s"}})
    await site.ok("PUT", "/v1/agent/check/pass/c")
    async with trio.open_nursery() as nursery:
        await nursery.start(checks.run, site.dc)
        await trio.sleep(9.9)
        assert found(site)[0] == "passing"
        await trio.sleep(0.2)
        assert found(site) == ("critical", "TTL expired")
        nursery.cancel_scope.cancel()


async def test_definitions_come_and_go_while_running(autojump_clock: object) -> None:
    async with running() as site:
        await site.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", "TTL": "10s"}})
        await site.ok("PUT", "/v1/agent/check/pass/c")
        await trio.sleep(11)
        assert found(site)[0] == "critical"
        await site.ok("PUT", REGISTER, {"Name": "web", "Check": {"CheckID": "c", "TTL": "1h"}})
        await site.ok("PUT", "/v1/agent/check/pass/c")
        await trio.sleep(60)
        assert found(site)[0] == "passing", "the old alarm is still running"
        await site.ok("PUT", "/v1/agent/check/deregister/c")
        await trio.sleep(7200)


@pytest.fixture
def listener() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


async def test_tcp_passes_when_somebody_listens(listener: socket.socket) -> None:
    where = address(listener)
    async with running({"TCP": where, "Interval": "1s"}) as site:
        await until(site, lambda status, _: status == "passing")
        assert found(site) == ("passing", f"TCP connect {where}: Success")


async def test_tcp_fails_when_nobody_does(listener: socket.socket) -> None:
    where = address(listener)
    listener.close()
    async with running({"TCP": where, "Interval": "1s"}) as site:
        await until(site, lambda _, output: output != "")
        assert found(site) == ("critical", f"dial tcp {where}: connect: connection refused")


@pytest.mark.parametrize("where", ["127.0.0.1:0x", "nobody.invalid:1"])
async def test_tcp_to_nowhere(where: str) -> None:
    async with running({"TCP": where, "Interval": "1s"}) as site:
        await until(site, lambda _, output: output != "")
        assert found(site)[0] == "critical"
        assert found(site)[1].startswith("dial tcp")


HTTP = {200: "passing", 204: "passing", 429: "warning", 404: "critical", 503: "critical"}


@pytest.mark.parametrize(("code", "status"), HTTP.items())
async def test_http(code: int, status: str) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(f"HTTP/1.1 {code} X\r\nConnection: close\r\n\r\n".encode())
        await stream.aclose()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/health"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        async with running({"HTTP": url, "Interval": "1s", "Header": {"A": ["b"]}}) as site:
            await until(site, lambda _, output: output != "")
            assert found(site) == (status, f"HTTP GET {url}: {code} Output: ")
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("url", ["http://{}/", "gopher://{}/"])
async def test_http_that_cannot_be_asked(url: str, listener: socket.socket) -> None:
    where = address(listener)
    listener.close()
    async with running({"HTTP": url.format(where), "Interval": "1s"}) as site:
        await until(site, lambda _, output: output != "")
        assert found(site)[0] == "critical"


async def test_a_probe_has_a_deadline(listener: socket.socket) -> None:
    async with running({"HTTP": f"http://{address(listener)}", "Interval": "1s", "Timeout": "50ms"}) as site:
        await until(site, lambda _, output: output != "")
        assert found(site) == ("critical", f'Get "http://{address(listener)}": context deadline exceeded')


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the probe finds, one after the other; the last one for good."""
    findings: list[str] = []

    async def probe(definition: dict[str, Any]) -> tuple[str, str]:
        await trio.lowlevel.checkpoint()
        return (findings.pop(0) if len(findings) > 1 else findings[0]), "scripted"

    monkeypatch.setattr(checks, "_PROBES", {"tcp": probe})
    return findings


async def test_several_failures_before_critical(autojump_clock: object, scripted: list[str]) -> None:
    scripted += ["passing", "critical"]
    async with running({"TCP": "a:1", "Interval": "10s", "FailuresBeforeCritical": 3}) as site:
        seen = []
        for _ in range(4):
            await trio.sleep(5)
            seen.append(found(site)[0])
            await trio.sleep(5)
        assert seen == ["passing", "passing", "passing", "critical"]


async def test_several_successes_before_passing(autojump_clock: object, scripted: list[str]) -> None:
    scripted += ["passing"]
    async with running({"TCP": "a:1", "Interval": "10s", "SuccessBeforePassing": 3}) as site:
        seen = []
        for _ in range(3):
            await trio.sleep(5)
            seen.append(found(site)[0])
            await trio.sleep(5)
        assert seen == ["critical", "critical", "passing"]


async def test_what_stays_critical_is_deregistered(autojump_clock: object, scripted: list[str]) -> None:
    scripted += ["critical"]
    definition = {"TCP": "a:1", "Interval": "10s", "DeregisterCriticalServiceAfter": "1m"}
    async with running(definition) as site:
        await trio.sleep(60)
        assert "web" in await site.ok("GET", "/v1/agent/services")
        await trio.sleep(60)
        assert await site.ok("GET", "/v1/agent/services") == {}


async def test_what_recovers_is_not(autojump_clock: object, scripted: list[str]) -> None:
    scripted += ["critical"] * 5 + ["passing"] + ["critical"] * 5 + ["passing"]
    definition = {"TCP": "a:1", "Interval": "10s", "DeregisterCriticalServiceAfter": "1m"}
    async with running(definition) as site:
        await trio.sleep(600)
        assert "web" in await site.ok("GET", "/v1/agent/services")
