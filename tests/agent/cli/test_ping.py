"""`sidecar ping`: from the words to the first red station, beside a scripted Consul and a running agent."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
import trio

from agent.base.exits import ExitCode
from agent.cli import ping
from agent.cli.console import Console
from agent.cli.instances import Running
from agent.cli.ping import main, walk_to
from agent.config.settings import Settings
from agent.overview.stations import Light, Name, complete, exit_code, first_red
from agent.path.walk import Walk
from tests.agent.cli.test_doctor_upstreams import Far, instance
from tests.support.agent_in_process import wall
from tests.support.agent_parts import settings
from tests.support.beside_consul import PROXY, everything, proxy, unused
from tests.support.fake_consul import FakeConsul

BIND = "127.0.0.1:9191"
LISTENS: dict[str, Any] = {
    "pid": 7,
    "missing": [],
    "public": None,
    "upstreams": [{"bind": BIND, "listener": {"addresses": [BIND]}}],
}
DENY = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}


@pytest.fixture
def agent(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The status of the running agent; empty for none."""
    document = dict(LISTENS)

    async def look_at_agent(_settings: Settings, _findings: object) -> Running:
        await trio.lowlevel.checkpoint()
        return Running(document=document)

    monkeypatch.setattr(ping, "look_at_agent", look_at_agent)
    return document


class Scene:
    """A Consul with db behind it."""

    def __init__(self, nursery: trio.Nursery, *, refuses: bool = False) -> None:
        self.nursery = nursery
        self.consul = FakeConsul()
        self.consul.answer("/v1/catalog/datacenters", ["dc1"])
        root = everything(self.consul)
        self.far = Far(root, nursery, refuses=refuses)
        self.consul.answer("/v1/health/connect/db", [instance(self.far.port)])

    def tell(self, path: str, *answer: Any, **more: Any) -> None:
        """Answer so from now on."""
        self.consul.replace(path)
        self.consul.answer(path, *answer, **more)

    async def walk(self, name: str = "db", **more: str | list[str]) -> Walk:
        at = await self.consul.listen(self.nursery)
        given: dict[str, str | list[str]] = {"http_addr": at, "upstream": [f"db:{BIND}"], **more}
        walk = Walk(name=name)
        with trio.fail_after(30):
            await walk_to(walk, settings(**{key: value for key, value in given.items() if value}), wall)
        return walk


def cause(walk: Walk) -> Name | None:
    red = first_red(walk.passed)
    return None if red is None else red.name


@pytest.mark.parametrize("name", ["db", BIND])
async def test_every_station_is_passed(nursery: trio.Nursery, agent: Mapping[str, Any], name: str) -> None:
    walk = await Scene(nursery).walk(name)
    assert cause(walk) is None
    assert {one.light for one in complete(walk.passed)} == {Light.GREEN}
    assert (walk.who, walk.name, exit_code(walk.passed)) == ("web@dc1", "db", ExitCode.CLEAN)


async def test_a_denied_call_names_the_rule(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    scene = Scene(nursery, refuses=True)
    scene.tell("/v1/connect/intentions/match", {"web": [DENY]}, index=9)
    walk = await scene.walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.INTENTION, ExitCode.PERMISSION)
    red = first_red(walk.passed)
    assert red is not None
    assert "web => db (deny" in red.text


async def test_a_listener_of_another_upstream_that_collides_is_amber(
    nursery: trio.Nursery, agent: Mapping[str, Any]
) -> None:
    both = [
        {"DestinationName": name, "LocalBindPort": port} for name, port in (("db", 9191), ("cache", 8080))
    ]
    of_web = proxy()["Proxy"]
    assert isinstance(of_web, dict)
    scene = Scene(nursery)
    registered = proxy(Proxy={**of_web, "Upstreams": both})
    scene.tell(f"/v1/agent/service/{PROXY}", registered, content_hash="h1")
    walk = await scene.walk(upstream=[])  # those of the registration
    assert cause(walk) is None
    consul = next(one for one in walk.passed if one.name is Name.CONSUL)
    assert (consul.light, "cache" in consul.text) == (Light.AMBER, True)


async def test_another_name(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    walk = await Scene(nursery).walk("dbx")
    assert (cause(walk), exit_code(walk.passed)) == (Name.APP, ExitCode.CONFIGURATION)


async def test_no_agent_runs(nursery: trio.Nursery, agent: dict[str, Any]) -> None:
    agent.clear()
    walk = await Scene(nursery).walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.SIDECAR, ExitCode.UNAVAILABLE)


async def test_the_agent_of_another_service_runs(nursery: trio.Nursery, agent: dict[str, Any]) -> None:
    agent["upstreams"] = []
    walk = await Scene(nursery).walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.SIDECAR, ExitCode.CONFIGURATION)


async def test_an_agent_that_lacks_something_is_amber(nursery: trio.Nursery, agent: dict[str, Any]) -> None:
    agent["missing"] = ["intentions: no answer yet"]
    lights = {one.name: one.light for one in (await Scene(nursery).walk()).passed}
    assert lights[Name.SIDECAR] is Light.AMBER


async def test_consul_is_away(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    walk = await Scene(nursery).walk(http_addr=unused())
    assert (cause(walk), exit_code(walk.passed)) == (Name.CONSUL, ExitCode.UNAVAILABLE)


async def test_no_instance_passes(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    scene = Scene(nursery)
    scene.tell("/v1/health/connect/db", [instance(1, status="critical")])
    walk = await scene.walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.ADDRESS, ExitCode.FAR_SIDE)


async def test_a_vanished_instance_that_the_agent_still_uses_is_named(
    nursery: trio.Nursery, agent: dict[str, Any]
) -> None:
    kept = {"instance": "db-1 on n1 in dc1", "status": "vanished"}
    agent["upstreams"] = [{**agent["upstreams"][0], "targets": [{"endpoints": [kept]}]}]
    scene = Scene(nursery)
    scene.tell("/v1/health/connect/db", [])
    walk = await scene.walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.ADDRESS, ExitCode.FAR_SIDE)
    assert "the running agent still uses db-1 on n1 in dc1 (vanished)" in walk.passed[-1].text


async def test_when_the_running_agent_asks_for_a_tunnel_again_is_told(
    nursery: trio.Nursery, agent: dict[str, Any]
) -> None:
    scene = Scene(nursery)
    offer = {"DestinationServiceName": "db", "Config": {"connect_sidecar_tunnel": True}}
    scene.tell("/v1/health/connect/db", [instance(scene.far.port, Proxy=offer)])
    row = {"instance": f"db-proxy-{scene.far.port} on n1 in dc1", "status": "passing"}
    row |= {"travel": "no_tunnels", "travel_says": "a connection each: … asked again in 42 s"}
    agent["upstreams"] = [{**agent["upstreams"][0], "targets": [{"endpoints": [row]}]}]
    walk = await scene.walk(tunnel="auto")
    assert cause(walk) is None
    travel = next(one for one in walk.passed if one.name is Name.TRAVEL)
    assert (travel.light, travel.text) == (Light.AMBER, row["travel_says"])


async def test_the_lookup_is_refused(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    scene = Scene(nursery)
    scene.tell("/v1/health/connect/db", text="Permission denied", status=403)
    walk = await scene.walk()
    assert (cause(walk), exit_code(walk.passed)) == (Name.ADDRESS, ExitCode.PERMISSION)


async def test_one_of_two_instances_is_enough(nursery: trio.Nursery, agent: Mapping[str, Any]) -> None:
    scene = Scene(nursery)
    scene.tell("/v1/health/connect/db", [instance(1), instance(scene.far.port)])
    assert cause(await scene.walk()) is None
    scene.tell("/v1/health/connect/db", [instance(1), instance(2)])
    assert cause(await scene.walk()) is Name.TCP


def run(*words: str) -> tuple[int, str, str]:
    console = Console(words=words, environ={}, out=io.StringIO(), err=io.StringIO())
    code = main("ping", console)
    assert isinstance(console.out, io.StringIO)
    assert isinstance(console.err, io.StringIO)
    return code, console.out.getvalue(), console.err.getvalue()


def test_words() -> None:
    assert run("-help")[1].startswith("usage: sidecar ping [FLAGS] UPSTREAM")
    code, _, err = run("-sidecar-for", "web")
    assert (code, err) == (64, "sidecar: say which upstream: sidecar ping UPSTREAM\n")
    assert run("db")[0] == 64


def test_the_picture_and_its_json(agent: dict[str, Any]) -> None:
    agent.clear()
    words = ("-sidecar-for", "web", "-http-addr", unused(), "db")
    code, out, _ = run(*words)
    assert code == 69
    assert out.startswith("? to db\n\n  -     app        not reached\n  fail  sidecar    no agent answers")
    code, out, _ = run("-json", *words)
    said = json.loads(out)
    assert (code, said["exit"], len(said["stations"])) == (69, 69, 10)
