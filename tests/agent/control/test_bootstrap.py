"""The first questions: who we are, and the clear end when that cannot be (virtual time, scripted Consul)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from agent.base.exits import Exit, ExitCode
from agent.consul.api import ConsulError, ConsulReason
from agent.control.bootstrap import Start, raise_if_fatal
from tests.support.agent_parts import (
    PROXY,
    SERVICE,
    SERVICES,
    AgentBench,
    agent_bench,
    proxy_answer,
    settings,
)
from tests.support.fake_consul import Scripted


def start(bench: AgentBench) -> Start:
    return Start(
        consul=bench.control.consul,
        settings=bench.control.settings,
        rng=bench.control.rng,
        on_failure=bench.agent.log.watch_failed,
        status=bench.control.start_status,
        clock=bench.control.clock,
    )


async def test_a_proxy_id_is_taken_as_it_is(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery, settings(proxy_id="mine"))
    assert await start(bench).proxy_id() == "mine"
    assert not bench.consul.asked


async def test_a_service_id_leads_to_its_sidecar(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.well()
    beginning = start(bench)
    assert await beginning.proxy_id() == PROXY
    registration = await beginning.registration(PROXY)
    assert (registration.service, registration.datacenter) == ("web", "dc1")


async def test_an_agent_that_is_not_there_yet_is_asked_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.consul.down = True
    found: list[str] = []

    async def look() -> None:
        found.append(await start(bench).proxy_id())

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        await trio.sleep(30)
        assert bench.control.start_status.failures_in_row > 3
        bench.consul.down = False
    assert found == [PROXY]
    assert bench.events().count("watch.failed") >= 1


async def ends(bench: AgentBench, code: ExitCode, *parts_of_text: str) -> None:
    with pytest.raises(Exit) as caught:
        await start(bench).proxy_id()
    assert caught.value.code is code
    for text in parts_of_text:
        assert text in caught.value.message


async def test_a_list_a_denied_token_sees_empty_is_told_from_no_sidecar(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICE, text="Permission denied", status=403)
    await ends(bench, ExitCode.PERMISSION, "no token is set")
    bench.consul.replace(SERVICE)
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    await ends(bench, ExitCode.CONFIGURATION, "knows no sidecar for the service id 'web'")


async def test_a_sidecar_that_may_be_read_but_not_listed_is_found_by_its_usual_id(
    nursery: trio.Nursery,
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    assert await start(bench).proxy_id() == PROXY


@pytest.mark.parametrize("answer", [proxy_answer(service="other"), {"ID": PROXY, "Kind": ""}])
async def test_something_else_under_the_usual_id_is_not_ours(
    nursery: trio.Nursery, answer: dict[str, object]
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICE, answer, content_hash="h1")
    await ends(bench, ExitCode.CONFIGURATION, "knows no sidecar")


async def test_a_server_without_the_path_is_not_consul(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, text="404 page not found", status=404)
    await ends(bench, ExitCode.CONFIGURATION, "does not answer as a Consul agent does", "404 page not found")


@pytest.mark.parametrize(
    ("reason", "code"),
    [(ConsulReason.DENIED, ExitCode.PERMISSION), (ConsulReason.MALFORMED, ExitCode.CONFIGURATION)],
)
def test_what_no_waiting_mends(reason: ConsulReason, code: ExitCode) -> None:
    with pytest.raises(Exit) as caught:
        raise_if_fatal(ConsulError(reason, "/v1/x", "no", status=400), settings())
    assert caught.value.code is code


@pytest.mark.parametrize(
    "reason", [ConsulReason.UNAVAILABLE, ConsulReason.RATE_LIMITED, ConsulReason.NOT_FOUND]
)
def test_what_waiting_may_mend(reason: ConsulReason) -> None:
    raise_if_fatal(ConsulError(reason, "/v1/x", "no", status=500), settings())


def test_a_token_that_was_given_is_not_told_to_be_missing() -> None:
    with pytest.raises(Exit, match="the token needs service:write"):
        raise_if_fatal(ConsulError(ConsulReason.DENIED, "/x", "no", status=403), settings(token="s3cret"))


async def test_what_another_service_registers_does_not_keep_us_from_starting(nursery: trio.Nursery) -> None:
    """Nested deeper than anybody can read, it is in the list of all services, and in no list of our own."""
    bench = agent_bench(nursery)
    listed = {PROXY: {"ID": PROXY, "Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "web"}}}
    bench.consul.answer(SERVICES, listed)
    bench.consul.say(SERVICES, Scripted(body=b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"))
    assert await start(bench).proxy_id() == PROXY
    (asked,) = bench.consul.questions(SERVICES)
    assert asked.query["filter"] == 'Kind == "connect-proxy" and Proxy.DestinationServiceID == "web"'


async def test_nor_does_a_list_that_cannot_be_read(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.say(SERVICES, Scripted(body=b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}"))
    bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
    began = start(bench)
    assert await began.proxy_id() == PROXY
    assert began.status.failures == {"malformed": 1}


async def test_an_id_in_another_case_is_found_among_all_services(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    listed = {"Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "Web"}}
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICES, {"Web-x": {"ID": "Web-x", **listed}})
    assert await start(bench).proxy_id() == "Web-x"


async def test_several_sidecars_of_one_service(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    listed = {"Kind": "connect-proxy", "Proxy": {"DestinationServiceID": "web"}}
    bench.consul.answer(SERVICES, {name: {"ID": name, **listed} for name in ("a-proxy", "b-proxy")})
    await ends(bench, ExitCode.CONFIGURATION, "has 2 sidecars: a-proxy, b-proxy; choose one with -proxy-id")


async def test_an_unknown_proxy_id(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, text=f"unknown service ID: {PROXY}", status=404)
    with pytest.raises(Exit, match="knows no service with the id 'web-sidecar-proxy'") as caught:
        await start(bench).registration(PROXY)
    assert caught.value.code is ExitCode.CONFIGURATION


@pytest.mark.parametrize("extra", [{"Kind": "", "Proxy": None}, {"Proxy": {"DestinationServiceName": ""}}])
async def test_a_registration_that_is_none_of_a_proxy(
    nursery: trio.Nursery, extra: dict[str, object]
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, proxy_answer(**extra), content_hash="h1")  # type: ignore[arg-type]
    with pytest.raises(Exit, match="the registration of 'web-sidecar-proxy' cannot be served") as caught:
        await start(bench).registration(PROXY)
    assert caught.value.code is ExitCode.CONFIGURATION
