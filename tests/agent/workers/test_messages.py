"""What is told arrives as it was; what was written by anybody else is refused."""

from __future__ import annotations

import os
import pickle
import re
from dataclasses import replace
from datetime import timedelta

import pytest

from agent.config.options import LogLevel
from agent.config.registration import Registration
from agent.policy.deny_list import DenyList, parse_deny_list
from agent.policy.intentions import Intentions, parse_match
from agent.policy.source_intentions import parse_outgoing
from agent.workers.messages import (
    HandedCredentials,
    HandedEndpoints,
    HandedSockets,
    NotAnOrder,
    Order,
    Report,
    Verbosity,
    Welcome,
    Withdrawn,
    decode,
    encode,
    hand_on,
    taken_up,
    without_secrets,
)
from certs.contexts import build_contexts
from certs.credentials import CredentialsRejected
from tests.certs import fitting
from tests.support.agent_parts import registration, settings
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import EndpointSet, Status
from upstreams.spec import Gateways, LocalBind, ServiceDestination, parse_upstream_flag

TRUST_DOMAIN = "11111111-2222-3333-4444-555555555555.consul"
L7 = {
    "SourceName": "web",
    "DestinationName": "db",
    "Permissions": [
        {"Action": "allow", "HTTP": {"PathRegex": "/v[0-9]+/.*", "Methods": ["GET"]}},
        {"Action": "deny", "HTTP": {"Header": [{"Name": "x-a", "Regex": "b+"}]}},
    ],
    "Meta": {"source-datacenters": "dc1"},
}
DENY = {"SourceName": "web", "DestinationName": "*", "Action": "deny"}

ORDERS: list[Order] = [
    Welcome(version="1", slot=1, workers=2, settings=settings(narrow=["web@dc1"], upstream=["db:9191"])),
    parse_deny_list(f"spiffe://{TRUST_DOMAIN}/ns/default/dc/*/svc/web\nserial {TRUST_DOMAIN} dc1 0a"),
    registration(upstreams=(parse_upstream_flag("prepared_query:db@dc2:9191"),)),
    replace(parse_match([L7], "db", default_allow=False), datacenter="dc1"),
    replace(parse_outgoing([L7, DENY]), audit=True),
    HandedEndpoints(
        number=3,
        lookup=ServiceDestination("db", "dc2"),
        poll_interval=None,
        polled=False,
        endpoints=EndpointSet(endpoints=(endpoint("a"), endpoint("b", status=Status.WARNING))),
        failing="unavailable",
    ),
    HandedSockets(key=LocalBind("127.0.0.1", 9191), purpose="upstream db"),
    Withdrawn(key="public"),
    Withdrawn(number=7),
    Verbosity(level=LogLevel.DEBUG),
    Report(number=9, rows=True),
]


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: type(order).__name__)
def test_an_order_arrives_as_it_was(order: Order) -> None:
    assert decode(encode(order)) == order


def test_patterns_and_tiers_work_as_before() -> None:
    intentions, endpoints = decode(encode(ORDERS[3])), decode(encode(ORDERS[5]))
    assert isinstance(intentions, Intentions)
    assert isinstance(endpoints, HandedEndpoints)
    assert intentions.by_request
    assert endpoints.endpoints is not None
    assert [len(tier.endpoints) for tier in endpoints.endpoints.tiers] == [1, 1]
    permissions = intentions.rules[0].permissions
    assert permissions is not None
    assert permissions.unreadable is None


class Evil:
    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    "frame",
    [
        pickle.dumps(Evil()),
        pickle.dumps(re.compile("x")),
        pickle.dumps(Gateways("dc1")),  # ours, and no order
        b"",
        b"\x80\x05garbage",
        encode(Report(number=1))[:-3],
    ],
    ids=["call", "library", "value", "empty", "garbage", "cut"],
)
def test_what_is_no_order_is_refused(frame: bytes) -> None:
    with pytest.raises(NotAnOrder):
        decode(frame)


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


def test_workers_are_not_told_what_they_do_not_need() -> None:
    told = without_secrets(settings(token="s3cret", http_auth="a:s3cret"))
    assert b"s3cret" not in encode(Welcome(version="1", slot=0, workers=2, settings=told))


def test_the_values_themselves_are_orders() -> None:
    assert {type(order) for order in ORDERS} >= {DenyList, Registration, Intentions}
