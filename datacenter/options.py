"""The command line and the TOML file of `sidecar datacenter`, read into Settings; every mistake at once.

    sidecar datacenter -name dc1 -data-dir /var/lib/dc1
    sidecar datacenter -config dc1.toml -log-level debug

A flag wins over the file, the file over the default. Keys of the file are the flags' names with underscores,
and `[[tokens]]`, read by `datacenter.tokens`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from datacenter.durations import parse_duration
from datacenter.settings import Settings
from datacenter.tokens import parse_tokens

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}")
_LOG_LEVELS = ("debug", "info", "warning", "error")


class UsageMistake(Exception):
    """The command line itself cannot be read."""


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
    "data-dir": _Option(says="where everything is kept", takes="DIR"),
    "advertise-addr": _Option(says="URL under which other datacenters reach this one", takes="URL"),
    "primary-datacenter": _Option(says="name of the primary; default: this is it", takes="NAME"),
    "primary-addr": _Option(says="URL of the primary's API", takes="URL"),
    "replication-token-file": _Option(says="token for joining and following the primary", takes="FILE"),
    "translate-wan-addrs": _Option(says="answer with WAN addresses of other datacenters", takes=""),
    "default-policy": _Option(says="deny switches ACLs on; default allow", takes="allow|deny"),
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


def usage() -> str:
    """The help text."""
    lines = [f"  {f'-{name} {option.takes}'.rstrip():<44} {option.says}" for name, option in OPTIONS.items()]
    return "usage: sidecar datacenter [-config FILE] [FLAGS]\n\n" + "\n".join(lines) + "\n"


def parse_flags(words: Sequence[str]) -> dict[str, object]:
    """Flag name -> text, True for a switch. One dash or two, `-flag value` or `-flag=value`.

    Raises UsageMistake.
    """
    given: dict[str, object] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        option = OPTIONS.get(name)
        if not word.startswith("-") or option is None:
            raise UsageMistake(f"unknown argument {word!r}")
        if not option.takes:
            given[name] = value.lower() not in {"false", "0"} if equals else True
        elif equals:
            given[name] = value
        elif rest:
            given[name] = rest.pop(0)
        else:
            raise UsageMistake(f"-{name} needs a value: {option.takes}")
    return given


def read_settings(flags: Mapping[str, object]) -> tuple[Settings | None, list[str]]:
    """The settings, or everything that is wrong with them."""
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
        data_dir=Path(reader.text("data-dir", required=True)),
        primary_datacenter=primary,
        primary_addr=reader.url("primary-addr") or None,
        replication_token=reader.file("replication-token-file"),
        advertise_addr=reader.url("advertise-addr"),
        translate_wan_addrs=reader.switch("translate-wan-addrs"),
        default_policy_allows=reader.one_of("default-policy", ("allow", "deny")) == "allow",
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
    """Takes values one by one; a mistake is noted, and something of the right type returned."""

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

    def one_of(self, name: str, allowed: Sequence[str]) -> str:
        value = self.text(name, allowed[0])
        if value not in allowed:
            self._mistakes.append(f"{name}: {value!r} must be one of {', '.join(dict.fromkeys(allowed))}")
        return value

    def switch(self, name: str) -> bool:
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            self._mistakes.append(f"{name}: true or false is needed, not {value!r}")
        return value is True

    def duration(self, name: str, default: str) -> float:
        return self._parsed(name, self.text(name, default), parse_duration)

    def url(self, name: str) -> str:
        value = self.text(name).rstrip("/")
        if value and (urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname):
            self._mistakes.append(f"{name}: {value!r} is no URL such as http://10.0.0.1:8500")
        return value

    def file(self, name: str) -> str:
        """The content of the file, without the white space around it."""
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
    """The host to be known by: never a wildcard, never a socket's path."""
    host = address.rpartition(":")[0].strip("[]")
    wildcard = host in {"", "0.0.0.0", "::"}  # noqa: S104  compared, not bound
    return "127.0.0.1" if address.startswith("unix://") or wildcard else host


def _reason(error: Exception) -> str:
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)
