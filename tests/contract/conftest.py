"""One federation of each kind for the whole suite; every test takes service names nobody else uses.

Each case runs against two embedded datacenters always, and against a real Consul of two datacenters when
there is one: `CONSUL_BIN`, or `consul` on PATH.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.contract.client import Api
from tests.contract.federation import Federation, consul_binary, running

_numbers = itertools.count(1)


# Without a real Consul its half is left out here, and test_real_consul.py says so, once and visibly.
KINDS = ["embedded", *([pytest.param("consul", marks=pytest.mark.consul)] if consul_binary() else [])]


@pytest.fixture(scope="session", params=KINDS)
def federation(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Federation]:
    """Two datacenters with nothing in them."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture
def dc1(federation: Federation) -> Api:
    """The primary."""
    return federation.dc1


@pytest.fixture
def dc2(federation: Federation) -> Api:
    """The secondary."""
    return federation.dc2


@pytest.fixture
def name() -> str:
    """A service name of this test's own."""
    return f"svc{next(_numbers)}"


Register = Callable[..., str]


@pytest.fixture
def register() -> Iterator[Register]:
    """`register(api, {"Name": …})` puts a service on the agent until the end of the test; returns its ID."""
    registered: list[tuple[Api, str]] = []

    def put(api: Api, service: dict[str, object]) -> str:
        service_id = str(service.get("ID") or service["Name"])
        answer = api.put("/v1/agent/service/register", service)
        assert (answer.status, answer.text) == (200, "")
        registered.append((api, service_id))
        return service_id

    yield put
    for api, service_id in registered:
        api.put(f"/v1/agent/service/deregister/{service_id}")
