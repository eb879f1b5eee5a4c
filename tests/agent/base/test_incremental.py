"""Long work rests: other tasks run while an answer of thousands is read, and the value is the same."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
import trio

from agent.base.incremental import Incremental, Work
from agent.consul.api import Answer, Consul, RawList
from agent.consul.watch import AnswerRejected
from agent.control.watches import endpoints_watch, read_intentions
from upstreams.answers import PIECE, parse_health
from upstreams.endpoints import EndpointSet
from upstreams.spec import ServiceDestination


def steps(rests: int, value: str = "made") -> Work[str]:
    for _ in range(rests):
        yield
    return value


def failing() -> Iterator[None]:
    yield
    raise AnswerRejected("malformed", "in the middle")


@pytest.mark.parametrize("rests", [0, 1, 7])
async def test_other_tasks_run_at_every_rest(rests: int) -> None:
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before = turns
        assert await Incremental(steps(rests)).run() == "made"
        assert rests - 1 <= turns - before <= rests + 1
        nursery.cancel_scope.cancel()


async def test_what_the_work_raises_is_raised() -> None:
    with pytest.raises(AnswerRejected, match="in the middle"):
        await Incremental(failing()).run()  # type: ignore[arg-type] # it never comes to its value


async def test_work_can_be_cancelled_at_a_rest() -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await Incremental(steps(3)).run()
    assert scope.cancelled_caught


def instance(number: int) -> dict[str, object]:
    return {
        "Node": {"Node": f"n{number:05}", "Address": "10.0.0.1", "Datacenter": "dc1"},
        "Service": {
            "ID": f"db-{number}",
            "Service": "db-sidecar-proxy",
            "Port": 21000,
            "Proxy": {"DestinationServiceName": "db"},
        },
        "Checks": [],
    }


def raw(value: object) -> RawList:
    return msgspec.json.decode(msgspec.json.encode(value), type=RawList)


class Rests:
    """A task that counts its turns beside something else."""

    def __init__(self) -> None:
        self.turns = 0

    async def run(self) -> None:
        while True:
            self.turns += 1
            await trio.lowlevel.checkpoint()


async def test_thousands_of_instances_let_others_run() -> None:
    count = 20 * PIECE
    instances = [instance(number) for number in range(count)]
    published: list[EndpointSet] = []
    beside = Rests()
    async with trio.open_nursery() as nursery:
        watch = endpoints_watch(_NOBODY, ServiceDestination("db"), published.append)
        nursery.start_soon(beside.run)
        found = watch.read(Answer(value=raw(instances)))  # type: ignore[arg-type] # of the two kinds, this one
        assert isinstance(found, Incremental)
        endpoints = await found.run()
        nursery.cancel_scope.cancel()
    assert beside.turns >= 19
    assert endpoints.endpoints == parse_health(instances).endpoints
    assert len(endpoints.endpoints) == count


async def test_thousands_of_intentions_let_others_run() -> None:
    rules = [{"SourceName": f"s{n}", "DestinationName": "db", "Action": "allow"} for n in range(2000)]
    beside = Rests()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(beside.run)
        intentions = await read_intentions("db", Answer(value=raw(rules))).run()
        nursery.cancel_scope.cancel()
    assert beside.turns >= 19
    assert {rule.source for rule in intentions.rules} == {f"s{n}" for n in range(2000)}


@pytest.mark.parametrize("place", [0, PIECE, 3 * PIECE - 1])
async def test_an_instance_of_the_wrong_shape_is_named(place: int) -> None:
    instances: list[object] = [instance(number) for number in range(3 * PIECE)]
    instances[place] = {"Node": 7}
    watch = endpoints_watch(_NOBODY, ServiceDestination("db"), lambda _: None)
    found = watch.read(Answer(value=raw(instances)))  # type: ignore[arg-type] # of the two kinds, this one
    assert isinstance(found, Incremental)
    with pytest.raises(AnswerRejected, match=rf"\$\[{place}\]\.Node"):
        await found.run()


_NOBODY = Consul(None, None)  # type: ignore[arg-type] # never asked
