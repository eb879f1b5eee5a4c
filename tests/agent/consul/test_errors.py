"""What a refusal asks of the next question."""

from __future__ import annotations

from random import Random

import pytest
import trio

from agent.consul.errors import LONGEST_RETRY, ConsulError, ConsulReason, retry_seconds
from agent.consul.watch import backoff
from tests.support.fake_consul import FakeConsul, Scripted

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
