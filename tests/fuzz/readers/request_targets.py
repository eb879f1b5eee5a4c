"""Targets of requests, and how apps may understand them: any bytes behind a request line's method.

Refused by name, or brought to a form that is its own normal form; and however an app decodes what it gets, by
folding case, taking off parameters or closing slashes, it sees a path that the rules have judged: none that a
rule denies is let through.
"""

from __future__ import annotations

import posixpath
import re
from contextlib import suppress
from itertools import product
from urllib.parse import unquote

from agent.http1.fields import view
from agent.http1.target import TargetRefused, parse_target, rule_path
from agent.policy.authorize import authorize_request
from certs.spiffe import ServiceId, TrustDomain
from tests.fuzz.target import Target
from tests.support.policies import policy_of

_WEB = ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service="web")
_VISIBLE = re.compile(rb"[\x21-\x7e]+")
_RULES = [
    {"Action": "deny", "HTTP": {"PathPrefix": "/admin/"}},
    {"Action": "deny", "HTTP": {"PathExact": "/a b"}},
    {"Action": "deny", "HTTP": {"PathRegex": r"/x\+y"}},
    {"Action": "deny", "HTTP": {"PathRegex": "/secret(/.*)?"}},
]
_INTENTION = {"SourceName": "web", "DestinationName": "db", "Permissions": _RULES}
_INTENTIONS = policy_of([_INTENTION], "db", default_allow=True)


def fuzz_one(data: bytes) -> None:
    """Read it as a target and as the path of a rule."""
    with suppress(TargetRefused):
        rule_path(data.decode("utf-8", "replace"))
    if not _VISIBLE.fullmatch(data):
        return
    for method, host in (("GET", b"db"), ("OPTIONS", b"DB:80")):
        with suppress(TargetRefused):
            _judged(data, method, host)


def _judged(target: bytes, method: str, host: bytes) -> None:
    read = parse_target(target, method, host)
    assert parse_target(read.sent, method, host) == read
    assert _VISIBLE.fullmatch(read.sent)
    assert all(path.startswith("/") or path == "*" for path in read.readings)
    verdict = authorize_request(_INTENTIONS, _WEB, view(method, read, []), None)
    if verdict.allowed:
        for path in _as_apps_see(read.sent):
            assert not _denied(path), (read, path)


def _as_apps_see(sent: bytes) -> set[str]:
    """Every path that some app makes of it."""
    path = unquote(sent.decode().partition("?")[0])
    seen = set()
    for twice, bare, resolved in product((False, True), repeat=3):
        one = unquote(path) if twice else path
        if bare:
            one = "/".join(part.partition(";")[0] for part in one.split("/"))
        if resolved:
            closing = "/" if one.endswith("/") and one.strip("/") else ""
            one = "/" + posixpath.normpath(one).lstrip("/") + closing
        seen.add(one)
    return seen


def _denied(path: str) -> bool:
    """By a plain reading of the rules, of an app that knows no case and no closing slash."""
    path = path.lower()
    return path.startswith(("/admin/", "/secret/")) or path.rstrip("/") in {
        "/admin",
        "/a b",
        "/x+y",
        "/secret",
    }


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        *(
            b"/",
            b"*",
            b"/a%20b?x=/admin/",
            b"//admin/../x",
            b"/./%61dmin/",
            b"/ADMIN;x/y",
            b"/x%2By",
            b"/x+y",
        ),
        *(
            b"/x+y",
            b"http://db/secret",
            b"HTTP://DB:80/..;/secret/",
            b"/a%252fb",
            b"/%c0%ae",
            b"/a\\b",
            b"/a#b",
        ),
        *(b"/secret/%E2%82%AC", b"/;/admin", b"/admin;a=b", b"/%2e%2e/x", b"/a/b/../../admin/.", b"/%41%2d|"),
        b"/" + b"a/" * 2100,
        b"/admin/%" + b"%41" * 100,
    ),
    words=(
        *(b"/admin", b"/secret", b"/a%20b", b"/x+y", b"%2B", b"%2b", b"%2e", b"%2E", b"%2f", b"%3b"),
        *(
            b"/../",
            b"/./",
            b"//",
            b";",
            b"..;",
            b"?",
            b"#",
            b"http://db",
            b"https://db:80",
            b"%00",
            b"%c3%a9",
        ),
        *(b"/ADMIN", b"%41dmin", b"*"),
    ),
    longest=1024,
)
