"""The minimal policy of a sidecar, one rule each, and datacenters in which tokens have some of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from tests.contract.alone import managed
from tests.contract.client import Api
from tests.contract.federation import Kind

# Of a sidecar of web with an upstream db, as docs/consul-api.md#rights has it.
MINIMAL = {
    "registration": 'service "web-sidecar-proxy" { policy = "read" }',
    "identity": 'service "web" { policy = "write" }',
    "upstream": 'service "db" { policy = "read" }',
    "proxies": 'service "db-sidecar-proxy" { policy = "read" }',
    "nodes": 'node_prefix "" { policy = "read" }',
}
RULE = re.compile(r'(service|node_prefix) "([^"]*)" \{ policy = "(\w+)" \}')
_ANONYMOUS = "00000000-0000-0000-0000-000000000002"  # the accessor of a real Consul's


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """An agent, and the secret of a token that has what was asked for."""

    url: str
    secret: str


class Rights(Protocol):
    """Ways to have a token with some rules, beside an anonymous one with others."""

    def grant(self, rules: Sequence[str], anonymous: Sequence[str] = ()) -> Granted: ...


@contextmanager
def rights(kind: Kind, directory: Path) -> Iterator[Rights]:
    """A datacenter of this kind with a registered sidecar of web and an instance of db."""
    with ExitStack() as stack:
        yield _Embedded(stack, directory) if kind == "embedded" else _Consul(stack, directory)


def one_a_name(rules: Iterable[str]) -> list[str]:
    """Of several rules for one name the one that grants most: Consul refuses two."""
    best: dict[str, str] = {}
    for rule in sorted(rules, key=lambda rule: "write" in rule):
        best[rule.partition("{")[0]] = rule
    return list(best.values())


def _filled(manager: Api) -> None:
    upstreams = [{"DestinationName": "db", "LocalBindPort": 9191}]
    sidecar = {"Port": 21000, "Checks": [], "Proxy": {"Upstreams": upstreams}}
    for service in (
        {"Name": "web", "Port": 80, "Connect": {"SidecarService": sidecar}},
        {"Name": "db", "Port": 5432, "Connect": {"SidecarService": {"Port": 21001, "Checks": []}}},
    ):
        assert manager.put("/v1/agent/service/register", service).status == 200
    for name in ("web", "db"):
        manager.until(f"/v1/health/connect/{name}", len)


class _Embedded:
    """Its tokens are in a file that it reads at its start: each set of them has a datacenter of its own."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        self._stack, self._directory = stack, directory
        self._known: dict[tuple[frozenset[str], frozenset[str]], Granted] = {}

    def grant(self, rules: Sequence[str], anonymous: Sequence[str] = ()) -> Granted:
        key = (frozenset(rules), frozenset(anonymous))
        if key not in self._known:
            secret = str(uuid4())
            tokens = _in_toml(secret, rules) + _in_toml("anonymous", anonymous)
            directory = self._directory / str(len(self._known))
            directory.mkdir()
            start = managed("embedded", "deny", directory, tokens=tokens)
            _, manager = self._stack.enter_context(start)
            _filled(manager)
            self._known[key] = Granted(url=manager.url, secret=secret)
        return self._known[key]


def _in_toml(secret: str, rules: Sequence[str]) -> str:
    """Return a token in the form of the embedded datacenter's file."""
    lines = [f'[[tokens]]\nsecret = "{secret}"\n']
    for kind in ("service", "node_prefix"):
        named = [RULE.fullmatch(rule) for rule in rules if rule.startswith(f"{kind} ")]
        if named:
            lines.append(f"[tokens.policy.{kind}]\n")
            lines += [f'"{rule[2]}" = "{rule[3]}"\n' for rule in named if rule]
    return "".join(lines)


class _Consul:
    """A real one, whose policies are written while it runs."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        _, self._manager = stack.enter_context(managed("consul", "deny", directory))
        _filled(self._manager)

    def grant(self, rules: Sequence[str], anonymous: Sequence[str] = ()) -> Granted:
        made = self._manager.put("/v1/acl/token", {"Policies": self._policies(rules)}).json
        body = {"AccessorID": _ANONYMOUS, "Policies": self._policies(anonymous)}
        assert self._manager.put(f"/v1/acl/token/{_ANONYMOUS}", body).status == 200
        return Granted(url=self._manager.url, secret=made["SecretID"])

    def _policies(self, rules: Sequence[str]) -> list[dict[str, str]]:
        if not rules:
            return []
        name = f"policy-{uuid4()}"
        answer = self._manager.put("/v1/acl/policy", {"Name": name, "Rules": "\n".join(rules)})
        assert answer.status == 200, answer.text
        return [{"Name": name}]
