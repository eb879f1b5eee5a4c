"""Where instances are: any body of `/v1/health/connect/:name` and, behind a `q`, of a prepared query.

Refused by name, or read into endpoints of which each can be dialled or is called unreachable; decoded items
and items that are still JSON are read alike.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from random import Random

import msgspec

from agent.base.undecodable import UNDECODABLE
from agent.consul.errors import ConsulError
from tests.fuzz.answered import asked, recorded, words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Plain, Target
from upstreams.answers import MOST_WEIGHT, InvalidAnswer, parse_health, parse_query
from upstreams.choose import Chance, candidates
from upstreams.ejection import FailureMemory
from upstreams.endpoints import EndpointSet
from upstreams.reach import Unreachable, doubt, reach
from upstreams.spec import QueryDestination, ServiceDestination, WanMode


def fuzz_one(data: bytes) -> None:
    """Read it as the watch or the poll does."""
    with suppress(ConsulError, InvalidAnswer):
        if data.startswith(b"q"):
            query = QueryDestination("db")
            found = parse_query(asked(lambda consul: consul.execute(query), data[1:]).value)
            assert found.ttl is None or found.ttl > 0
        else:
            service = ServiceDestination("db")
            raw = asked(lambda consul: consul.endpoints(service), data).value
            found = parse_health(raw)
            with suppress(*UNDECODABLE):  # what is decoded whole is read where nothing looks, too
                assert found == parse_health(msgspec.json.decode(msgspec.json.encode(raw)))
        _can_be_used(found)


def _can_be_used(found: EndpointSet) -> None:
    for endpoint in found.endpoints:
        assert 0 <= endpoint.weight <= MOST_WEIGHT
        assert endpoint.expected.service
        assert endpoint.expected.datacenter
        for wan in WanMode:
            with suppress(Unreachable):
                dialling = reach(endpoint, own_datacenter="dc1", wan=wan)
                assert dialling.host
                assert 1 <= dialling.port <= 65535
                doubt(endpoint, dialling)
    memory = FailureMemory(lambda: 0.0)
    tried = list(candidates(found, memory, Chance(Random(1)), Counter()))
    assert len(tried) == sum(len(tier.endpoints) for tier in found.tiers)
    json.dumps([str(endpoint) for endpoint in found.endpoints])


_HEALTH = recorded("health-connect-*", "wan-health-*", "wanmatrix-*")
_QUERIES = [b"q" + body for body in recorded("query-execute-*")]
_CHANGE = json_with(words_of(*_HEALTH, *(body[1:] for body in _QUERIES)))


def _mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    kind = b"q" if data.startswith(b"q") else b""
    return kind + _CHANGE(data[len(kind) :], most - len(kind), rng, plain)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *_HEALTH,
        *_QUERIES,
        b"[" * 1200,
        b"null",
        b"q" + b'{"Nodes":' * 1200,
        b'[{"Node":"\xff"}]',
        b"q{}",
    ),
    mutate=_mutate,
    longest=16384,
)
