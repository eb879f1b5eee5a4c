"""What a refusal asks of the next question."""

from __future__ import annotations

from random import Random

import pytest
import trio
from trio.testing import memory_stream_pair

from agent.consul.api import Blocking
from agent.consul.errors import LONGEST_RETRY, ConsulError, ConsulReason, retry_seconds
from agent.consul.http import Client, Request
from agent.consul.watch import backoff
from tests.support.fake_consul import FakeConsul, Scripted
from upstreams.spec import ServiceDestination

HEALTH = "/v1/health/connect/db"

AT = "Sun, 06 Nov 2033 08:49:37 GMT"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "99999999999999999999"}, LONGEST_RETRY),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 06 Nov 2033 08:49:57 GMT", "date": AT}, 20.0),
        ({"retry-after": "Sun, 06 Nov 2033 08:49:07 GMT", "date": AT}, 0.0),
        ({"retry-after": AT}, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(said: dict[str, str], seconds: float | None) -> None:
    assert retry_seconds(said) == seconds


async def test_the_next_question_comes_no_sooner_than_consul_asks(nursery: trio.Nursery) -> None:
    consul = FakeConsul()
    consul.say(
        "/v1/agent/connect/ca/roots", Scripted(status=429, body=b"slow down", headers={"Retry-After": "20"})
    )
    with pytest.raises(ConsulError) as refused:
        await consul.client(nursery).roots()
    assert refused.value.reason is ConsulReason.RATE_LIMITED
    rests = [backoff(failures, refused.value, Random(seed)) for failures in (1, 9) for seed in range(20)]
    assert min(rests) >= 20
    assert max(rests) <= 60


async def test_an_answer_that_came_before_the_request_could_be_sent_is_read(nursery: trio.Nursery) -> None:
    refusal = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfull"
    ours, theirs = memory_stream_pair()
    await theirs.send_all(refusal)
    await theirs.send_eof()
    await trio.aclose_forcefully(theirs.receive_stream)  # sending breaks

    async def dial() -> trio.abc.Stream:
        return ours

    response = await Client(dial, host="consul").exchange(Request(method="GET", target="/"), 5)
    assert (response.status, response.body) == (429, b"full")


@pytest.mark.parametrize(("age", "usable"), [("0", True), ("10", True), ("11", False), ("much", True)])
async def test_a_cache_that_has_lost_its_servers_is_no_answer(
    nursery: trio.Nursery, age: str, usable: bool
) -> None:
    scripted = FakeConsul()
    scripted.say(HEALTH, Scripted(body=b"[]", headers={"Age": age}))
    consul, cached = scripted.client(nursery), Blocking(cached=True)
    assert (await consul.endpoints(ServiceDestination("db"))).value == []  # the age is that of a cache alone
    if usable:
        assert (await consul.endpoints(ServiceDestination("db"), cached)).value == []
    else:
        with pytest.raises(ConsulError, match="not heard from its servers for 11 s") as refusal:
            await consul.endpoints(ServiceDestination("db"), cached)
        assert refusal.value.reason is ConsulReason.UNAVAILABLE
    assert [asked.query.get("cached") for asked in scripted.asked] == [None, ""]
    await consul.endpoints(ServiceDestination("db", near="a"), cached)
    assert "cached" not in scripted.asked[-1].query
