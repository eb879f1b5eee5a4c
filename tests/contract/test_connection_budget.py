"""Many sidecars on one address, and one with many upstreams, beside the default limit of 200 connections.

The control planes run in this process, each with connections of its own; a datacenter is another one.
`--log-cli-level=INFO` shows figures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial
from time import monotonic

import pytest
import trio

from agent.control.plane import ControlPlane
from tests.contract.alone import alone
from tests.contract.client import Api
from tests.contract.conftest import KINDS
from tests.contract.planes import ready, registered, sidecar, until
from upstreams.spec import ServiceDestination

figures = logging.getLogger("contract.figures")

SIDECARS, UPSTREAMS, MANY = 60, 8, 1000
LIMIT = 200


@pytest.fixture(scope="module", params=KINDS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with alone(request.param, "allow", tmp_path_factory.mktemp(f"budget-{request.param}")) as started:
        yield started


def failures(planes: list[ControlPlane]) -> dict[str, int]:
    found: dict[str, int] = {}
    for plane in planes:
        for status in plane.statuses():
            for reason, count in status.failures.items():
                found[reason] = found.get(reason, 0) + count
    return found


def test_sixty_sidecars_of_one_address_are_ready_and_leave_room_for_others(api: Api) -> None:
    for number in range(SIDECARS):
        registered(api, f"web{number}", UPSTREAMS)

    async def story() -> None:
        planes: list[ControlPlane] = []
        async with trio.open_nursery() as nursery:

            async def one(number: int) -> None:
                async with sidecar(api, f"web{number}", api.token) as plane:
                    planes.append(plane)
                    await trio.sleep_forever()

            began = monotonic()
            for number in range(SIDECARS):
                nursery.start_soon(one, number)
            await until(lambda: len(planes) == SIDECARS and all(map(ready, planes)), 60)
            took = monotonic() - began
            await until(lambda: all(plane.budget.connections == 3 for plane in planes), 120)
            await trio.sleep(12)
            open_now = api.connections()
            asked = await trio.to_thread.run_sync(api.get, "/v1/agent/services")
            figures.info(
                "%d sidecars of %d upstreams: ready after %.1f s, %d connections at rest, failures %s",
                *(SIDECARS, UPSTREAMS, took, open_now, failures(planes)),
            )
            assert asked.status == 200
            assert open_now <= 3 * SIDECARS + 10 < LIMIT  # one more waits for no shared connection
            await sees_a_change(api, planes[0], "u3")
            nursery.cancel_scope.cancel()

    trio.run(story)


async def sees_a_change(api: Api, plane: ControlPlane, name: str) -> None:
    """Register an instance and wait for it within the seconds that the sidecar states."""
    bound = plane.budget.turn_seconds
    source = plane.endpoints.source(ServiceDestination(name), None)
    service = {"Name": name, "ID": f"{name}-1", "Port": 80, "Connect": {"Native": True}}
    put = partial(api.put, "/v1/agent/service/register", service)
    assert (await trio.to_thread.run_sync(put)).status == 200
    took = await until(lambda: bool(source.endpoints.value and source.endpoints.value.endpoints), bound + 3)
    figures.info("a change was seen after %.1f s, %.1f are stated", took, bound)
    assert took <= bound + 1  # an agent tells its servers a moment later
    api.put(f"/v1/agent/service/deregister/{name}-1")


def test_a_sidecar_alone_hears_of_a_change_at_once(api: Api) -> None:
    registered(api, "narrow", UPSTREAMS)

    async def story() -> None:
        async with sidecar(api, "narrow", api.token) as plane:
            await until(lambda: ready(plane) and not plane.budget.in_turn, 30)
            assert plane.budget.turn_seconds == 0
            await sees_a_change(api, plane, "u4")
            assert api.connections() <= plane.budget.connections
            assert not failures([plane])

    trio.run(story)


def test_a_thousand_upstreams_of_one_sidecar_are_known_within_ten_seconds(api: Api) -> None:
    registered(api, "wide", MANY)

    async def story() -> None:
        began = monotonic()
        async with sidecar(api, "wide", api.token) as plane:
            await until(lambda: ready(plane), 30)
            took = monotonic() - began
            figures.info("%d upstreams: ready after %.1f s, failures %s", MANY, took, failures([plane]))
            assert not failures([plane])
            assert plane.budget.held + plane.budget.in_turn == MANY + 4
            hurried = next(one for one in plane.endpoints.known().values() if one.is_polled())
            version = hurried.status.answers
            hurried.ask_again()
            await until(lambda: hurried.status.answers > version, 1)

    trio.run(story)
