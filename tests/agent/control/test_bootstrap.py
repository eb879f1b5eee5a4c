"""The first questions: who we are, and why that is not known yet (virtual time, scripted Consul)."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from agent.config.registration import Registration
from agent.config.settings import Settings
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.watch import NEARBY_CEILING, AnswerRejected
from agent.control.bootstrap import Start, token_remedy
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
    registration = await beginning.registration()
    assert (registration.service, registration.datacenter) == ("web", "dc1")


async def test_an_agent_that_is_not_there_yet_is_asked_again(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.well()
    bench.consul.down = True
    found: list[str] = []

    async def look() -> None:
        found.append((await start(bench).registration()).proxy_id)

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        await trio.sleep(30)
        assert bench.control.start_status.failures_in_row > 3
        bench.consul.down = False
    assert found == [PROXY]
    assert bench.events().count("watch.failed") >= 1


@pytest.mark.parametrize(
    ("refusal", "shown"),
    [
        ({"text": "ACL not found", "status": 403}, "answered 403: ACL not found"),
        ({"text": "Permission denied", "status": 403}, "answered 403: Permission denied"),
        ({"text": f"unknown service ID: {PROXY}", "status": 404}, f"knows no service with the id '{PROXY}'"),
        ({"text": "404 page not found", "status": 400}, "does not answer as a Consul agent does"),
        ({"value": proxy_answer(service="")}, "no_destination"),
    ],
)
async def test_whatever_consul_refuses_at_first_is_waited_out_with_its_reason(
    nursery: trio.Nursery, autojump_clock: MockClock, refusal: dict[str, Any], shown: str
) -> None:
    bench = agent_bench(nursery, settings(proxy_id=PROXY))
    bench.consul.answer(SERVICE, **refusal)
    beginning, found = start(bench), list[Registration]()

    async def look() -> None:
        found.append(await beginning.registration())

    async with trio.open_nursery() as looking:
        looking.start_soon(look)
        await trio.sleep(30)
        assert not found
        assert shown in str(beginning.status.failing)
        bench.consul.replace(SERVICE)
        bench.consul.answer(SERVICE, proxy_answer(), content_hash="h1")
        with trio.fail_after(NEARBY_CEILING):
            while not found:  # noqa: ASYNC110 - in virtual time
                await trio.sleep(0.1)
    assert found[0].service == "web"


async def test_a_service_that_is_registered_later_is_found_by_its_id(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    nursery.start_soon(register_later, bench)
    with trio.fail_after(10 + NEARBY_CEILING):
        assert (await start(bench).registration()).proxy_id == PROXY


async def register_later(bench: AgentBench) -> None:
    await trio.sleep(10)
    bench.well()


async def test_a_list_a_denied_token_sees_empty_is_told_from_no_sidecar(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, {})
    bench.consul.answer(SERVICE, text="Permission denied", status=403)
    with pytest.raises(ConsulError) as denied:
        await start(bench).proxy_id()
    assert denied.value.reason is ConsulReason.DENIED
    bench.consul.replace(SERVICE)
    bench.consul.answer(SERVICE, text="unknown service ID", status=404)
    with pytest.raises(AnswerRejected, match="knows no sidecar for the service id 'web'"):
        await start(bench).proxy_id()


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
    with pytest.raises(AnswerRejected, match="knows no sidecar"):
        await start(bench).proxy_id()


async def test_a_server_without_the_path_is_not_consul(nursery: trio.Nursery) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICES, text="404 page not found", status=404)
    with pytest.raises(ConsulError, match="does not answer as a Consul agent does: 404 page not found"):
        await start(bench).proxy_id()


@pytest.mark.parametrize(
    ("told", "remedy"),
    [(settings(), "no token is given"), (settings(token="s3cret"), "the token lacks")],
)
def test_what_to_do_about_a_refusal(told: Settings, remedy: str) -> None:
    error = ConsulError(ConsulReason.DENIED, "/v1/agent/connect/ca/leaf/web", "Permission denied", status=403)
    assert token_remedy(told, error).startswith(remedy)
    assert 'service "web" { policy = "write" }' in token_remedy(told, error)


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
    with pytest.raises(AnswerRejected, match="has 2 sidecars: a-proxy, b-proxy; choose one with -proxy-id"):
        await start(bench).proxy_id()


@pytest.mark.parametrize("extra", [{"Kind": "", "Proxy": None}, {"Proxy": {"DestinationServiceName": ""}}])
async def test_a_registration_that_is_none_of_a_proxy(
    nursery: trio.Nursery, extra: dict[str, object]
) -> None:
    bench = agent_bench(nursery)
    bench.consul.answer(SERVICE, proxy_answer(**extra), content_hash="h1")  # type: ignore[arg-type]
    with pytest.raises(AnswerRejected):
        await start(bench).registration_of(PROXY)
