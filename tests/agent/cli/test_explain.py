"""`sidecar explain` as a process: beside Consul alone, beside a running agent, and beside neither."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from agent.base.exits import Exit, ExitCode
from agent.cli import explain as explain_module
from agent.cli.console import Console
from agent.cli.explain import ask_agent, ask_consul, main
from agent.policy.explain import Inquiry
from tests.agent.cli.test_doctor_upstreams import instance
from tests.certs.authority import Issuer
from tests.support.agent_in_process import App, Caller, public_life
from tests.support.agent_parts import AUTHORIZE, BY_DEFAULT, MATCH, settings
from tests.support.agent_process import Ended, sidecar
from tests.support.fake_consul import FakeConsul

pytestmark = pytest.mark.slow

RULES = [
    {"SourceName": "web", "DestinationName": "db", "Action": "allow", "Meta": {"source-datacenters": "dc1"}},
    {"SourceName": "*", "DestinationName": "db", "Action": "deny"},
]
DATACENTERS, ROOTS = "/v1/catalog/datacenters", "/v1/agent/connect/ca/roots"


@pytest.fixture
async def consul(nursery: trio.Nursery) -> FakeConsul:
    consul = FakeConsul()
    consul.answer(DATACENTERS, ["dc1", "dc2"])
    consul.answer(ROOTS, {"TrustDomain": "x.consul"})
    consul.answer(MATCH, {"db": RULES}, index=7, policy="deny")
    return consul


async def explain(consul: FakeConsul, nursery: trio.Nursery, *words: str) -> Ended:
    return await sidecar("explain", "-http-addr", await consul.listen(nursery), *words)


async def test_allowed(consul: FakeConsul, nursery: trio.Nursery) -> None:
    ended = await explain(consul, nursery, "-source", "web", "-destination", "db")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[:2] == [
        "allowed: web@dc1 => db@dc1",
        "source      spiffe://x.consul/ns/default/dc/dc1/svc/web",
    ]
    assert any(line.startswith("default     deny, X-Consul-Default-Acl-Policy of http://") for line in lines)
    assert any(line.startswith("replica     index 7 of http://") for line in lines)


async def test_denied(consul: FakeConsul, nursery: trio.Nursery) -> None:
    ended = await explain(consul, nursery, "-source", "web@dc2", "-destination", "db@dc2")
    assert ended.code == 1
    assert "reason      narrowed_by_datacenter" in ended.out
    assert consul.questions(MATCH)[0].query["dc"] == "dc2"  # the replica that is in force there


async def test_our_settings_count_too(consul: FakeConsul, nursery: trio.Nursery, tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    denied.write_text("spiffe://x.consul/ns/default/dc/*/svc/web\n")
    ask = ("-source", "web", "-destination", "db")
    assert (await explain(consul, nursery, *ask, "-deny-file", str(denied))).code == 1
    assert (await explain(consul, nursery, *ask, "-narrow", "web@dc7")).code == 1
    assert (await explain(consul, nursery, "-source", "x", "-destination", "db", "-audit")).code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 64, "say whom it calls: -destination SERVICE[@DC]"),
        (("-destination", "db"), 64, "say who calls: -source SERVICE[@DC]"),
        (("-destination", "db", "-source", "web", "-sorce", "x"), 64, "did you mean -source?"),
        (("-destination", "db", "-source", "web", "-narrow", "x"), 78, "write SOURCE@DC,DC"),
        (("-destination", "db", "-source", "web", "-deny-file", "/nowhere/x"), 78, "cannot be read"),
        (("-running", "-source", "web", "-admin-bind", "unix:/nowhere/x"), 69, "no agent answers"),
    ],
)
async def test_what_cannot_be_answered(
    consul: FakeConsul, nursery: trio.Nursery, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = await explain(consul, nursery, *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [(403, "Permission denied", 77), (500, "No cluster leader", 69), (404, "page not found", 78)],
)
async def test_consul_does_not_tell(
    consul: FakeConsul, nursery: trio.Nursery, status: int, text: str, code: int
) -> None:
    consul.replace(MATCH)
    consul.answer(MATCH, text=text, status=status)
    ended = await explain(consul, nursery, "-source", "web", "-destination", "db")
    assert (ended.code, ended.out) == (code, "")
    assert text in ended.err


async def test_no_consul() -> None:
    ended = await sidecar("explain", "-http-addr", "127.0.0.1:1", "-source", "web", "-destination", "db")
    assert ended.code == 69


async def test_help() -> None:
    ended = await sidecar("explain", "-help")
    assert ended.code == 0
    assert "-running" in ended.out


async def test_the_running_agent(nursery: trio.Nursery, tmp_path: Path) -> None:
    admin = f"unix:{tmp_path}/admin.sock"
    life = public_life(nursery, admin_bind=[admin], narrow=["api@dc9"])
    life.bench.well()
    life.bench.consul.replace(MATCH)
    rule = {"SourceName": "api", "DestinationName": "web", "Action": "allow"}
    life.bench.consul.answer(MATCH, {"web": [rule]}, index=7, policy="deny")
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        ask = ("explain", "-running", "-admin-bind", admin, "-source")
        allowed = await sidecar(*ask, "api@dc9")
        denied = await sidecar(*ask, "api@dc1", "-destination", "web@dc1")
        other = await sidecar(*ask, "api", "-destination", "db")
        life.cycle.drain("the test")
    assert (allowed.code, denied.code, other.code) == (0, 1, 64)
    assert "allowed: api@dc9 => web@dc1" in allowed.out
    assert "replica     1 rules as this agent has them, confirmed " in allowed.out
    assert "reason      narrowed_by_datacenter" in denied.out
    assert "this is the sidecar of web@dc1" in other.err


async def test_the_connection_log_says_it_in_the_same_words(nursery: trio.Nursery, tmp_path: Path) -> None:
    admin, app = f"unix:{tmp_path}/admin.sock", App()
    nursery.start_soon(app.serve)
    life = public_life(nursery, service_addr=app.address, admin_bind=[admin], connection_log="true")
    root = life.bench.well(root=Issuer.root(now=datetime.now(UTC)))
    life.bench.consul.replace(MATCH)
    narrowed = {"SourceName": "far", "Action": "allow", "Meta": {"source-datacenters": "dc9"}}
    decided: list[dict[str, Any]] = [{"SourceName": "good", "Action": "allow"}]
    decided += [{"SourceName": "bad", "Action": "deny"}, narrowed]
    match = [{**rule, "DestinationName": "web"} for rule in decided]
    life.bench.consul.answer(MATCH, {"web": match}, index=7, policy="deny")

    def ended(count: int) -> bool:
        return len(life.bench.data.ledger.recent()) == count

    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        for number, name in enumerate(("good", "bad", "far", "nobody"), start=1):
            caller = Caller(root, name)
            await caller.connect(life.address())
            assert await caller.say(b"x") == (b"x" if name == "good" else b"")
            caller.close()
            await life.until(partial(ended, number))
            page = (await sidecar("explain", "-running", "-admin-bind", admin, "-source", f"{name}@dc1")).out
            (rule,) = re.findall(r"^rule +(.*)$", page, re.MULTILINE)
            (reason,) = re.findall(r"^reason +(.*)$", page, re.MULTILINE)
            line = next(line for line in reversed(life.bench.log) if f"/svc/{name} " in line)
            assert f'rule="{rule}"' in line
            assert name == "good" or f"reason={reason} " in line
        life.cycle.drain("the test")


async def explained(
    monkeypatch: pytest.MonkeyPatch, consul: FakeConsul, nursery: trio.Nursery, status: dict[str, Any] | None
) -> str:
    """The line of `travel`; `status`: of the agent beside, if there is one."""

    async def status_of(_address: object) -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        if status is None:
            raise Exit(ExitCode.UNAVAILABLE, "no agent answers")
        return status

    monkeypatch.setattr(explain_module, "status_of", status_of)
    ask = Inquiry(source="web", destination="db@dc2")
    _, text = await ask_consul(ask, settings(http_addr=await consul.listen(nursery)))
    (line,) = [line for line in text.splitlines() if line.startswith("travel ")]
    return line.removeprefix("travel").strip()


async def test_how_the_call_travels_is_what_the_sources_agent_says(
    monkeypatch: pytest.MonkeyPatch, consul: FakeConsul, nursery: trio.Nursery
) -> None:
    offer = {"DestinationServiceName": "db", "Config": {"connect_sidecar_tunnel": True}}
    consul.answer("/v1/health/connect/db", [instance(1, Proxy=offer), instance(2)])
    offered = "1 of 2 instances offer tunnels; the caller's setting `tunnel` decides"
    assert await explained(monkeypatch, consul, nursery, None) == offered
    ends = [{"travel_says": "in a tunnel"}, {"travel_says": ""}]
    rows = [{"upstream": "db@dc2", "targets": [{"endpoints": ends}]}]
    web = {"placement": {"service": "web"}, "upstreams": rows}
    assert await explained(monkeypatch, consul, nursery, web) == "in a tunnel, to 1 of 2 instances"
    other = {**web, "placement": {"service": "other"}}
    assert await explained(monkeypatch, consul, nursery, other) == offered
    consul.replace("/v1/health/connect/db")
    consul.answer("/v1/health/connect/db", text="Permission denied", status=403)
    line = await explained(monkeypatch, consul, nursery, None)
    assert line.startswith("not known whether it offers tunnels: ")


def told(*words: str) -> tuple[int, str, str]:
    """The command in this process."""
    console = Console(words=words, environ={}, out=io.StringIO(), err=io.StringIO())
    code = main("explain", console)
    assert isinstance(console.out, io.StringIO)
    assert isinstance(console.err, io.StringIO)
    return code, console.out.getvalue(), console.err.getvalue()


def test_before_anybody_is_asked() -> None:
    assert told("-help")[0] == 0
    assert told("-source", "web")[0] == 64
    assert told("-sorce", "web")[0] == 64
    assert told("-source", "web", "-destination", "db", "-http-addr", "127.0.0.1:1")[0] == 69
    assert told("-source", "web", "-running", "-admin-bind", "unix:/nowhere/x")[0] == 69


@pytest.mark.parametrize("policy", ["allow", "deny"])
async def test_what_consul_says(consul: FakeConsul, nursery: trio.Nursery, policy: str) -> None:
    at = await consul.listen(nursery)
    consul.replace(MATCH)
    consul.answer(MATCH, {"db": None}, index=7, policy=policy)
    consul.answer(AUTHORIZE, BY_DEFAULT)
    allowed, page = await ask_consul(Inquiry(source="web", destination="db"), settings(http_addr=at))
    assert allowed is (policy == "allow")
    assert f"default     {policy}, X-Consul-Default-Acl-Policy of" in page
    assert ("authorize allows: Default behavior" in page) is (policy == "allow")
    assert len(consul.questions(AUTHORIZE)) == (policy == "allow")


@pytest.mark.parametrize(
    ("answer", "reason", "row"),
    [
        (
            {"value": {"Authorized": False, "Reason": "Default intention policy"}},
            "default_deny",
            "default     deny, X-Consul-Default-Acl-Policy of",
        ),
        ({"text": "Permission denied", "status": 403}, "default_unknown", "authorize does not tell: "),
        ({"text": "[]"}, "default_unknown", "authorize does not tell: "),
        (
            {"value": {"Authorized": True, "Reason": "Matched L4 intention: */* => default/db"}},
            "default_unknown",
            "intention_matched",
        ),
    ],
)
async def test_the_stricter_of_header_and_authorize_holds(
    consul: FakeConsul, nursery: trio.Nursery, answer: dict[str, Any], reason: str, row: str
) -> None:
    at = await consul.listen(nursery)
    consul.replace(MATCH)
    consul.answer(MATCH, {"db": None}, index=7, policy="allow")
    consul.answer(AUTHORIZE, **answer)
    allowed, page = await ask_consul(Inquiry(source="web", destination="db"), settings(http_addr=at))
    assert not allowed
    assert f"reason      {reason}\n" in page
    assert row in page


async def test_an_intention_that_is_not_understood_is_shown(
    consul: FakeConsul, nursery: trio.Nursery
) -> None:
    at = await consul.listen(nursery)
    consul.replace(MATCH)
    rule = {"SourceName": "web", "DestinationName": "DB", "Action": "allow", "Conditions": [1]}
    consul.answer(MATCH, {"db": [rule]}, index=7, policy="deny")
    allowed, page = await ask_consul(Inquiry(source="web", destination="db"), settings(http_addr=at))
    assert not allowed
    assert "reason      unsupported_intention\n" in page
    assert "not understood: unknown fields 'Conditions'" in page


async def test_a_default_that_nobody_tells_denies(consul: FakeConsul, nursery: trio.Nursery) -> None:
    at = await consul.listen(nursery)
    consul.replace(MATCH)
    consul.answer(MATCH, {"db": None}, index=7, policy="")
    allowed, page = await ask_consul(Inquiry(source="web", destination="db"), settings(http_addr=at))
    assert not allowed
    assert "tells none (before 1.9)" in page


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"text": "Permission denied", "status": 403}, ExitCode.PERMISSION),
        ({"text": "No cluster leader", "status": 500}, ExitCode.UNAVAILABLE),
        ({"text": "no", "status": 404}, ExitCode.CONFIGURATION),
        ({"value": {"db": [{"SourceName": 7}]}}, ExitCode.CONFIGURATION),
    ],
)
async def test_consul_says_nothing_of_use(
    consul: FakeConsul, nursery: trio.Nursery, answer: dict[str, Any], code: ExitCode
) -> None:
    at = await consul.listen(nursery)
    consul.replace(MATCH)
    consul.answer(MATCH, **answer)
    with pytest.raises(Exit) as raised:
        await ask_consul(Inquiry(source="web", destination="db"), settings(http_addr=at))
    assert raised.value.code is code


async def test_what_the_agent_says(nursery: trio.Nursery) -> None:
    life = public_life(nursery)
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        where = settings(admin_bind=life.bench.agent.admin_addresses[0].removeprefix("http://"))
        allowed, page = await ask_agent(Inquiry(source="api@dc2"), where)
        with pytest.raises(Exit, match="the agent answered 400: this is the sidecar of web@dc1") as raised:
            await ask_agent(Inquiry(source="api", destination="db"), where)
        life.cycle.drain("the test")
    assert allowed
    assert page.startswith("allowed: api@dc2 => web@dc1\n")
    assert raised.value.code is ExitCode.USAGE
