"""Whatever an app makes of a request: what it would have denied by the rules, is denied.

`Careless` is an app's own way of reading, chosen at random: it may ignore case and closing slashes, drop
parameters, take the first, the last, or the list of repeated headers. A plain evaluator, written here from
the contract's words, judges what that app sees.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from agent.http1.fields import view
from agent.http1.target import TargetRefused, parse_target
from agent.policy.authorize import authorize_request
from certs.spiffe import ServiceId, TrustDomain
from tests.support.policies import policy_of

WEB = ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service="web")
PATHS = ("/", "/a", "/a/", "/A", "/a/b", "/b", "/a b", "/a;b")
VALUES = ("", "a", "A", "b", "ab", "a,b")
NAMES = ("x-r", "X-R", "x_r", "X-Other")


@dataclass(frozen=True)
class Careless:
    any_case: bool
    any_slash: bool
    no_parameters: bool
    which: int  # of repeated headers: the first, the last, their list

    def path(self, text: str) -> str:
        if self.any_case:
            text = text.lower()
        return (text.rstrip("/") or "/") if self.any_slash else text

    def asked(self, sent: str) -> str:
        """The path it sees in a target: decoded, as apps do."""
        path = unquote(sent.partition("?")[0])
        if self.no_parameters:
            closing = "/" if path.endswith(("/", ";")) else ""
            path = "/".join(part.partition(";")[0] for part in path.split("/"))
            path = posixpath.normpath(path) + closing if path != "/" else path
            path = re.sub("/+", "/", path)
        return path

    def value(self, values: list[str]) -> str:
        return (values[0], values[-1], ",".join(values))[self.which]


headers = st.builds(
    lambda test, value, invert: {"Name": "X-R", test: value or "a", "Invert": invert},
    st.sampled_from(["Exact", "Prefix", "Suffix", "Contains"]),
    st.sampled_from(VALUES),
    st.booleans(),
) | st.builds(lambda invert: {"Name": "x-r", "Present": True, "Invert": invert}, st.booleans())
permissions = st.builds(
    lambda action, kind, path, methods, header: {
        "Action": action,
        "HTTP": {
            **({kind: path} if kind else {}),
            **({"Methods": methods} if methods else {}),
            **({"Header": header} if header else {}),
        },
    },
    st.sampled_from(["allow", "deny"]),
    st.sampled_from(["", "PathExact", "PathPrefix"]),
    st.sampled_from(PATHS),
    st.lists(st.sampled_from(["GET", "PUT"]), max_size=2, unique=True),
    st.lists(headers, max_size=2),
).filter(lambda permission: permission["HTTP"])
segments = st.sampled_from(["a", "A", "b", "%61", "%41", ".", "..", "%2e%2e", "", "a;b", ";", "..;", "a%20b"])
targets = st.lists(segments, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))


def says(rules: list[dict[str, object]], app: Careless, method: str, path: str, values: list[str]) -> str:
    """allow, deny, or nothing: the plain evaluator."""
    for rule in rules:
        http = rule["HTTP"]
        assert isinstance(http, Mapping)
        if http.get("Methods") and method not in http["Methods"]:
            continue
        if "PathExact" in http and app.path(path) != app.path(http["PathExact"]):
            continue
        if "PathPrefix" in http:
            text = http["PathPrefix"].lower() if app.any_case else http["PathPrefix"]
            if not (path.lower() if app.any_case else path).startswith(text):
                continue
        if all(holds(header, app, values) for header in http.get("Header", ())):
            return str(rule["Action"])
    return ""


def holds(header: Mapping[str, object], app: Careless, values: list[str]) -> bool:
    invert = bool(header["Invert"])
    if "Present" in header:
        return bool(values) is not invert
    if not values:
        return invert
    value = app.value(values)
    test, wanted = next((k, str(v)) for k, v in header.items() if k not in {"Name", "Invert"})
    found = {
        "Exact": value == wanted,
        "Prefix": value.startswith(wanted),
        "Suffix": value.endswith(wanted),
        "Contains": wanted in value,
    }[test]
    return found is not invert


@given(
    rules=st.lists(permissions, min_size=1, max_size=4),
    default_allow=st.booleans(),
    method=st.sampled_from(["GET", "PUT", "get"]),
    target=targets,
    fields=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=3),
    app=st.builds(Careless, st.booleans(), st.booleans(), st.booleans(), st.integers(0, 2)),
)
def test_what_an_app_would_have_denied_is_denied(
    *,
    rules: list[dict[str, object]],
    default_allow: bool,
    method: str,
    target: str,
    fields: list[tuple[str, str]],
    app: Careless,
) -> None:
    intention = {"SourceName": "web", "DestinationName": "db", "Permissions": rules}
    policy = policy_of([intention], "db", default_allow=default_allow)
    try:
        read = parse_target(target.encode(), method, b"db")
    except TargetRefused:
        return
    asked = view(method, read, [(name.encode(), value.encode()) for name, value in fields])
    verdict = authorize_request(policy, WEB, asked, None)
    values = [value for name, value in fields if name.lower().replace("_", "-") == "x-r"]
    seen = app.asked(read.sent.decode())
    for taken in {method, method.upper()}:
        said = says(rules, app, taken, seen, values) or ("allow" if default_allow else "deny")
        assert not verdict.allowed or said == "allow", (verdict, read, seen, said)


def normal(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")


pieces = st.sampled_from(
    [
        *("admin", "ADMIN", "%61dmin", "adm%69n", "x", ".", "..", "%2e", "%2E%2e", ";", ";x", "..;", "%3b"),
        *("%2f", "%5c", "%25", "%00", "%c0%ae", "\\", "?", "#", "//", "%", "%2", "%7C", "|"),
    ]
)


@given(st.lists(pieces, min_size=1, max_size=8).map("/".join))
def test_no_reading_of_what_is_sent_escapes_the_readings_that_are_judged(text: str) -> None:
    try:
        target = parse_target(f"/{text}".encode("latin-1"), "GET", b"db")
    except TargetRefused:
        return
    sent = target.sent.decode().partition("?")[0]
    judged = {unquote(path) for path in target.readings}
    for no_parameters in (True, False):
        for twice in (True, False):
            path = unquote(unquote(sent)) if twice else unquote(sent)
            if no_parameters:
                path = "/".join(part.partition(";")[0] for part in path.split("/"))
            assert normal(path) in map(normal, judged)
            assert ".." not in path.split("/") or no_parameters
    again = parse_target(target.sent, "GET", b"db")
    assert again == target
