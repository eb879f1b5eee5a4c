"""Parses the texts of settings. Every parser raises ValueError, whose text names the value and the remedy."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from agent.base.address import ANY_ADDRESS, Address, TcpAddress, UnixAddress
from upstreams.spec import LOOPBACK

E = TypeVar("E", bound=StrEnum)

LEAST_MAX_AGE = 90.0  # seconds: one and a half times the longest wait of a watch
MOST_WORKERS_OF_A_CORE = 4

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_TOKEN = re.compile(r"[\x21-\x7e]+(?:[ \t]+[\x21-\x7e]+)*")
_NAME = re.compile(r"[^\s/?#%]+")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 2**63 / 1e9  # seconds; Go counts nanoseconds in 64 bits
# One way to read each digit: otherwise a long row of them takes the square of its length.
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"(?:{_PART})+", re.ASCII)
_PARTS = re.compile(_PART, re.ASCII)


class InvalidDuration(ValueError):
    """The text is no duration; the error names the value and the remedy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulAddress:
    """The address of the Consul agent's HTTP API: host and port, or the path of a unix socket."""

    host: str = ""
    port: int = 0
    socket: str | None = None
    tls: bool = False

    def over_tls(self) -> ConsulAddress:
        """Return the same address with TLS, which a unix socket does not have."""
        return self if self.socket is not None else replace(self, tls=True)

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix://{self.socket}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_bool(text: str) -> bool:
    """Parse a boolean as Go does; any text that is neither true nor false is an error."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration (`10s`, `1h30m`, `300ms`), not negative; `0` needs no unit.

    Raises InvalidDuration.
    """
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise InvalidDuration(f"{text!r} is not a duration; write one as 10s, 300ms or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    if seconds >= _LONGEST:
        raise InvalidDuration(f"{text!r} is longer than the 292 years that Go can count")
    return seconds


def parse_caller(text: str) -> str:
    """Return an address or a network of callers in its usual notation, or `host` for this machine."""
    if text == "host":
        return text
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(
            f"{text!r}: write host, an address or a network such as 10.0.0.0/8; {error}"
        ) from None


def parse_seconds(text: str) -> float:
    """Return seconds, zero or more, from `30`, `1.5`, `90s` or `1m30s`."""
    return parse_duration(f"{text}s" if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII) else text)


def parse_grace(text: str) -> float:
    """Return seconds as `parse_seconds` does; infinity for `never`."""
    return math.inf if text == "never" else parse_seconds(text)


def parse_max_age(text: str) -> float:
    """Return seconds as `parse_grace` does, at least LEAST_MAX_AGE: Consul may be silent for a minute."""
    seconds = parse_grace(text)
    if seconds < LEAST_MAX_AGE:
        remedy = f"give at least {LEAST_MAX_AGE:g}, or never"
        raise ValueError(f"{text!r} is too short, for Consul may hold a question for a minute; {remedy}")
    return seconds


def parse_count(text: str) -> int:
    """Return a whole number, zero or more."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def parse_connections(text: str) -> int:
    """Return a number of connections, 0 for no limit: one is held by the intentions, one is shared."""
    if parse_count(text) == 1:
        raise ValueError("1 connection: write 2 or more, of which one is shared, or 0 for no limit")
    return int(text)


def parse_workers(text: str) -> int:
    """Return a number of processes, at most MOST_WORKERS_OF_A_CORE for each core: more slow each other."""
    cores = len(os.sched_getaffinity(0))
    most = MOST_WORKERS_OF_A_CORE * cores
    if not 1 <= parse_count(text) <= most:
        raise ValueError(f"{text} workers: write 1 to {most}, the cores here ({cores}) are best")
    return int(text)


def parse_name(text: str) -> str:
    """Return a name, which becomes part of a SPIFFE ID."""
    if not _NAME.fullmatch(text) or not text.isprintable():
        raise ValueError(f"{text!r} is not a name")
    return text


def parse_id(text: str) -> str:
    """Return the id of a service instance: any printable text, as Consul takes."""
    if not text.strip() or not text.isprintable():
        raise ValueError(f"{text!r} is not an id")
    return text


def parse_text(text: str) -> str:
    """Return a text that is not empty."""
    if not text:
        raise ValueError("the value is empty")
    return text


def parse_token(text: str) -> str:
    """Return an ACL token: one line for an HTTP header (RFC 9110 §5.5). The error quotes nothing of it."""
    if len(text.splitlines()) > 1:
        raise ValueError("it has more than one line")
    if not _TOKEN.fullmatch(text):
        raise ValueError("it is not one line of visible ASCII characters")
    return text


@dataclass(frozen=True, slots=True)
class OneOf(Generic[E]):
    """A parser for the values of an enumeration."""

    kind: type[E]

    @property
    def values(self) -> tuple[str, ...]:
        """Every value there is."""
        return tuple(self.kind)

    def __call__(self, text: str) -> E:
        """Return the value; raises ValueError with all of them."""
        try:
            return self.kind(text)
        except ValueError:
            raise ValueError(f"{text!r} is not one of {', '.join(self.kind)}") from None


class FileMissing(ValueError):
    """A file or directory that a setting names is not there, or not for us; a moment later it may be."""


def parse_file(text: str) -> Path:
    """Return the path of a file that we may read now. Raises FileMissing."""
    path = Path(text)
    if not path.is_file():
        raise FileMissing(f"there is no file {text}")
    if not os.access(path, os.R_OK):
        raise FileMissing(f"no permission to read {text}")
    return path


def parse_path(text: str) -> Path:
    """Return a path, which need not exist yet."""
    return Path(parse_text(text))


def parse_directory(text: str) -> Path:
    """Return the path of a directory that exists. Raises FileMissing."""
    path = Path(text)
    if not path.is_dir():
        raise FileMissing(f"there is no directory {text}")
    return path


def parse_listen(text: str) -> TcpAddress:
    """Parse `ADDR:PORT` to listen on. An empty ADDR is every address; the kernel chooses for port 0."""
    host, port = _split(text, lowest=0)
    return TcpAddress(host or ANY_ADDRESS, port)


def parse_dial(text: str) -> Address:
    """Parse `ADDR:PORT` or `unix:/path` to connect to."""
    if text.startswith("unix:"):
        return _socket(text)
    host, port = _split(text, lowest=1)
    return TcpAddress(host or LOOPBACK, port)


def parse_admin(text: str) -> Address:
    """Parse `ADDR:PORT` or `unix:/path` of the admin endpoint; an empty ADDR is loopback."""
    if text.startswith("unix:"):
        return _socket(text)
    host, port = _split(text, lowest=0)
    return TcpAddress(host or LOOPBACK, port)


def parse_collector(text: str) -> str:
    """Return the URL of a collector, if the extra that it needs is installed."""
    url = urlsplit(text)
    if url.scheme not in {"http", "https"} or not url.hostname:
        raise ValueError(f"{text!r}: write http://HOST:4318/v1/traces, or https://…")
    if find_spec("opentelemetry") is None:
        raise ValueError("spans need the extra: pip install 'connect-sidecar[tracing]'")
    return text


def parse_ratio(text: str) -> float:
    """Return a number from 0 to 1."""
    if not re.fullmatch(r"0(\.\d+)?|1(\.0+)?|\.\d+", text, re.ASCII):
        raise ValueError(f"{text!r}: write a number from 0 to 1, such as 0.01")
    return float(text)


def parse_http_addr(text: str) -> ConsulAddress:
    """Parse Consul's forms: `host:port`, `http://…`, `https://…`, `unix:///path`."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        if not path.startswith("/"):
            raise ValueError(
                f"{text!r}: write the absolute path of the socket, as in unix:///run/consul.sock"
            )
        return ConsulAddress(socket=path)
    scheme, separator, rest = text.rpartition("://")
    if separator and scheme not in ("http", "https"):
        raise ValueError(f"{text!r}: the scheme is one of http, https, unix")
    rest = rest.removesuffix("/")
    if not rest or "/" in rest or "@" in rest:
        raise ValueError(f"{text!r}: write host:port, without path or user")
    if re.search(r":\d+$", rest):
        host, port = _split(rest, lowest=1)
    else:
        host, port = rest.strip("[]"), 443 if scheme == "https" else 80
    return ConsulAddress(host=host or LOOPBACK, port=port, tls=scheme == "https")


def _socket(text: str) -> UnixAddress:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ValueError(f"{text!r}: write the absolute path of the socket, as in unix:/run/sidecar/web.sock")
    return UnixAddress(path)


def _split(text: str, lowest: int) -> tuple[str, int]:
    """Return host and port of `ADDR:PORT`; an IPv6 address is in brackets."""
    host, separator, port = text.rpartition(":")
    if not separator:
        raise ValueError(f"{text!r}: write ADDR:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r}: put an IPv6 address in brackets, as in [::1]:{port}")
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else -1
    if not lowest <= number <= 65535:
        raise ValueError(f"{text!r}: a port is a number from {lowest} to 65535")
    return host, number
