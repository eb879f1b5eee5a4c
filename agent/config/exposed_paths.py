"""Reads `Expose` of a proxy: paths of the app that are answered in the clear, for health checks and scrapers.

See docs/exposed-paths.md, and https://developer.hashicorp.com/consul/docs/reference/proxy/expose-paths for
Consul's side.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.base.address import Address, TcpAddress
from agent.config.opaque_config import Problem, ProblemReason, shown, unknown_keys

# A path that a request has in exactly one spelling: no escape, no query, no empty or dot segment.
_SEGMENT = r"(?!\.{0,2}(?:/|\Z))[\w.~!$&'()*+,=:@-]+"
_EXPOSABLE = re.compile(rf"/(?:{_SEGMENT}(?:/|\Z))*", re.ASCII)
_NO_CHECKS = (
    "not served: Consul sends the service's HTTP checks to ports of which its API does not say the path, so "
    "they turn critical; unset it, and name the paths in Expose.Paths"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedPath:
    """A path of the app that is answered in the clear, at a listener of its own."""

    path: str
    bind: TcpAddress
    app: Address

    def __str__(self) -> str:
        return f"{self.path} at {self.bind}"


class PathAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """One of `Paths`."""

    path: str = ""
    listener_port: int = 0
    local_path_port: int = 0
    protocol: str = ""


class ExposeAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """`Expose` as Consul answers it."""

    checks: bool = False
    paths: list[PathAnswer] | None = None


def read_exposed(
    expose: ExposeAnswer | None, host: str, app: Address, problems: list[Problem]
) -> Iterator[ExposedPath]:
    """Yield the paths that can be served, at `host`; each other one is a problem.

    `app`: where the app is; over TCP at the port that the path names, as with Envoy.
    """
    if expose is None:
        return
    if expose.checks:
        where, reason = "Proxy.Expose.Checks", ProblemReason.EXPOSED_PATHS
        problems.append(Problem(where=where, reason=reason, detail=_NO_CHECKS))
    for number, one in enumerate(expose.paths or ()):
        fault = _fault(one)
        if fault is None:
            place = TcpAddress(app.host, one.local_path_port) if isinstance(app, TcpAddress) else app
            yield ExposedPath(path=one.path, bind=TcpAddress(host, one.listener_port), app=place)
        else:
            where = f"Proxy.Expose.Paths[{number}]"
            problems.append(Problem(where=where, reason=fault[0], detail=f"{fault[1]}; not served"))


def unknown_of_expose(expose: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the unknown keys of each part of `Expose`. `ParsedFromCheck` is of Consul's own making."""
    found = {"Proxy.Expose": unknown_keys(expose, ExposeAnswer.__struct_encode_fields__)}
    known = (*PathAnswer.__struct_encode_fields__, "ParsedFromCheck")
    for number, one in enumerate(expose.get("Paths") or ()):
        found[f"Proxy.Expose.Paths[{number}]"] = unknown_keys(one, known)
    return found


def _fault(one: PathAnswer) -> tuple[ProblemReason, str] | None:
    """Return why a path cannot be served; None if it can."""
    if one.protocol.lower() not in ("", "http"):
        return ProblemReason.EXPOSED_PATHS, f"Protocol {shown(one.protocol)} is not spoken there, but http is"
    for name, port in (("ListenerPort", one.listener_port), ("LocalPathPort", one.local_path_port)):
        if not 1 <= port <= 65535:
            return ProblemReason.WRONG_VALUE, f"{name} {shown(port)} is not a port"
    if not _EXPOSABLE.fullmatch(one.path):
        detail = (
            f"Path {shown(one.path)} is not a plain path: / first, no escape, query, parameter or dot segment"
        )
        return ProblemReason.WRONG_VALUE, detail
    return None
