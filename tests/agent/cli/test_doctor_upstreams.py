"""What doctor finds behind an upstream: real handshakes with a scripted Consul's instances."""

from __future__ import annotations

import re
import socket

import pytest
import trio

from agent.base.exits import ExitCode
from agent.cli.doctor_upstreams import Journey, look_at_instance, look_at_upstream
from agent.cli.findings import Finding, State
from agent.net.handshake import HandshakeFailed, server_handshake
from agent.relay.close import reset
from certs.contexts import Contexts
from tests.certs.authority import Issuer
from tests.support.agent_in_process import wall
from tests.support.agent_parts import registration
from tests.support.fake_consul import FakeConsul
from tests.support.socket_pairs import contexts_of, listener
from upstreams.spec import LocalBind, ServiceDestination, Upstream, WanMode

HEALTH = "/v1/health/connect/db"
UPSTREAM = Upstream(destination=ServiceDestination("db"), bind=LocalBind("127.0.0.1", 9191))


def instance(port: int, name: str = "db", status: str = "passing", **service: object) -> dict[str, object]:
    return {
        "Node": {"Node": "n1", "Datacenter": "dc1", "Address": "127.0.0.1"},
        "Service": {
            "ID": f"db-proxy-{port}",
            "Service": "db-proxy",
            "Kind": "connect-proxy",
            "Address": "127.0.0.1",
            "Port": port,
            "Proxy": {"DestinationServiceName": name},
            **service,
        },
        "Checks": [{"Status": status}],
    }


class Far:
    """The sidecar of db: shakes hands, then waits or refuses."""

    def __init__(self, root: Issuer, nursery: trio.Nursery, *, refuses: bool = False) -> None:
        self._contexts = contexts_of(root.leaf(service="db"), root)
        self._refuses = refuses
        self._sock = listener()
        self.port: int = self._sock.getsockname()[1]
        nursery.start_soon(self._serve)

    async def _serve(self) -> None:
        with self._sock:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                sock, _ = self._sock.accept()
                sock.setblocking(False)
                await self._answer(sock)

    async def _answer(self, sock: socket.socket) -> None:
        try:
            await server_handshake(sock, lambda: self._contexts.server, 5.0)
            if not self._refuses:
                await trio.lowlevel.wait_readable(sock)
        except HandshakeFailed:
            pass  # who asked has seen it too
        finally:
            reset(sock)


@pytest.fixture
def root() -> Issuer:
    return Issuer.root()


async def look(
    nursery: trio.Nursery, contexts: Contexts | None, *instances: object, upstream: Upstream = UPSTREAM
) -> list[Finding]:
    consul = FakeConsul()
    consul.answer(HEALTH, list(instances))
    journey = Journey(
        consul=consul.client(nursery), datacenter="dc1", wan=WanMode.AUTO, contexts=contexts, clock=wall
    )
    with trio.fail_after(20):
        return list(await look_at_upstream(upstream, journey))


async def test_who_must_answer_does(nursery: trio.Nursery, root: Issuer) -> None:
    far = Far(root, nursery)
    told = await look(nursery, contexts_of(root.leaf(), root), instance(far.port))
    assert [one.state for one in told] == [State.SKIP, State.OK]
    said = (
        rf"address: 127\.0\.0\.1:{far.port} \(local_service_address\) of db-proxy-.*; tls: TLSv1\.3, .* ms; "
    )
    assert re.fullmatch(f"{said}identity: db of dc1, as expected", told[1].found)


async def test_another_answers(nursery: trio.Nursery, root: Issuer) -> None:
    far = Far(root, nursery)
    told = await look(nursery, contexts_of(root.leaf(), root), instance(far.port, name="cache"))
    assert (told[1].state, told[1].code) == (State.FAIL, ExitCode.CONFIGURATION)
    assert "wrong_identity" in told[1].found


async def test_refused_after_the_handshake(nursery: trio.Nursery, root: Issuer) -> None:
    far = Far(root, nursery, refuses=True)
    told = await look(nursery, contexts_of(root.leaf(), root), instance(far.port))
    assert (told[1].state, told[1].code) == (State.FAIL, ExitCode.FAR_SIDE)
    assert told[1].found.startswith("far app: its sidecar broke off after the handshake")
    assert "intention: which intention it was, if any, is not known" in told[1].found


async def test_not_trusted(nursery: trio.Nursery, root: Issuer) -> None:
    far, other = Far(Issuer.root(), nursery), root
    told = await look(nursery, contexts_of(other.leaf(), other), instance(far.port))
    assert (told[1].state, told[1].code) == (State.FAIL, ExitCode.FAR_SIDE)
    assert "untrusted_chain" in told[1].found


async def test_one_of_two_is_enough(nursery: trio.Nursery, root: Issuer) -> None:
    far = Far(root, nursery)
    told = await look(nursery, contexts_of(root.leaf(), root), instance(far.port), instance(1))
    assert sorted(one.state for one in told) == [State.OK, State.SKIP, State.WARN]


async def test_nobody_listens(nursery: trio.Nursery, root: Issuer) -> None:
    told = await look(nursery, contexts_of(root.leaf(), root), *(instance(port) for port in range(1, 6)))
    assert [one.state for one in told] == [State.SKIP, *[State.FAIL] * 3]
    assert {one.code for one in told[1:]} == {ExitCode.FAR_SIDE}


async def test_there_is_no_instance(nursery: trio.Nursery) -> None:
    for instances in ((), (instance(1, status="critical"),)):
        (told,) = await look(nursery, None, *instances)
        assert (told.state, told.code) == (State.FAIL, ExitCode.FAR_SIDE)
        assert "0 passing or warning" in told.found


async def test_an_odd_address_and_no_leaf(nursery: trio.Nursery) -> None:
    afar = instance(2, Address="10.0.0.9") | {
        "Node": {"Node": "n2", "Datacenter": "dc2", "Address": "10.0.0.9"}
    }
    told = await look(nursery, None, afar)
    assert [one.state for one in told] == [State.SKIP, State.WARN, State.SKIP]
    assert told[1].found.startswith("private_address: 10.0.0.9:2")


async def test_a_pair_that_others_would_mix_is_no_warning(nursery: trio.Nursery) -> None:
    tagged = {"lan": {"Address": "127.0.0.1", "Port": 1}, "wan": {"Address": "192.0.2.1", "Port": 2}}
    told = await look(nursery, None, instance(2, TaggedAddresses=tagged))
    assert [one.state for one in told] == [State.SKIP, State.SKIP]


async def test_the_lookup_is_refused(nursery: trio.Nursery) -> None:
    consul = FakeConsul()
    consul.answer(HEALTH, text="Permission denied", status=403)
    journey = Journey(
        consul=consul.client(nursery), datacenter="dc1", wan=WanMode.AUTO, contexts=None, clock=wall
    )
    (told,) = await look_at_upstream(UPSTREAM, journey)
    assert told.code is ExitCode.PERMISSION
    assert 'service "db" { policy = "read" }' in told.remedy


OWN = {"Node": {"Node": "n1"}, "Service": {"ID": "web-sidecar-proxy"}}


@pytest.mark.parametrize(
    ("checks", "state", "found"),
    [
        ([{"Status": "passing"}, {"Status": "warning"}], State.OK, "no check of it is critical"),
        (
            [{"Status": "critical", "Name": "door", "CheckID": "x", "Output": "connection refused"}],
            State.FAIL,
            "a check is critical: door: connection refused",
        ),
        (
            [{"Status": "critical", "CheckID": "_service_maintenance:web", "Notes": "an upgrade"}],
            State.FAIL,
            "in maintenance (an upgrade)",
        ),
    ],
)
async def test_our_own_instance_as_callers_find_it(
    nursery: trio.Nursery, checks: list[object], state: State, found: str
) -> None:
    consul = FakeConsul()
    consul.answer("/v1/health/connect/web", [{**OWN, "Checks": checks}])
    (told,) = await look_at_instance(registration(), "dc1", consul.client(nursery))
    assert (told.state, found in told.found) == (state, True), told


async def test_an_instance_that_is_not_listed(nursery: trio.Nursery) -> None:
    consul = FakeConsul()
    nothing: list[object] = []
    for answer, state in ((nothing, State.FAIL), ([{"Service": {}}], State.SKIP)):
        consul.replace("/v1/health/connect/web")
        consul.answer("/v1/health/connect/web", answer)
        (told,) = await look_at_instance(registration(), "dc1", consul.client(nursery))
        assert told.state is state
        assert told.state is State.SKIP or 'the token needs node_prefix ""' in told.remedy
    assert not await look_at_instance(registration(public_bind=None), "dc1", consul.client(nursery))
