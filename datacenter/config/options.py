"""Reads the command line and the TOML file of `sidecar datacenter` into Settings, with all mistakes at once.

    sidecar datacenter -name dc1 -data-dir /var/lib/dc1
    sidecar datacenter -config dc1.toml -log-level debug

A flag wins over the file, the file over the default. Keys of the file are the flags' names with underscores,
and `[[tokens]]`, read by `datacenter.config.tokens`.
"""

from __future__ import annotations

import re
import tomllib
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

from datacenter.config.tokens import parse_tokens
from datacenter.state.durations import parse_duration
from datacenter.state.settings import Settings

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_LOG_LEVELS = ("debug", "info", "warning", "error")


class UsageMistake(Exception):
    """The command line cannot be parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Option:
    says: str
    takes: str = "VALUE"  # "" for a switch


OPTIONS: Mapping[str, _Option] = {
    "config": _Option(says="TOML file with any of these settings, and tokens", takes="FILE"),
    "name": _Option(says="the datacenter's name", takes="NAME"),
    "http-addr": _Option(
        says="where the API listens; default 127.0.0.1:8500", takes="HOST:PORT|unix:///PATH"
    ),
    "http-hosts": _Option(
        says="names in Host beside the addresses and localhost, with commas", takes="NAME,NAME"
    ),
    "http-max-conns-per-client": _Option(
        says="connections of one client address; default 200, as Consul has it; 0: no limit", takes="N"
    ),
    "data-dir": _Option(says="where everything is kept", takes="DIR"),
    "advertise-addr": _Option(says="URL under which other datacenters reach this one", takes="URL"),
    "primary-datacenter": _Option(says="name of the primary; default: this is it", takes="NAME"),
    "primary-addr": _Option(says="URL of the primary's API", takes="URL"),
    "replication-token-file": _Option(says="token for joining and following the primary", takes="FILE"),
    "translate-wan-addrs": _Option(says="answer with WAN addresses of other datacenters", takes=""),
    "default-policy": _Option(says="deny switches ACLs on; default allow", takes="allow|deny"),
    "default-intention-policy": _Option(
        says="what authorize decides where no intention matches; default as ACLs do", takes="allow|deny"
    ),
    "leaf-ttl": _Option(says="lifetime of leaf certificates; default 72h", takes="DURATION"),
    "leaf-rotation-jitter": _Option(
        says="leaves are re-issued within this time after a new root; default 30s", takes="DURATION"
    ),
    "node-name": _Option(says="default: the datacenter's name and -node", takes="NAME"),
    "node-address": _Option(says="LAN address of the node; default: the host of -http-addr", takes="HOST"),
    "node-wan-address": _Option(says="its WAN address; default: the LAN one", takes="HOST"),
    "enable-faults": _Option(says="serve /v1/internal/faults, to break things on purpose", takes=""),
    "log-level": _Option(says="debug, info, warning or error; default info", takes="LEVEL"),
}


class _Parser(ArgumentParser):
    """Raises UsageMistake where argparse would end the process."""

    def error(self, message: str) -> NoReturn:
        raise UsageMistake(message)


def usage() -> str:
    """Return the help text."""
    return _parser().format_help()


def parse_flags(words: Sequence[str]) -> dict[str, object]:
    """Return flag name -> text, or a bool for a switch. One dash or two, `-flag value` or `-flag=value`.

    Raises UsageMistake.
    """
    given, unknown = _parser().parse_known_args([_with_two_dashes(word) for word in words])
    if unknown:
        raise UsageMistake(f"unknown argument {unknown[0]!r}")
    return vars(given)


def _parser() -> ArgumentParser:
    parser = _Parser(prog="sidecar datacenter", add_help=False, allow_abbrev=False, argument_default=SUPPRESS)
    for name, option in OPTIONS.items():
        if option.takes:
            parser.add_argument(f"--{name}", dest=name, metavar=option.takes, help=option.says)
        else:
            parser.add_argument(
                f"--{name}", dest=name, nargs="?", const=True, type=_switch, metavar="BOOL", help=option.says
            )
    return parser


def _with_two_dashes(word: str) -> str:
    """Return a known flag as argparse has it: with one dash, argparse would take abbreviations too."""
    return f"-{word}" if word[:1] == "-" and word[1:].partition("=")[0] in OPTIONS else word


def _switch(text: str) -> bool:
    if text.lower() not in {"true", "1", "false", "0"}:
        raise ArgumentTypeError(f"true or false is needed, not {text!r}")
    return text.lower() in {"true", "1"}


def read_settings(flags: Mapping[str, object]) -> tuple[Settings | None, list[str]]:
    """Return the settings, or everything that is wrong with them."""
    mistakes: list[str] = []
    values = _read_file(flags["config"], mistakes) if "config" in flags else {}
    tokens, token_mistakes = parse_tokens(values.pop("tokens", []))
    mistakes += token_mistakes
    mistakes += [
        f"unknown setting {key!r}"
        for key in values
        if key.replace("_", "-") not in OPTIONS or key == "config"
    ]
    by_flag_name = {key.replace("_", "-"): value for key, value in values.items()}
    reader = _Reader({**by_flag_name, **flags}, mistakes)
    name = reader.matching("name", _NAME, "letters, digits, - and _", required=True).lower()
    address = reader.text("http-addr", "127.0.0.1:8500")
    _check_address(address, mistakes)
    node_address = reader.text("node-address", _host(address))
    primary = reader.matching("primary-datacenter", _NAME, "letters, digits, - and _").lower() or name
    settings = Settings(
        name=name,
        http_addr=address,
        http_hosts=tuple(host.strip() for host in reader.text("http-hosts").split(",") if host.strip()),
        http_max_conns_per_client=reader.count("http-max-conns-per-client", 200),
        data_dir=Path(reader.text("data-dir", required=True)),
        primary_datacenter=primary,
        primary_addr=reader.url("primary-addr") or None,
        replication_token=reader.file("replication-token-file"),
        advertise_addr=reader.url("advertise-addr"),
        translate_wan_addrs=reader.switch("translate-wan-addrs"),
        default_policy_allows=reader.one_of("default-policy", ("allow", "deny")) == "allow",
        default_intention_policy=reader.one_of("default-intention-policy", ("allow", "deny"), ""),
        tokens=tokens,
        leaf_ttl=reader.duration("leaf-ttl", "72h"),
        leaf_rotation_jitter=reader.duration("leaf-rotation-jitter", "30s"),
        node_name=reader.matching("node-name", _NAME, "letters, digits, - and _") or f"{name}-node",
        node_address=node_address,
        node_wan_address=reader.text("node-wan-address", node_address),
        enable_faults=reader.switch("enable-faults"),
        log_level=reader.one_of("log-level", ("info", *_LOG_LEVELS)),
    )
    _check_together(settings, mistakes)
    return (None, mistakes) if mistakes else (settings, [])


class _Reader:
    """Reads values one by one; notes a mistake, and returns a value of the right type."""

    def __init__(self, values: Mapping[str, object], mistakes: list[str]) -> None:
        self._values = values
        self._mistakes = mistakes

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        value = self._values.get(name)
        if value is None or value == "":
            if required:
                self._mistakes.append(f"{name} is required")
            return default
        if not isinstance(value, str):
            self._mistakes.append(f"{name}: a text is needed, not {value!r}")
            return default
        return value

    def matching(self, name: str, pattern: re.Pattern[str], wanted: str, *, required: bool = False) -> str:
        value = self.text(name, required=required)
        if value and not pattern.fullmatch(value):
            self._mistakes.append(f"{name}: {value!r} must consist of {wanted}")
        return value

    def one_of(self, name: str, allowed: Sequence[str], default: str | None = None) -> str:
        value = self.text(name, allowed[0] if default is None else default)
        if value not in allowed and value != default:
            self._mistakes.append(f"{name}: {value!r} must be one of {', '.join(dict.fromkeys(allowed))}")
        return value

    def switch(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            self._mistakes.append(f"{name}: true or false is needed, not {value!r}")
        return value is True

    def count(self, name: str, default: int) -> int:
        value = self._values.get(name, default)
        if isinstance(value, str) and value.isascii() and value.isdigit():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._mistakes.append(f"{name}: {value!r} is no number such as {default}")
            return default
        return value

    def duration(self, name: str, default: str) -> float:
        return self._parsed(name, self.text(name, default), parse_duration)

    def url(self, name: str) -> str:
        value = self.text(name).rstrip("/")
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            self._mistakes.append(f"{name}: {value!r} is no URL such as http://10.0.0.1:8500")
        return value

    def file(self, name: str) -> str:
        """Return the content of the file without outer white space."""
        path = self.text(name)
        if not path:
            return ""
        try:
            content = Path(path).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            self._mistakes.append(f"{name}: {path} cannot be read: {_reason(error)}")
            return ""
        if not content:
            self._mistakes.append(f"{name}: {path} is empty")
        return content

    def _parsed(self, name: str, text: str, parse: Callable[[str], float]) -> float:
        try:
            seconds = parse(text)
        except ValueError:
            seconds = -1.0
        if seconds < 0:
            self._mistakes.append(f"{name}: {text!r} is no duration such as 72h or 1m30s")
        return seconds


def _read_file(path: object, mistakes: list[str]) -> dict[str, object]:
    try:
        return tomllib.loads(Path(str(path)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        mistakes.append(f"config: {path} cannot be read: {_reason(error)}")
    except tomllib.TOMLDecodeError as error:
        mistakes.append(f"config: {path} is no TOML: {error}")
    return {}


def _check_address(address: str, mistakes: list[str]) -> None:
    if address.startswith("unix://"):
        if not address.removeprefix("unix://").startswith("/"):
            mistakes.append(f"http-addr: {address!r} needs an absolute path")
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        mistakes.append(f"http-addr: {address!r} must be HOST:PORT or unix:///PATH")


def _check_together(settings: Settings, mistakes: list[str]) -> None:
    if settings.is_primary and settings.primary_addr:
        mistakes.append("primary-addr: only a secondary has one; name the primary with primary-datacenter")
    if not settings.is_primary and not settings.primary_addr:
        mistakes.append("primary-addr is required when primary-datacenter names another datacenter")
    if not settings.is_primary and settings.http_addr.startswith("unix://") and not settings.advertise_addr:
        mistakes.append("advertise-addr is required: other datacenters cannot reach a unix socket")
    if settings.leaf_ttl == 0:
        mistakes.append("leaf-ttl must be more than 0")


def _host(address: str) -> str:
    """Return the host that others can use: never a wildcard, never a socket's path."""
    host = address.rpartition(":")[0].strip("[]")
    wildcard = host in {"", "0.0.0.0", "::"}  # noqa: S104  compared, not bound
    return "127.0.0.1" if address.startswith("unix://") or wildcard else host


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
