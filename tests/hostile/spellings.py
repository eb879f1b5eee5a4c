"""Requests that a careless reader takes for a forbidden one: every spelling of a name and of a target.

No spelling is left out because one of today's servers would not fall for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from tests.hostile.attempt import HIDDEN, Attempt, chunked
from tests.hostile.framings import bodies, chunks, lengths
from tests.scenarios.http_front import request


def attempts() -> list[Attempt]:
    """All of them, each once."""
    made = (*names(), *values(), *methods(), *targets(), *lengths(), *chunks(), *trailers(), *bodies())
    return list(dict.fromkeys(made))


# Names of headers.

_NAMED = [
    ("X-Role", "root", "GET /x", b""),
    ("X-Forwarded-Client-Cert", "URI=spiffe://evil", "GET /x", b""),
    ("Script-Name", "/public", "GET /public/admin/x", b""),
    ("Path-Info", "/admin/x", "GET /x", b""),
    ("Request-Method", "DELETE", "GET /x", b""),
    ("Request-Uri", "/admin/x", "GET /x", b""),
    ("Transfer-Encoding", "chunked", "POST /x", b"0\r\n\r\n" + HIDDEN),
    ("Content-Length", "0", "POST /x", HIDDEN),
]


def names() -> Iterator[Attempt]:
    """Each sign in the place of each hyphen, of all, before and behind; without hyphens; in other cases."""
    for name, value, line, body in _NAMED:
        for spelt in _spelt(name):
            raw = request(line, f"{spelt}: {value}", body=body)
            yield Attempt("names of headers", raw)
            if body and not spelt.lower().startswith("content"):
                length = f"Content-Length: {len(body)}"
                yield Attempt("names of headers", request(line, length, f"{spelt}: {value}", body=body))


_SIGNS = [
    chr(code) for code in range(256) if chr(code) == "a" or not (chr(code).isascii() and chr(code).isalnum())
]


def _spelt(name: str) -> Iterator[str]:
    yield from (name.lower(), name.upper(), name.replace("-", ""), name.replace("-", "--"), f"HTTP_{name}")
    yield from (name.replace("-", "_").upper(), name.swapcase())
    places = [place for place, letter in enumerate(name) if letter == "-"]
    for sign in _SIGNS:
        yield name.replace("-", sign)
        yield from (f"{name}{sign}", f"{sign}{name}")
        yield from (name[:place] + sign + name[place + 1 :] for place in places)


def values() -> Iterator[Attempt]:
    """A role among others, in one header or in several."""
    lists = [
        "root",
        "user, root",
        "user,root",
        "root,user",
        "root ,user",
        ",root",
        "root,",
        "a,,root",
        "\troot\t",
    ]
    lists += ["user," * 70 + "root", "user;root", '"root"', "root\x00", "user\x0b,root", "user\xa0,root"]
    for value in lists:
        yield Attempt("lists in headers", request("GET /x", f"X-Role: {value}"))
        for other in ("user", "", ","):
            yield Attempt("lists in headers", request("GET /x", f"X-Role: {other}", f"X-Role: {value}"))
            yield Attempt("lists in headers", request("GET /x", f"X-Role: {value}", f"x-role: {other}"))
        for hop in ("X-Role", "x-role", "x_role", "close, X-Role"):
            yield Attempt("lists in headers", request("GET /x", f"X-Role: {value}", f"Connection: {hop}"))
    for fold in ("\r\n ", "\r\n\t", "\n ", "\r ", "\n", "\r"):
        yield Attempt("lists in headers", request("GET /x", f"X-Other: a{fold}X-Role: root"))
        yield Attempt("lists in headers", request("GET /x", f"X-Role:{fold}root"))


def methods() -> Iterator[Attempt]:
    """The method, and what asks for another one."""
    for method in ("DELETE", "delete", "Delete", "DELETE\x00", " DELETE", "DELETE\t"):
        yield Attempt("methods", request(f"{method} /x"))
    for name in ("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X_Http_Method_Override"):
        yield Attempt("methods", request("POST /x", f"{name}: DELETE"))
    for name in ("X-Original-URL", "X-Rewrite-URL", "X_Rewrite_Url"):
        yield Attempt("methods", request("GET /x", f"{name}: /admin/x"))


# Targets.

_BEFORE = [
    *(
        "",
        "/",
        "//",
        "/.",
        "/./",
        "/x/..",
        "/x/../",
        "/x//..",
        "/%2e",
        "/%2E/",
        "/x/%2e%2e",
        "/x/.%2e",
        "/x/%2e.",
    ),
    *(
        "/;",
        "/;/",
        "/;x",
        "/x;y/..",
        "/x/..;",
        "/..;",
        "/x/..;/",
        "/x/;/..",
        "/.;",
        "/.;/",
        "/%3b",
        "/x/..%3b",
    ),
    *(
        "\\",
        "/\\",
        "/x\\..",
        "/%5c",
        "/x%5c..",
        "/%2f",
        "/x%2f..",
        "/x/..%2f",
        "/%252e",
        "/x/%252e%252e",
        "/%00",
    ),
    *(
        "/..",
        "/../..",
        "/x/../..",
        "/%20",
        "/%09",
        "/%0a",
        "/%c0%ae",
        "/%c0%af",
        "/x/%c0%ae%c0%ae",
        "/%u002e",
    ),
    *(
        "http://db",
        "http://db/",
        "HTTP://DB",
        "https://db",
        "http://db:80",
        "http://other",
        "http://u@db",
        "//db",
    ),
    *(
        "http://db/x/..",
        "http:/",
        "/?/..",
        "/#/..",
        "/x?",
        "/x#",
        "?",
        "/x/..?",
        "/%3f/..",
        "/%23/..",
        "*",
        "x",
    ),
]
_ADMIN = [
    *(
        "admin",
        "ADMIN",
        "Admin",
        "%61dmin",
        "%41DMIN",
        "adm%69n",
        "%61%64%6d%69%6e",
        "%61%64%6D%69%6E",
        "%2561dmin",
    ),
    *(
        "admin;",
        "admin;x",
        "admin;x=1",
        "admin%3b",
        "admin%3Bx",
        "admin.",
        "admin%2e",
        "admin%20",
        "admin%09",
    ),
    *("admin%00", "admin%0d", "admin%0a", "admin%ff", "admin%c2%a0", "admin%e2%80%8b", "admin%25", "admin%"),
    *(
        "admin%2f",
        "admin%2F..",
        "admin%5c",
        "admin\\",
        "admin%23",
        "admin%3f",
        "admin#",
        "admin?",
        "admin?x",
        "%u0061dmin",
    ),
    *(
        "%EF%BD%81dmin",
        "adm%C4%B1n",
        "adm%C4%B0n",
        "+admin",
        "admin+",
        "a%cc%80dmin",
        "admin%c0%af",
        "ad%6Din",
    ),
]
_BEHIND = ["", "/", "//x", "/./x", "/x/..", ";/x", "/x/%2e%2e", "/%2f"]


def targets() -> Iterator[Attempt]:
    """Each beginning, each spelling of `admin`, and each end."""
    for before, admin, behind in product(_BEFORE, _ADMIN, _BEHIND):
        slash = "" if before.endswith(("/", "\\", "%2f", "%5c", "#", "?")) else "/"
        yield Attempt("targets", request(f"GET {before}{slash}{admin}{behind}"))


def trailers() -> Iterator[Attempt]:
    """What a reader may take for a header, behind the body."""
    for name, value, _, _ in _NAMED:
        for spelt in dict.fromkeys(_spelt(name)):
            if spelt.isascii() and spelt.isprintable():
                yield Attempt("trailers", chunked(f"0\r\n{spelt}: {value}\r\n\r\n".encode()))
