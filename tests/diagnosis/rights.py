"""The tokens of the mesh: one of a manager, one of each sidecar, and web's with a right taken away.

An embedded datacenter reads its tokens once, so the token with the rule that a remedy names is there from the
beginning, under a secret that follows from that very rule: a remedy that names another rule cures nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

MANAGER, WEB, UNKNOWN = "manager", "web-token", "deleted-token"
SIDECARS = {"web": WEB, "db": "db-token"}

# The minimal policy of docs/consul-api.md#rights, one rule each.
MINIMAL: Mapping[str, str] = {
    "registration": 'service "web-sidecar-proxy" { policy = "read" }',
    "identity": 'service "web" { policy = "write" }',
    "upstream": 'service "db" { policy = "read" }',
    "proxies": 'service "db-sidecar-proxy" { policy = "read" }',
    "nodes": 'node_prefix "" { policy = "read" }',
}
LIST = {MINIMAL[right] for right in ("upstream", "proxies", "nodes")}
_RULE = re.compile(r'(service|service_prefix|node_prefix) "([^"]*)" \{ policy = "(\w+)" \}')


def without(right: str) -> str:
    """The secret of web's token that lacks a right."""
    return f"without-{right}"


def cured(right: str, remedy: str) -> str:
    """The secret of the token that lacks a right and has the rules which a remedy names."""
    return _secret(right, {one.group() for one in _RULE.finditer(remedy)})


def _secret(right: str, rules: Iterable[str]) -> str:
    return "-".join((without(right), "but", *(re.sub(r"\W+", ".", rule) for rule in sorted(rules))))


def tokens_file() -> str:
    """The file of settings with all tokens."""
    tokens = [f'[[tokens]]\nsecret = "{MANAGER}"\npolicy = "management"\n']
    tokens += [_token(secret, f'service_identities = ["{name}"]\n') for name, secret in SIDECARS.items()]
    tokens += [_token(secret, _policy(rules)) for secret, rules in dict(_partial()).items()]
    return "".join(tokens)


def _partial() -> Iterator[tuple[str, set[str]]]:
    for right, missing in MINIMAL.items():
        rest = set(MINIMAL.values()) - {missing}
        yield without(right), rest
        for given in ({missing}, LIST):
            yield _secret(right, given), rest | given


def _token(secret: str, policy: str) -> str:
    return f'[[tokens]]\nsecret = "{secret}"\n[tokens.policy]\n{policy}'


def _policy(rules: Iterable[str]) -> str:
    tables: dict[str, list[str]] = {}
    for rule in rules:
        found = _RULE.fullmatch(rule)
        assert found, rule
        tables.setdefault(found[1], []).append(f'"{found[2]}" = "{found[3]}"\n')
    return "".join(f"[tokens.policy.{kind}]\n{''.join(lines)}" for kind, lines in tables.items())
