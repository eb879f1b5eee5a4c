"""A message arrives as it was sent; bytes of another writer are refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import msgspec
import pytest
import trio

from agent.base.freshness import Confirmation
from agent.config.opaque_config import Problem, ProblemReason
from agent.config.options import LogLevel
from agent.policy.authorize import Policy
from agent.policy.deny_list import parse_deny_list
from agent.policy.source_intentions import parse_outgoing, unknown_own_intentions
from agent.workers import messages
from agent.workers.messages import (
    Finish,
    HandedConfirmation,
    HandedCredentials,
    HandedEndpoints,
    HandedSockets,
    Leaving,
    Message,
    NotAMessage,
    Report,
    Unwatched,
    Verbosity,
    Welcome,
    Withdrawn,
    confirmation_of,
    decode,
    encode,
    hand_on,
    hand_on_confirmation,
    taken_up,
    without_secrets,
)
from certs.contexts import build_contexts
from certs.credentials import CredentialsRejected, retain
from tests.certs import fitting
from tests.support.agent_parts import registration, settings
from tests.support.policies import policy_of
from tests.upstreams.test_choose import endpoint
from upstreams.ejection import EjectionPolicy
from upstreams.endpoints import EndpointSet, Status
from upstreams.spec import (
    Gateways,
    LocalBind,
    MeshGatewayMode,
    QueryDestination,
    ServiceDestination,
    SocketBind,
    WanMode,
    parse_upstream_flag,
)

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
L7 = {
    "SourceName": "web",
    "DestinationName": "db",
    "Permissions": [
        {"Action": "allow", "HTTP": {"PathRegex": "/v[0-9]+/.*", "Methods": ["GET"]}},
        {"Action": "deny", "HTTP": {"PathPrefix": "/x", "Header": [{"Name": "x-a", "Regex": "b+"}]}},
        {"Action": "deny", "HTTP": {"PathExact": "/x", "Header": [{"Name": "x-a", "Present": True}]}},
    ],
    "Meta": {"source-datacenters": "dc1"},
}
DENY = {"SourceName": "web", "DestinationName": "*", "Action": "deny"}

NOON = datetime(2031, 1, 1, 12, tzinfo=UTC)
PROBLEM = Problem(where="Proxy", reason=ProblemReason.NO_LOCAL_APP, detail="x")
IN_FULL = replace(
    parse_upstream_flag("db:unix:/run/db.sock"),
    destination=ServiceDestination("db", "dc2", filter="Service.Port > 1", near="_agent"),
    wan=WanMode.NEVER,
    mesh_gateway=MeshGatewayMode.REMOTE,
    ejection=EjectionPolicy(max_failures=3),
    failover=(QueryDestination("db-anywhere"), ServiceDestination("db", "dc3")),
    warm=2,
)

ORDERS: list[Message] = [
    Welcome(version="1", slot=1, workers=2, settings=settings(narrow=["web@dc1"], upstream=["db:9191"])),
    Welcome(
        version="1",
        slot=0,
        workers=2,
        settings=settings(
            deny_file="/etc/deny",
            expired_peer_grace="never",
            service_addr="unix:/run/app.sock",
            upstream=["prepared_query:q@dc2:unix:/run/db.sock"],
        ),
    ),
    parse_deny_list(
        f"spiffe://{TRUST_DOMAIN}/ns/default/dc/*/svc/web\nserial {TRUST_DOMAIN} dc1 {'fa' * 20}"
    ),
    registration(upstreams=(parse_upstream_flag("prepared_query:db@dc2:9191"), IN_FULL), problems=(PROBLEM,)),
    policy_of([L7], default_allow=False, datacenter="dc1"),
    HandedConfirmation(at=NOON, monotonic=7.5),
    replace(parse_outgoing([L7, DENY]), audit=True),
    HandedEndpoints(
        number=3,
        lookup=ServiceDestination("db", "dc2"),
        poll_interval=None,
        polled=False,
        endpoints=EndpointSet(endpoints=(endpoint("a"), endpoint("b", status=Status.WARNING))),
        failing="unavailable",
    ),
    HandedEndpoints(
        number=4,
        lookup=Gateways("dc2"),
        poll_interval=2.5,
        polled=True,
        endpoints=None,
        failing="",
    ),
    HandedSockets(key=LocalBind("127.0.0.1", 9191), purpose="upstream db"),
    HandedSockets(key=SocketBind("/run/db.sock", 0o600), purpose="upstream db"),
    Withdrawn(key="public"),
    Unwatched(number=7),
    Verbosity(level=LogLevel.DEBUG),
    Report(number=9, rows=True),
    Leaving(),
    Finish(),
    unknown_own_intentions("permission denied"),
    HandedCredentials(
        cert_pem="x",
        key_pem="s3cret",
        roots={"TrustDomain": TRUST_DOMAIN, "Roots": [{"Active": True}]},
        service="web",
        datacenter=None,
        at=NOON,
        generation=3,
    ),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_arrives_as_it_was(order: Message) -> None:
    assert decode(encode(order)) == order


def test_every_kind_of_order_is_among_them() -> None:
    assert {type(order) for order in ORDERS} == set(get_args(Message))


def test_what_values_derive_is_derived_anew() -> None:
    policy, endpoints = decode(encode(ORDERS[4])), decode(encode(ORDERS[7]))
    assert isinstance(policy, Policy)
    assert isinstance(endpoints, HandedEndpoints)
    assert policy.intentions.by_request
    assert policy.narrows
    assert endpoints.endpoints is not None
    assert [len(tier.endpoints) for tier in endpoints.endpoints.tiers] == [1, 1]
    permissions = policy.intentions.rules[0].permissions
    assert permissions is not None
    assert permissions.unreadable is None


def packed(*value: object) -> bytes:
    return msgspec.msgpack.encode(value)


@pytest.mark.parametrize(
    "frame",
    [
        packed("Gateways", {"type": "Gateways", "datacenter": "dc1"}),
        packed("Report", {"number": "x"}),
        packed("Report", {}),
        packed("Report"),
        packed("DenyList", {"ids": {"not an id": "x"}}),
        b"",
        b"\x80\x05garbage",
        encode(Report(number=1))[:-3],
        encode(Report(number=1)) + b"x",
        b"\x92\xa6Repor\xff\x80",
        b"\x92\xa6Report\x81\xa1x" + b"\x91" * 2000 + b"\xc0",
    ],
    ids=["value", "type", "field", "half", "id", "empty", "garbage", "cut", "more", "text", "deep"],
)
def test_what_is_no_order_is_refused(frame: bytes) -> None:
    with pytest.raises(NotAMessage):
        decode(frame)


def test_a_refusal_quotes_nothing_of_a_key() -> None:
    with pytest.raises(NotAMessage) as caught:
        decode(packed("HandedCredentials", {"cert_pem": "x", "key_pem": ["s3cret"]}))
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_what_crosses_to_no_other_process_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="object crosses to no other process"):
        encode(HandedSockets(key=object(), purpose="x"))  # type: ignore[arg-type]


def test_credentials_are_proven_again_where_they_arrive() -> None:
    root = fitting.root()
    contexts = build_contexts(
        fitting.credentials(root.leaf(service="web"), fitting.bundle(root)), generation=4
    )
    leaf = contexts.credentials.leaf
    told = decode(encode(hand_on(contexts, "web", leaf.id.datacenter, leaf.not_before)))
    assert isinstance(told, HandedCredentials)
    taken = taken_up(told)
    assert (taken.generation, taken.credentials) == (4, contexts.credentials)
    assert taken.credentials.leaf.key.public_key() == leaf.key.public_key()
    assert "PRIVATE KEY" in told.key_pem
    assert "PRIVATE KEY" not in repr(told)
    for flaw in (
        replace(told, service="db"),
        replace(told, at=leaf.not_after + timedelta(seconds=1)),
        replace(told, roots=hand_on(contexts, "web", None, leaf.not_before).roots | {"Roots": None}),  # type: ignore[operator]
    ):
        with pytest.raises(Exception, match=r"wrong_service|expired|no_roots") as caught:
            taken_up(flaw)
        assert "PRIVATE" not in repr(caught.value)
    assert issubclass(CredentialsRejected, Exception)


def test_roots_that_do_not_vouch_for_the_leaf_arrive_as_they_are() -> None:
    leaf, roots = fitting.leaf_of(fitting.root().leaf()), fitting.bundle(fitting.root())
    contexts = build_contexts(retain(leaf, roots, fitting.AT), 5)
    told = decode(encode(hand_on(contexts, "web", "dc1", fitting.AT)))
    assert isinstance(told, HandedCredentials)
    assert taken_up(told).credentials == contexts.credentials
    assert contexts.credentials.unfit.startswith("untrusted_chain: ")


def test_workers_are_not_told_what_they_do_not_need() -> None:
    told = without_secrets(settings(token="s3cret", http_auth="a:s3cret"))
    assert b"s3cret" not in encode(Welcome(version="1", slot=0, workers=2, settings=told))


async def test_a_confirmation_is_as_old_in_a_worker_as_it_was_when_it_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The frame was on its way for five seconds, and the two trios count from other moments."""
    shared = [1000.0]
    monkeypatch.setattr(messages, "monotonic", lambda: shared[0])
    now = trio.current_time()
    frame = encode(hand_on_confirmation(Confirmation(NOON, now - 30.0)))
    shared[0] += 5.0
    handed = decode(frame)
    assert isinstance(handed, HandedConfirmation)
    taken = confirmation_of(handed)
    assert taken.at == NOON
    assert trio.current_time() - taken.moment == pytest.approx(35.0, abs=0.1)
