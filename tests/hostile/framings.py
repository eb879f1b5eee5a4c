"""Requests whose bodies end elsewhere for a careless reader: lengths, sizes of chunks, requests in bodies."""

from __future__ import annotations

from collections.abc import Iterator

from tests.hostile.attempt import HIDDEN, Attempt, chunked
from tests.scenarios.http_front import request

_NUMBERS = [
    *(
        "{}",
        "0{}",
        "000000000{}",
        "00000000000000000000{}",
        "+{}",
        "-{}",
        " {}",
        "{} ",
        "{}\t",
        "\t{}",
        "{}.0",
    ),
    *("{}e0", "0x{}", "0o{}", "{}_", "_{}", "{},{}", "{}, {}", "{};", "{}\x00", "{}\x0b", "{}\xa0", '"{}"'),
]
_HUGE = ["7fffffff", "80000000", "ffffffff", "100000000", "100000005", "7fffffffffffffff", "8000000000000005"]
_HUGE += [
    "ffffffffffffffff",
    "10000000000000005",
    "fffffffffffffffffff",
    "F" * 16,
    "9" * 18,
    "9" * 19,
    "9" * 25,
]


def lengths() -> Iterator[Attempt]:
    """A number that one reader takes for nought and another for the length of what follows."""
    size = len(HIDDEN)
    for pattern in _NUMBERS:
        for number in (0, size):
            length = f"Content-Length: {pattern.format(number, number)}"
            yield Attempt("lengths", request("POST /x", length, body=HIDDEN))
            yield Attempt("lengths", request("POST /x", length, f"Content-Length: {size}", body=HIDDEN))
            yield Attempt("lengths", request("POST /x", "Content-Length: 0", length, body=HIDDEN))
    for digits in filter(str.isdigit, _HUGE):
        yield Attempt("lengths", request("POST /x", f"Content-Length: {digits}", body=HIDDEN))
    for coding in (
        "chunked",
        "Chunked",
        "xchunked",
        "chunked, identity",
        "identity, chunked",
        "gzip",
        "chunked;q=1",
    ):
        for extra in (
            (),
            ("Content-Length: 5",),
            ("Transfer-Encoding: identity",),
            ("Transfer-Encoding: chunked",),
        ):
            headers = (f"Transfer-Encoding: {coding}", *extra)
            yield Attempt("lengths", request("POST /x", *headers, body=b"0\r\n\r\n" + HIDDEN))
            yield Attempt("lengths", request("POST /x", *reversed(headers), body=b"0\r\n\r\n" + HIDDEN))


def chunks() -> Iterator[Attempt]:
    """A size that one reader takes for 5, and another for more, or for none."""
    rest = b"hello\r\n0\r\n\r\n" + HIDDEN
    sizes = [pattern.format(5, 5) for pattern in _NUMBERS] + _HUGE
    sizes += [
        "5;x",
        "5;x=y",
        "5 ;x",
        "5;\n0",
        "5;\r0",
        "5\n",
        "5\r",
        "",
        "0x5",
        "5;" + "x" * 2000,
        '05;a="\r\n"',
    ]
    for size in sizes:
        yield Attempt("sizes of chunks", chunked(size.encode("latin-1") + b"\r\n" + rest))
    for end in (b"\n", b"\r", b"", b"\r\n\r\n", b"xx", b"\x00\r\n"):
        yield Attempt("sizes of chunks", chunked(b"5\r\nhello" + end + b"0\r\n\r\n" + HIDDEN))
        yield Attempt("sizes of chunks", chunked(b"5\r\nhello\r\n0\r\n" + end + HIDDEN))
        yield Attempt("sizes of chunks", chunked(b"5\r\nhello\r\n0" + end + HIDDEN))


def bodies() -> Iterator[Attempt]:
    """A request in the body of another: an app that does not read bodies takes it for the next."""
    for method in ("GET", "POST", "PUT", "PATCH", "OPTIONS", "TRACE", "QUERY"):
        for hidden in (
            HIDDEN,
            b"\r\n" + HIDDEN,
            b"x" * 9000 + b"\r\n" + HIDDEN,
            HIDDEN * 20,
            b"GET /admin/old\r\n\r\n",
        ):
            for expects in ((), ("Expect: 100-continue",), ("Connection: keep-alive",)):
                length = f"Content-Length: {len(hidden)}"
                yield Attempt("bodies", request(f"{method} /x", length, *expects, body=hidden))
                chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(hidden), hidden)
                yield Attempt(
                    "bodies", request(f"{method} /x", "Transfer-Encoding: chunked", *expects, body=chunk)
                )
