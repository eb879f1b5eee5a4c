"""The walk from an instance to its app: each fault is red at its own station, by real handshakes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from agent.base.exits import ExitCode
from agent.base.incremental import Incremental
from agent.overview.stations import Light, Name, first_red
from agent.path.walk import Trip, Walk, take
from agent.policy.deny_list import NO_ENTRIES, DenyList, parse_deny_list
from agent.policy.source_intentions import OwnIntentions, read_own_intentions, unknown_own_intentions
from certs.contexts import Contexts
from tests.agent.cli.test_doctor_upstreams import Far
from tests.certs.authority import Issuer
from tests.support.agent_in_process import wall
from tests.support.socket_pairs import contexts_of
from tests.support.two_sidecars import UPSTREAM, endpoint
from upstreams.endpoints import Endpoint, ExpectedIdentity
from upstreams.route import Candidate
from upstreams.spec import WanMode

DENY = {"SourceName": "web", "DestinationName": "db", "Action": "deny"}
ALLOW = {**DENY, "Action": "allow"}


@pytest.fixture
def root() -> Issuer:
    return Issuer.root()


def rules(*listed: object) -> OwnIntentions:
    return Incremental(read_own_intentions(listed, default_allow=False)).run_now()


async def walked(
    contexts: Contexts,
    to: Endpoint,
    known: OwnIntentions | None = None,
    wan: WanMode = WanMode.AUTO,
    deny_list: DenyList = NO_ENTRIES,
) -> Walk:
    async def own_intentions() -> OwnIntentions:
        await trio.lowlevel.checkpoint()
        return known or rules()

    trip = Trip(
        datacenter="dc1",
        wan=wan,
        contexts=contexts,
        clock=wall,
        own_intentions=own_intentions,
        deny_list=deny_list,
        upstream=UPSTREAM,
    )
    walk = Walk(name="db")
    walk.begin()
    with trio.fail_after(20):
        reached = await take(walk, Candidate(target=0, endpoint=to, hop=to), trip)
    assert reached is (first_red(walk.passed) is None)
    return walk


def at(port: int, service: str = "db") -> Endpoint:
    expected = ExpectedIdentity(datacenter="dc1", service=service)
    return replace(endpoint(port), expected=expected, datacenter="dc1")


def red(walk: Walk) -> tuple[Name, ExitCode]:
    station = first_red(walk.passed)
    assert station is not None
    assert station.remedy
    return station.name, station.code


async def test_the_whole_way(nursery: trio.Nursery, root: Issuer) -> None:
    walk = await walked(contexts_of(root.leaf(), root), at(Far(root, nursery).port))
    assert [station.name for station in walk.passed] == list(Name)[3:]
    assert {station.light for station in walk.passed} <= {Light.GREEN, Light.AMBER}


@pytest.mark.parametrize(
    ("known", "name", "code"),
    [
        (rules(DENY), Name.INTENTION, ExitCode.PERMISSION),
        (rules(), Name.INTENTION, ExitCode.PERMISSION),
        (rules(ALLOW), Name.FAR_APP, ExitCode.FAR_SIDE),
        (unknown_own_intentions("permission denied"), Name.FAR_APP, ExitCode.FAR_SIDE),
    ],
)
async def test_broken_off_after_the_handshake(
    nursery: trio.Nursery, root: Issuer, known: OwnIntentions, name: Name, code: ExitCode
) -> None:
    far = Far(root, nursery, refuses=True)
    assert red(await walked(contexts_of(root.leaf(), root), at(far.port), known)) == (name, code)


async def test_another_service_answers(nursery: trio.Nursery, root: Issuer) -> None:
    walk = await walked(contexts_of(root.leaf(), root), at(Far(root, nursery).port, "cache"))
    assert red(walk) == (Name.IDENTITY, ExitCode.CONFIGURATION)


async def test_our_own_deny_list_names_it(nursery: trio.Nursery, root: Issuer) -> None:
    ours = contexts_of(root.leaf(), root)
    text = f"spiffe://{ours.credentials.bundle.trust_domain}/ns/default/dc/*/svc/db\n"
    walk = await walked(ours, at(Far(root, nursery).port), deny_list=parse_deny_list(text))
    station = first_red(walk.passed)
    assert station is not None
    assert (station.name, station.remedy) == (
        Name.IDENTITY,
        "take it out of our deny_file, if we may call it",
    )


async def test_another_root(nursery: trio.Nursery, root: Issuer) -> None:
    walk = await walked(contexts_of(root.leaf(), root), at(Far(Issuer.root(), nursery).port))
    assert red(walk) == (Name.TLS, ExitCode.FAR_SIDE)


async def test_no_listener(root: Issuer) -> None:
    walk = await walked(contexts_of(root.leaf(), root), at(1))
    assert red(walk) == (Name.TCP, ExitCode.FAR_SIDE)


async def test_no_address_to_dial(root: Issuer) -> None:
    walk = await walked(contexts_of(root.leaf(), root), replace(at(1), datacenter="dc2"), wan=WanMode.REQUIRE)
    assert red(walk) == (Name.ADDRESS, ExitCode.CONFIGURATION)
