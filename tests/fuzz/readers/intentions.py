"""Who may call us: any body of the match endpoint, behind one byte for the default policy.

Refused by name, or read into rules by which every caller and request gets a verdict; the answer's order does
not matter, and a field nobody knows lets nobody in who was not let in without.
"""

from __future__ import annotations

import json
from contextlib import suppress
from random import Random

import msgspec

from agent.consul.errors import ConsulError
from agent.consul.watch import AnswerRejected
from agent.control.watches import read_intentions
from agent.http1.request import HttpRequest
from agent.policy.authorize import Policy, authorize, authorize_caller, authorize_request
from agent.policy.intentions import Intentions, InvalidIntentions
from agent.policy.source_intentions import parse_outgoing
from certs.spiffe import ServiceId, TrustDomain
from tests.fuzz.answered import HEADERS, asked, recorded, words_of
from tests.fuzz.mutators import json_with
from tests.fuzz.target import Plain, Target

CALLERS = [
    ServiceId(trust_domain=TrustDomain("test.consul"), datacenter=datacenter, service=service)
    for datacenter, service in (
        ("dc1", "web"),
        ("dc2", "web"),
        ("dc1", "Web"),
        ("dc1", "other"),
        ("dc1", "*"),
    )
]
REQUESTS = [
    HttpRequest(method=method, paths=paths, headers=headers)
    for method, paths, headers in (
        ("GET", ("/",), {}),
        ("GET", ("/admin",), {"x-role": ("root",)}),
        ("POST", ("/Admin/;x", "/Admin/"), {"x-role": ("user", None)}),
        ("get", ("/a%2Bb",), {"x-role": ("a,b", "c"), "x-http-method": ("PUT",)}),
        ("OPTIONS", ("*",), {"x-role": ("",)}),
    )
]

Allowed = set[tuple[int, int]]  # who is let in, and with which request; -1 is with any


def fuzz_one(data: bytes) -> None:
    """Read it as the watches do."""
    default, body = ("allow" if data[:1] == b"+" else "deny"), data[1:]
    found = _read(body, default)
    if found is None:
        return
    items = msgspec.json.decode(body, type=dict[str, list[msgspec.Raw] | None]).get("db") or []
    _order_does_not_matter(found, items, default)
    _nothing_unknown_widens(_verdicts(found), items, default)
    with suppress(InvalidIntentions):
        outgoing = parse_outgoing(items)
        for own in CALLERS:
            for callee in CALLERS:
                outgoing.denial(own, callee)


def _read(body: bytes, default: str) -> Intentions | None:
    headers = HEADERS | {"x-consul-default-acl-policy": default}
    try:
        return read_intentions("db", asked(lambda consul: consul.intentions("db"), body, headers)).run_now()
    except (ConsulError, AnswerRejected):
        return None


def _verdicts(intentions: Intentions) -> Allowed:
    found = Policy(intentions=intentions)
    allowed = set()
    for who, caller in enumerate(CALLERS):
        at_all = authorize_caller(found, caller, None).allowed
        if authorize(found, caller, None).allowed:
            assert at_all
            allowed.add((who, -1))
        for what, request in enumerate(REQUESTS):
            verdict = authorize_request(found, caller, request, None)
            assert verdict.rule
            if verdict.allowed:
                assert at_all
                allowed.add((who, what))
    return allowed


def _order_does_not_matter(found: Intentions, items: list[msgspec.Raw], default: str) -> None:
    assert _read(_body(*reversed(items)), default) == found


def _nothing_unknown_widens(allowed: Allowed, items: list[msgspec.Raw], default: str) -> None:
    """A field nobody knows, in one intention or in the first of its permissions."""
    for place, item in enumerate(items):
        for found, more in (
            (b"{", b'{"SourceOrbit":"low",'),
            (b'"Action":', b'"Weather":["rain"],"Action":'),
        ):
            changed = [*items[:place], bytes(item).replace(found, more, 1), *items[place + 1 :]]
            read = _read(_body(*changed), default)
            assert read is None or _verdicts(read) <= allowed, (place, more)


def _body(*items: bytes | msgspec.Raw) -> bytes:
    return b'{"db":[' + b",".join(map(bytes, items)) + b"]}"


_ALL = json.dumps(
    {
        "db": [
            {
                "SourceName": "web",
                "DestinationName": "db",
                "SourceType": "consul",
                "Action": "allow",
                "SourceNS": "default",
                "DestinationNS": "default",
                "SourcePartition": "default",
                "SourcePeer": "",
                "SourceSamenessGroup": "",
                "Precedence": 9,
                "Meta": {"source-datacenters": "dc1", "destination_datacenter:web": "*"},
            },
            {
                "SourceName": "*",
                "DestinationName": "db",
                "Permissions": [
                    {"Action": "deny", "HTTP": {"PathPrefix": "/admin", "Methods": ["GET", "PUT"]}},
                    {
                        "Action": "allow",
                        "HTTP": {
                            "PathRegex": "/a.*",
                            "Header": [
                                {"Name": "x-role", "Exact": "root", "Invert": True},
                                {"Name": "X-Role", "Present": True},
                                {"Name": "x-role", "Regex": "r.t", "IgnoreCase": True},
                                {"Name": "x-role", "Contains": "o"},
                            ],
                        },
                    },
                    {"Action": "allow", "HTTP": {"PathExact": "/"}, "JWT": None},
                ],
                "JWT": None,
            },
            {"SourceName": "*", "DestinationName": "*", "Action": "deny"},
        ]
    }
).encode()
_RECORDED = recorded("*match*")
_CHANGE = json_with(words_of(_ALL, *_RECORDED))


def _mutate(data: bytes, most: int, rng: Random, plain: Plain) -> bytes:
    sign = rng.choice((b"+", b"-")) if rng.random() < 0.1 else data[:1]
    return sign + _CHANGE(data[1:], most - 1, rng, plain)


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *(sign + body for sign in (b"+", b"-") for body in (_ALL, *_RECORDED)),
        b"-" + b"[" * 1200,
        b"+" + _ALL.replace(b'"consul"', b"[" * 1200 + b"]" * 1200),
        b'+{"db": null}',
        b'+{"db": [{"SourceName": "\xff"}]}',
        b"+" + _ALL.replace(b'"source-datacenters"', b'"SOURCE_datacenters:"').replace(b'"dc1"', b'","'),
    ),
    mutate=_mutate,
    longest=8192,
)
