"""What a permission denies reaches no app that reads the request as denied, however the request is spelled.

`Reader` is a backend's way of reading, as the servers of `tests/hostile` were seen to read: which names of
headers it takes for one, what it makes of repeated ones and of lists, how it decodes a path, what overrides
it.
The rule is put in a reader's words beside Consul's: no parser of ours is asked what it means.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.http1.head import FieldNames
from agent.http1.request_body import BodyBroken
from agent.http1.request_reader import ParsedRequest, RequestReader
from agent.policy.authorize import authorize_request
from certs.spiffe import ServiceId, TrustDomain
from tests.scenarios.http_front import deny
from tests.support.policies import policy_of

WEB = ServiceId(trust_domain=TrustDomain("test.consul"), datacenter="dc1", service="web")
Fields = list[tuple[str, str]]


@dataclass(frozen=True)
class Asked:
    """A request as one app is told of it."""

    method: str
    path: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Reader:
    """`folds`: as CGI does, as WSGI and Rack do, or not at all; `slash`, `case`: it does not mind them."""

    folds: str  # the characters that are the same as a hyphen in a name
    which: int  # of repeated headers: the first, the last, or their list
    elements: bool  # of a list
    parameters: bool  # behind semicolons in a path are dropped
    slash: bool
    case: bool
    script: bool  # SCRIPT_NAME and PATH_INFO of the caller are believed, as gunicorn does

    def asked(self, method: str, target: str, fields: Fields) -> Asked:
        """Read a request line and headers."""
        roles = self.values(fields, "X-Role")
        if len(roles) > 1:
            roles = [roles[0]] if self.which == 0 else [roles[-1]] if self.which == 1 else [",".join(roles)]
        if self.elements:
            roles += [part.strip(" \t") for role in roles for part in role.split(",")]
        return Asked(method.upper(), self.path(target, fields), tuple(roles))

    def path(self, target: str, fields: Fields) -> str:
        """The path it routes by."""
        path = unquote(target.partition("?")[0])
        if self.parameters:
            path = re.sub(";[^/]*", "", path)
        if self.script:
            words = {name.upper(): value for name, value in fields}  # gunicorn folds nothing here
            path = words.get("PATH_INFO", path.removeprefix(words.get("SCRIPT_NAME", "")))
        path = re.sub("/+", "/", path)
        return path.casefold() if self.case else path

    def values(self, fields: Fields, name: str) -> list[str]:
        """What is found under a name."""
        return [value for found, value in fields if self.folded(found) == self.folded(name)]

    def folded(self, name: str) -> str:
        """One spelling of a name."""
        return "".join("-" if sign in self.folds else sign for sign in name.lower())


CGI = "".join(chr(code) for code in range(256) if not (chr(code).isascii() and chr(code).isalnum()))
readers = st.builds(
    Reader, st.sampled_from(["-", "-_", CGI]), st.integers(0, 2), *(st.booleans() for _ in range(5))
)


def is_path(*paths: str) -> Callable[[Asked, Reader], bool]:
    """One of these, by the reader's own notion of the same path."""

    def same(asked: Asked, reader: Reader) -> bool:
        wanted = {path.casefold() if reader.case else path for path in paths}
        return asked.path in wanted or (
            reader.slash and f"{asked.path.rstrip('/')}/" in {f"{p.rstrip('/')}/" for p in wanted}
        )

    return same


def below(prefix: str) -> Callable[[Asked, Reader], bool]:
    """The prefix, and what begins with it; a reader who does not mind a slash sees it at the end."""

    def within(asked: Asked, reader: Reader) -> bool:
        path = f"{asked.path}/" if reader.slash else asked.path
        return path.startswith(prefix.casefold() if reader.case else prefix)

    return within


def role(test: Callable[[str], bool]) -> Callable[[Asked, Reader], bool]:
    """A role of which that holds."""
    return lambda asked, _: any(map(test, asked.roles))


def header(**test: object) -> Mapping[str, object]:
    return deny(Header=[{"Name": "x-role", **test}])


# What Consul is told, and what the operator means.
Rule = tuple[Mapping[str, object], Callable[[Asked, Reader], bool]]
RULES: list[Rule] = [
    (deny(PathExact="/admin"), is_path("/admin")),
    (deny(PathExact="/a b/é"), is_path("/a b/é")),
    (deny(PathPrefix="/admin/"), below("/admin/")),
    (deny(PathPrefix="/admin"), below("/admin")),
    (deny(PathPrefix="/a%2Bb"), below("/a+b")),
    (deny(PathRegex="/admin/.*"), below("/admin/")),
    (deny(PathRegex="/a%2Bb"), is_path("/a+b")),
    (deny(PathRegex="/a b/é"), is_path("/a b/é")),
    (deny(PathRegex="/a%20b/%C3%A9"), is_path("/a b/é")),
    (deny(PathRegex=r"/a\+b|/adm[hi]n"), is_path("/a+b", "/admin")),
    (deny(Methods=["DELETE"]), lambda asked, _: asked.method == "DELETE"),
    (header(Exact="root"), role(lambda value: value == "root")),
    (header(Prefix="ro"), role(lambda value: value.startswith("ro"))),
    (header(Suffix="ot"), role(lambda value: value.endswith("ot"))),
    (header(Contains="oo"), role(lambda value: "oo" in value)),
    (header(Regex="r[a-z]+t"), role(lambda value: re.fullmatch("r[a-z]+t", value) is not None)),
    (header(Present=True), lambda asked, _: bool(asked.roles)),
]

PATHS = ("/admin", "/admin/x", "/a b/é", "/a+b", "/admin;x/../admin", "//admin/.")


@st.composite
def respelt(draw: st.DrawFn) -> str:
    """A path that some rule is about: each of its characters in one way or another."""

    def spelling(character: str) -> str:
        escaped = "".join(f"%{byte:02x}" for byte in character.encode())
        as_it_is = character if character.isascii() and character != " " else escaped
        ways = (as_it_is, as_it_is, as_it_is, escaped, escaped.upper(), as_it_is.swapcase())
        return character if character == "/" else draw(st.sampled_from(ways))

    return "".join(map(spelling, draw(st.sampled_from(PATHS)))) + draw(st.sampled_from(["", "", "/", "?x"]))


segments = st.sampled_from(
    [
        *(
            "admin",
            "Admin",
            "%61dmin",
            "adm%69n",
            "admin;x",
            "admin%3bx",
            ";",
            "..",
            ".",
            "%2e%2e",
            "..;",
            "x",
            "",
        ),
        *(
            "a+b",
            "a%2Bb",
            "a%2bb",
            "A+B",
            "a b",
            "a%20b",
            "%C3%A9",
            "%c3%89",
            "é",
            "%2f",
            "\\",
            "%00",
            "%25",
            "public",
        ),
    ]
)
targets = st.lists(segments, min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
) | st.sampled_from(["http://db/admin", "*", "/public/admin/x", "/admin?x", "/x?/admin", "/x#/admin"])
signs = st.sampled_from([*"-_.!~ :\t\x00\x80", ""])
names = st.builds(
    "{}{}{}".format, st.sampled_from(["X", "x"]), signs, st.sampled_from(["Role", "ROLE"])
) | st.builds("{}{}{}".format, st.sampled_from(["SCRIPT", "PATH"]), signs, st.sampled_from(["NAME", "INFO"]))
values = st.sampled_from(
    [
        "root",
        "user",
        "",
        "user, root",
        "root,user",
        " root\t",
        "root;q=1",
        "/public",
        "/admin/x",
        "user," * 70 + "root",
    ]
)
lines = st.lists(st.tuples(names, values), max_size=3)
hops = st.sampled_from(["", "close", "X-Role", "x_role", "Script-Name"])
methods = st.sampled_from(["GET", "DELETE", "delete", "POST"])


def read(raw: bytes, names: FieldNames) -> ParsedRequest | None:
    """The request as it goes on; None where it is refused."""
    head, end, came = raw.partition(b"\r\n\r\n")
    reader = RequestReader(host=b"db", identity=b"us", judged=lambda: {"x-role"}, names=names)
    try:
        return reader.read(head + end, came)
    except (BodyBroken, ValueError):
        return None


def breach(raw: bytes, rule: Rule, names: FieldNames, readers: Iterable[Reader]) -> object:
    """A reader who is told of what the rule denies; None if there is none."""
    call = read(raw, names)
    if call is None:
        return None
    written, means = rule
    permissions = {"SourceName": "web", "DestinationName": "db", "Permissions": [written]}
    verdict = authorize_request(policy_of([permissions], "db", default_allow=True), WEB, call.request, None)
    if not verdict.allowed:
        return None
    line, *sent = call.head.decode("latin-1").split("\r\n")[:-2]
    method, target, _ = line.split(" ")
    seen = [(name, value.strip(" \t")) for name, _, value in (one.partition(":") for one in sent)]
    told = ((reader, reader.asked(method, target, seen)) for reader in readers)
    return next(((line, seen, reader, asked) for reader, asked in told if means(asked, reader)), None)


def written(method: str, target: str, fields: Fields) -> bytes:
    """A request."""
    rows = (f"{method} {target} HTTP/1.1", "Host: db", *map(": ".join, fields), "", "")
    return "\r\n".join(rows).encode("latin-1")


@settings(max_examples=500)
@given(
    rule=st.sampled_from(RULES),
    reader=readers,
    method=methods,
    target=targets | respelt(),
    fields=st.just([]) | lines,
    hop=hops,
    names=st.sampled_from(FieldNames),
)
def test_no_spelling_of_what_a_permission_denies_reaches_a_reader_who_reads_it_so(
    *, rule: Rule, reader: Reader, method: str, target: str, fields: Fields, hop: str, names: FieldNames
) -> None:
    rows = [*fields, *([("Connection", hop)] if hop else [])]
    assert breach(written(method, target, rows), rule, names, [reader]) is None


READERS = [
    Reader(folds, which, *notions)
    for folds in ("-", "-_", CGI)
    for which in (0, 1, 2)
    for notions in product((False, True), repeat=5)
]
KNOWN = [
    *(("GET", target, []) for target in ("/admin", "/ADMIN", "/admin/", "/%61dmin", "//admin")),
    *(("GET", target, []) for target in ("/admin;x", "/x/..;/admin", "/a%20b/%C3%A9", "/a+b")),
    *(("GET", target, []) for target in ("/a%20b/%c3%89/", "/a%2Bb", "/A%2bB", "/adm%68n", "/x/../admin/x")),
    *((method, "/x", []) for method in ("DELETE", "delete", "Delete")),
    *(("GET", "/x", [("X-Role", value)]) for value in ("root", "user, root", "user,root", " root", ",root,")),
    *(("GET", "/x", [(f"X{sign}Role", "root")]) for sign in "-_.!~"),
    *(("GET", "/x", [("X-Role", "user"), (f"X{sign}Role", "root")]) for sign in "-_."),
    *(("GET", "/public/admin/x", [(f"SCRIPT{sign}NAME", "/public")]) for sign in "-_."),
    *(("GET", "/x", [(f"PATH{sign}INFO", "/admin/x")]) for sign in "-_."),
]


@pytest.mark.parametrize("names", FieldNames)
@pytest.mark.parametrize("rule", RULES, ids=[str(row[0]["HTTP"]) for row in RULES])
def test_no_known_spelling_of_what_a_permission_denies_reaches_any_reader_who_reads_it_so(
    rule: Rule, names: FieldNames
) -> None:
    found = [breach(written(*request), rule, names, READERS) for request in KNOWN]
    assert [one for one in found if one is not None] == []
