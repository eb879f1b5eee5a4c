"""`sidecar migrate` beside a scripted Consul: addresses, permissions, collisions, and exit codes."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import trio

from agent.base.exits import ExitCode
from agent.cli.console import Console
from agent.cli.findings import Finding, State
from agent.migration.migrate import compare, elsewhere, main, text_of
from tests.support.agent_in_process import wall
from tests.support.agent_parts import settings
from tests.support.agent_process import sidecar
from tests.support.beside_consul import everything, unused
from tests.support.fake_consul import FakeConsul
from upstreams.answers import parse_health
from upstreams.spec import WanMode

MATCH = "/v1/connect/intentions/match"
HTTP = {
    "SourceName": "shop",
    "DestinationName": "web",
    "Permissions": [{"Action": "allow", "HTTP": {"PathExact": "/"}}],
}
WAN = {"lan": {"Address": "10.0.0.9", "Port": 21000}, "wan": {"Address": "203.0.113.9", "Port": 31000}}


def instance(datacenter: str, port: int, **service: Any) -> dict[str, Any]:
    """One instance of db, as a health endpoint answers it."""
    proxied = {"DestinationServiceName": "db"}
    return {
        "Node": {"Node": "n1", "Datacenter": datacenter, "Address": "10.0.0.1"},
        "Service": {
            "ID": "db-1",
            "Kind": "connect-proxy",
            "Address": "10.0.0.9",
            "Port": port,
            "Proxy": proxied,
        }
        | service,
        "Checks": [{"Status": "passing"}],
    }


def proxy(**fields: Any) -> dict[str, Any]:
    return {
        "DestinationServiceName": "web",
        "DestinationServiceID": "web",
        "LocalServicePort": 8080,
        **fields,
    }


async def told(consul: FakeConsul, **fields: Any) -> list[Finding]:
    """What is told of the registration that Consul answers."""
    async with trio.open_nursery() as nursery:
        address = await consul.listen(nursery)
        found = await compare(settings(sidecar_for="web", http_addr=address, **fields), wall)
        nursery.cancel_scope.cancel()
    return found


async def test_a_registration_with_a_mixed_pair_permissions_and_a_collision() -> None:
    consul = FakeConsul()
    upstreams = [
        {"DestinationName": "db", "Datacenter": "dc2", "LocalBindPort": 9191},
        {"DestinationName": "cache", "LocalBindPort": 9191},
    ]
    everything(consul, Proxy=proxy(Upstreams=upstreams, Config={"protocol": "http"}))
    consul.replace(MATCH)
    consul.answer(MATCH, {"web": [HTTP]}, index=7)
    consul.answer("/v1/catalog/datacenters", ["dc1", "dc2"])
    consul.answer("/v1/health/connect/db", [instance("dc2", 31000, TaggedAddresses=WAN)])
    lines = text_of(await told(consul)).splitlines()
    assert lines[0] == "ok    registration: web-sidecar-proxy, sidecar of web (web)"
    assert any(
        "it dials 10.0.0.9:31000 (mixed_pair" in line and "here 203.0.113.9:31000" in line for line in lines
    )
    assert any(line.startswith("warn  intentions, beside Consul's own proxy: 1 have perm") for line in lines)
    assert any(line.startswith("fail  cache on 127.0.0.1:9191: duplicate_bind") for line in lines)
    assert lines[-1].endswith(" differ, 1 not served")


@pytest.mark.parametrize(
    ("answered", "text"),
    [
        (instance("dc2", 21000), ""),
        (instance("dc1", 21000, TaggedAddresses=WAN), ""),
        (
            instance("dc2", 21000, TaggedAddresses=WAN),
            "it dials 10.0.0.9:21000; here 203.0.113.9:31000 (wan_tag)",
        ),
        (instance("dc2", 0), "not dialled here (no_port); it dials 10.0.0.9:0"),
    ],
)
def test_an_address_that_is_dialled_otherwise(answered: dict[str, Any], text: str) -> None:
    (endpoint,) = parse_health([answered]).endpoints
    found = elsewhere(endpoint, "dc1", WanMode.AUTO)
    assert found == (f"{endpoint}: {text}" if text else "")


async def test_without_consul() -> None:
    (finding,) = await compare(settings(sidecar_for="web", http_addr=unused()), wall)
    assert finding.code is ExitCode.UNAVAILABLE


async def test_a_token_without_a_right() -> None:
    consul = FakeConsul()
    everything(consul)
    consul.replace(MATCH)
    consul.answer(MATCH, status=403, text="Permission denied")
    consul.answer("/v1/catalog/datacenters", ["dc1"])
    found = await told(consul)
    (denied,) = (one for one in found if one.state is State.FAIL)
    assert (denied.subject, denied.code) == ("intentions", ExitCode.PERMISSION)
    assert 'service "web"' in denied.remedy


async def test_as_a_process(nursery: trio.Nursery) -> None:
    consul = FakeConsul()
    everything(consul, port=21000)
    consul.answer("/v1/catalog/datacenters", ["dc1"])
    address = await consul.listen(nursery)
    ended = await sidecar("migrate", "-sidecar-for", "web", "-http-addr", address, "-json")
    assert (ended.code, ended.err) == (0, "")
    rows = json.loads(ended.out)
    assert rows["exit"] == 0
    assert rows["findings"][0]["state"] == "ok"
    missing = await sidecar("migrate", "-proxy-id", "nothing", "-http-addr", address)
    assert missing.code == ExitCode.CONFIGURATION


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("-h",), ExitCode.CLEAN, "usage: sidecar migrate [FLAGS]"),
        ((), ExitCode.USAGE, ""),
        (("-service", "web"), ExitCode.USAGE, "say which registration: -sidecar-for ID"),
        (("-sidecar-for", "web", "-colour", "red"), ExitCode.USAGE, "colour"),
    ],
)
def test_words(words: tuple[str, ...], code: ExitCode, said: str) -> None:
    out = io.StringIO()
    assert main("migrate", Console(words=words, environ={}, out=out, err=out)) == code
    assert said in out.getvalue()
