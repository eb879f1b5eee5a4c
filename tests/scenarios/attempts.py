"""Crafted requests, raw, and what each must come to: the tables of the bypass suite.

Two lists of rules, the two ways to write one. `DENIES` forbids /admin and lets the rest pass; `ALLOWS` lets
a little pass and forbids the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.scenarios.http_front import Rule, allow, deny, request

DENIES: list[Rule] = [
    deny(PathExact="/admin"),
    deny(PathPrefix="/admin/"),
    deny(PathRegex="/secret/[a-z]+"),
    deny(Methods=["DELETE"]),
    deny(Header=[{"Name": "X-Role", "Exact": "root"}]),
    deny(PathPrefix="/token", Header=[{"Name": "X-Token", "Exact": "t", "Invert": True}]),
]
ALLOWS: list[Rule] = [
    allow(PathPrefix="/public/"),
    allow(PathExact="/user", Methods=["GET"], Header=[{"Name": "X-Role", "Prefix": "user"}]),
    allow(PathPrefix="/ws", Header=[{"Name": "X-Debug", "Present": True, "Invert": True}]),
]


@dataclass(frozen=True, slots=True)
class Attempt:
    """`note` names it; what the caller writes; what it is answered; what the app gets."""

    note: str
    raw: bytes
    status: tuple[int, ...]
    reached: tuple[str, ...] = ()


def get(target: str, *headers: str) -> bytes:
    return request(f"GET {target}", *headers)


def refused(note: str, raw: bytes, status: int = 400) -> Attempt:
    return Attempt(note, raw, (status,))


def path(target: str, status: int = 403) -> Attempt:
    return Attempt(f"path {target}", get(target), (status,))


def passes(target: str, as_: str) -> Attempt:
    return Attempt(f"passes {target}", get(target), (200,), (as_,))


CHUNKED = "Transfer-Encoding: chunked"
NEXT = get("/after")  # what a smuggler wants to be taken for the next request, or to be hidden from it
HIDDEN = get("/admin")

AGAINST_DENIALS = [
    Attempt(
        "a denied header in the place of an allowed one, byte for byte as long",
        get("/x", "X-Role: user") + get("/x", "X-Role: root") + get("/y", "X-Role: user"),
        (200, 403, 200),
        ("/x", "/y"),
    ),
    Attempt(
        "a denied line before headers that were allowed",
        get("/x") + get("/admin") + get("/%61dmin") + request("DELETE /x") + get("/y"),
        (200, 403, 403, 403, 200),
        ("/x", "/y"),
    ),
    path("/admin"),
    path("//admin"),
    path("///admin"),
    path("/./admin"),
    path("/x/../admin"),
    path("/x//../admin"),
    path("/admin/."),
    path("/admin/x/.."),
    path("/admin/"),
    path("/admin//"),
    path("/Admin"),
    path("/ADMIN/x"),
    path("/%61dmin"),
    path("/%41DMIN"),
    path("/%2e/admin"),
    path("/x/%2e%2e/admin"),
    path("/x/.%2E/admin"),
    path("/admin?x"),
    path("/admin?/../public"),
    path("/admin;x=1"),
    path("/admin;/x"),
    path("/;x/admin"),
    path("/x/..;/admin"),
    path("/admin%3bx"),
    path("http://db/admin"),
    path("HTTP://DB/x/../admin"),
    path("/secret/abc"),
    path("/secret/ABC"),
    path("/secret/abc/"),
    path("/secret/%61"),
    path("/secret/a;b"),
    path("/x/../secret/a?b"),
    path("/admin%2f", 400),
    path("/x%2f..%2fadmin", 400),
    path("/x%5c..%5cadmin", 400),
    path("/x\\..\\admin", 400),
    path("/admin%00", 400),
    path("/admin%0d%0aX:y", 400),
    path("/%2561dmin", 400),
    path("/%25%36%31dmin", 400),
    path("/%c0%ae%c0%ae/admin", 400),
    path("/..%c0%afadmin", 400),
    path("/%u0061dmin", 400),
    path("/%admin", 400),
    path("/../admin", 400),
    path("/x/..;/..;/admin", 400),
    path("/admin#x", 400),
    path("/x#/../admin", 400),
    path("http://other/admin", 400),
    path("http://user@db/admin", 400),
    path("admin", 400),
    path("db:80", 400),
    path("*", 400),
    passes("/administrator", "/administrator"),
    passes("/x//y/./z/../w?q=//../%2f", "/x/y/w?q=//../%2f"),
    passes("/%7Euser/caf%c3%a9", "/~user/caf%C3%A9"),
    passes("http://db/fine", "/fine"),
    Attempt("method in small letters", request("delete /x"), (403,)),
    Attempt("method denied", request("DELETE /x"), (403,)),
    Attempt("method override", request("POST /x", "X-HTTP-Method-Override: DELETE"), (403,)),
    Attempt("method override in a list", request("POST /x", "X-Http-Method: GET, DELETE"), (403,)),
    Attempt("path override, Flask", get("/public/admin", "X-Script-Name: /public"), (403,)),
    Attempt("path override", get("/x", "X-Original-URL: /admin"), (403,)),
    Attempt("path override, IIS", get("/x", "X-Rewrite-Url: /admin"), (403,)),
    Attempt("header denied", get("/x", "X-Role: root"), (403,)),
    Attempt("header name's case", get("/x", "x-rOLE: root"), (403,)),
    *(refused(f"header name with {sign}", get("/x", f"X{sign}Role: root")) for sign in "_!#$%&'*+.^`|~\x80 "),
    Attempt("header in a list", get("/x", "X-Role: user, root"), (403,)),
    Attempt("header in a list without blanks", get("/x", "X-Role: user,root,"), (403,)),
    Attempt("header in a long list", get("/x", "X-Role: " + "user," * 5000), (403,)),
    Attempt("header twice, first harmless", get("/x", "X-Role: a", "X-Role: root"), (403,)),
    Attempt("header twice, last harmless", get("/x", "X-Role: root", "X-Role: a"), (403,)),
    refused("header twice in two spellings", get("/x", "X-Role: a", "X_Role: root")),
    refused("WSGI's word for the path before ours", get("/public/admin", "SCRIPT_NAME: /public")),
    refused("WSGI's word for our path", get("/x", "PATH_INFO: /admin")),
    Attempt("header that is no text", get("/x", "X-Role: root\xff"), (403,)),
    Attempt("header with blanks around", get("/x", "X-Role: \t root \t"), (403,)),
    Attempt("inverted header, absent", get("/token"), (403,)),
    Attempt("inverted header, wrong", get("/token", "X-Token: u"), (403,)),
    Attempt(
        "inverted header, removed by Connection", get("/token", "X-Token: t", "Connection: x-token"), (403,)
    ),
    Attempt("inverted header, right", get("/token", "X-Token: t"), (200,), ("/token",)),
    Attempt("denied after allowed", get("/x") + HIDDEN, (200, 403), ("/x",)),
    Attempt("allowed after denied", HIDDEN + get("/x"), (403, 200), ("/x",)),
    Attempt(
        "denied in a body stays a body",
        request("POST /x", f"Content-Length: {len(HIDDEN)}", body=HIDDEN) + NEXT,
        (200, 200),
        ("/x", "/after"),
    ),
    Attempt(
        "denied with a body that looks like a request",
        request("POST /admin", f"Content-Length: {len(NEXT)}", body=NEXT) + get("/x"),
        (403, 200),
        ("/x",),
    ),
    Attempt("tunnel", request("CONNECT db:80"), (405,)),
    Attempt("tunnel to a path", request("CONNECT /admin"), (405,)),
    Attempt(
        "h2c upgrade, then HTTP/1",
        get("/x", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA") + HIDDEN,
        (200, 403),
        ("/x",),
    ),
    Attempt(
        "websocket the app does not take, then HTTP",
        get("/x", "Connection: Upgrade", "Upgrade: websocket") + HIDDEN,
        (200, 403),
        ("/x",),
    ),
    Attempt(
        "denied upgrade, then HTTP",
        get("/admin", "Connection: Upgrade", "Upgrade: websocket") + NEXT,
        (403, 200),
        ("/after",),
    ),
    refused("prior-knowledge HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
]


UNDERSCORED = [
    Attempt("method override, spelled otherwise", request("POST /x", "x_method_override: DELETE"), (403,)),
    Attempt("header name with an underscore", get("/x", "X_Role: root"), (403,)),
    Attempt("header twice in two spellings", get("/x", "X-Role: a", "X_Role: root"), (403,)),
    Attempt("header removed by Connection", get("/token", "X_Token: t", "Connection: x-token"), (403,)),
    Attempt("header removed by another spelling", get("/token", "X-Token: t", "Connection: x_token"), (403,)),
    Attempt("header kept", get("/token", "X_Token: t"), (200,), ("/token",)),
    Attempt(
        "header as a trailer", request("POST /x", CHUNKED, body=b"0\r\nX_Role: root\r\n\r\n"), (200,), ("/x",)
    ),
    refused("header name with a dot", get("/x", "X.Role: root")),
    refused("TE disguised", request("POST /x", "Transfer_Encoding: chunked", body=b"0\r\n\r\n")),
    refused("length disguised", request("POST /x", f"Content_Length: {len(HIDDEN)}", body=HIDDEN)),
    refused("WSGI's word for the path before ours", get("/public/admin", "SCRIPT_NAME: /public")),
    refused("WSGI's word for our path", get("/x", "Path_Info: /admin")),
    refused("host taken away by Connection", get("/x", "Connection: x_forwarded_for")),
]


def post(*headers: str, body: bytes = b"") -> bytes:
    return request("POST /x", *headers, body=body)


SMUGGLING = [
    refused("CL.TE", post("Content-Length: 6", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN)),
    refused("TE.CL", post("Transfer-Encoding: chunked", "Content-Length: 4", body=b"5c\r\n" + HIDDEN)),
    refused(
        "TE.TE, one unknown", post("Transfer-Encoding: chunked", "Transfer-Encoding: x", body=b"0\r\n\r\n")
    ),
    refused("TE in a list", post("Transfer-Encoding: identity, chunked", body=b"0\r\n\r\n")),
    refused("TE with a trailing comma", post("Transfer-Encoding: chunked,", body=b"0\r\n\r\n")),
    refused("TE with a vertical tab", post("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n")),
    refused("TE with a blank before the colon", post("Transfer-Encoding : chunked", body=b"0\r\n\r\n")),
    refused("TE folded", post("Transfer-Encoding:\r\n chunked", body=b"0\r\n\r\n")),
    refused("TE behind a bare LF", post("X: y\nTransfer-Encoding: chunked", body=b"0\r\n\r\n")),
    refused("TE behind a bare CR", post("X: y\rTransfer-Encoding: chunked", body=b"0\r\n\r\n")),
    refused("TE disguised", post("Transfer_Encoding: chunked", body=b"0\r\n\r\n")),
    refused("TE in HTTP/1.0", b"POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    refused("two lengths", post("Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN)),
    refused("two equal lengths", post("Content-Length: 0", "Content-Length: 0")),
    refused("a list of lengths", post("Content-Length: 0, 0")),
    refused("a signed length", post("Content-Length: +0")),
    refused("a hexadecimal length", post("Content-Length: 0x0")),
    refused("an empty length", post("Content-Length:")),
    refused("an endless length", post("Content-Length: " + "9" * 30)),
    refused("length disguised", post(f"Content_Length: {len(HIDDEN)}", body=HIDDEN)),
    refused(
        "length taken away by Connection",
        post("Content-Length: 3", "Connection: content-length", body=b"abc"),
    ),
    refused("host taken away by Connection", get("/x", "Connection: host")),
    refused("no host", b"GET /x HTTP/1.1\r\n\r\n"),
    refused("two hosts", get("/x", "Host: other")),
    refused("host with a path", b"GET /x HTTP/1.1\r\nHost: db/admin\r\n\r\n"),
    refused("bare LF lines", b"GET /x HTTP/1.1\nHost: db\n\n" + HIDDEN),
    refused("bare LF before the end", b"GET /x HTTP/1.1\r\nHost: db\r\n\n" + HIDDEN),
    refused("NUL in a header", get("/x", "X: a\0b")),
    refused("blank line in the request line", b"GET /x\r\n HTTP/1.1\r\nHost: db\r\n\r\n"),
    refused("two blanks", b"GET  /x HTTP/1.1\r\nHost: db\r\n\r\n"),
    refused("HTTP/0.9", b"GET /admin\r\n\r\n"),
    refused("a header without a name", get("/x", ": y")),
    refused("a first header that is folded", b"GET /x HTTP/1.1\r\n X: y\r\nHost: db\r\n\r\n"),
    refused("unknown expectation", post("Expect: admin", "Content-Length: 0"), 417),
    refused("a huge header", get("/x", "X: " + "a" * 40000), 431),
    refused("many headers", get("/x", *["X: y"] * 6000), 431),
    refused("a second TLS handshake", b"\x16\x03\x01\x00\x05hello"),
    Attempt("an empty line before", b"\r\n" + get("/x"), (200,), ("/x",)),
    Attempt(
        "a header of the rules as a trailer",
        post("Transfer-Encoding: chunked", body=b"0\r\nX-Role: root\r\nx-role: root\r\n\r\n"),
        (200,),
        ("/x",),
    ),
    refused("a trailer with an underscore", post(CHUNKED, body=b"0\r\nX_Role: root\r\n\r\n")),
    refused("chunk size of over 31 bits", post(CHUNKED, body=b"100000005\r\nhello\r\n0\r\n\r\n" + HIDDEN)),
    refused("chunk size of 63 bits", post(CHUNKED, body=b"7fffffffffffffff\r\nhello\r\n" + HIDDEN)),
    Attempt(
        "chunk size beyond the chunk",
        post("Transfer-Encoding: chunked", body=b"3\r\nabcd\r\n0\r\n\r\n" + HIDDEN),
        (400,),
    ),
    Attempt("chunk size that is none", post("Transfer-Encoding: chunked", body=b"-1\r\n" + HIDDEN), (400,)),
    Attempt(
        "chunk size with a sign", post("Transfer-Encoding: chunked", body=b"+0\r\n\r\n" + HIDDEN), (400,)
    ),
    Attempt("chunk size in 0x", post("Transfer-Encoding: chunked", body=b"0x0\r\n\r\n" + HIDDEN), (400,)),
    Attempt(
        "chunk extension that looks like the end",
        post("Transfer-Encoding: chunked", body=b"2;\n0\r\nhi\r\n0\r\n\r\n") + HIDDEN,
        (400,),
    ),
    Attempt(
        "trailers that would be headers",
        post("Transfer-Encoding: chunked", body=b"0\r\nX-Role: root\r\nHost: evil\r\n\r\n") + HIDDEN,
        (200, 403),
        ("/x",),
    ),
]

AGAINST_ALLOWANCES = [
    passes("/public/x", "/public/x"),
    passes("/public/./x", "/public/x"),
    passes("//public//x", "/public/x"),
    path("/public"),
    path("/Public/x"),
    path("/public/../admin"),
    path("/public/%2e%2e/admin"),
    path("/public/x/../../admin"),
    path("/public/..;/admin"),
    path("/public/..%3b/admin"),
    path("/public;/../admin"),
    path("/public;x/y"),
    path("/public/..%2fadmin", 400),
    path("/public/..\\admin", 400),
    path("/public/..%5cadmin", 400),
    path("/public/%2e%2e%2fadmin", 400),
    path("/public/../../admin", 400),
    path("/admin?/public/"),
    path("/admin%3f/public/"),
    path("/admin%23/public/"),
    Attempt("header allowed", get("/user", "X-Role: user"), (200,), ("/user",)),
    Attempt("header twice, one of them allowed", get("/user", "X-Role: user", "X-Role: root"), (403,)),
    Attempt("header in a list, one of them allowed", get("/user", "X-Role: user, root"), (403,)),
    refused("header twice in two spellings", get("/user", "X-Role: user", "X_Role: root")),
    Attempt("header removed by Connection", get("/user", "X-Role: user", "Connection: X-Role"), (403,)),
    Attempt("method allowed by another's case", request("gEt /user", "X-Role: user"), (403,)),
    Attempt("method not allowed", request("HEAD /user", "X-Role: user"), (403,)),
    Attempt(
        "header only as a trailer",
        request("GET /user", "Transfer-Encoding: chunked", body=b"0\r\nX-Role: user\r\n\r\n"),
        (403,),
    ),
    Attempt("absent header allowed", get("/ws"), (200,), ("/ws",)),
    refused("absent header there in disguise", get("/ws", "X_Debug: 1")),
    Attempt("OPTIONS of the server", b"OPTIONS * HTTP/1.1\r\nHost: db\r\n\r\n", (403,)),
]
