"""Reads `[[tokens]]` of the settings file: secrets and their rights, in the terms of Consul's rules.

[[tokens]]
secret = "6f2a…"
policy = "management"

[[tokens]]
secret = "91bc…"
[tokens.policy]
service_identities = ["web"]             # web and its sidecar, and reading everything else
operator = "read"
[tokens.policy.service]
db = "write"
[tokens.policy.intentions_prefix]
"" = "read"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from datacenter.state.acl import service_identity
from datacenter.state.settings import Access, Policy, Token

_ACCESS = {"deny": Access.DENY, "read": Access.READ, "write": Access.WRITE}
_NAMED = (
    "service",
    "service_prefix",
    "intentions",
    "intentions_prefix",
    "node",
    "node_prefix",
    "query",
    "query_prefix",
)
_PLAIN = ("agent", "operator")


class _Mistake(Exception):
    """A mistake in a token; the text never quotes a secret."""


def parse_tokens(value: object) -> tuple[tuple[Token, ...], list[str]]:
    """Return the tokens, and every mistake in them; a token with a mistake is left out."""
    if not isinstance(value, list):
        return (), ["tokens: write each as [[tokens]]"]
    tokens: list[Token] = []
    mistakes: list[str] = []
    for number, entry in enumerate(value, start=1):
        try:
            token = _token(entry)
            if any(token.secret == other.secret for other in tokens):
                raise _Mistake("the secret is the same as an earlier one's")  # noqa: TRY301  noted with the others
            tokens.append(token)
        except _Mistake as mistake:
            mistakes.append(f"tokens, number {number}: {mistake}")
    return tuple(tokens), mistakes


def _token(entry: object) -> Token:
    table = _table(entry, "a token")
    _only(table, ("secret", "policy", "description"), "")
    secret, description = table.get("secret"), table.get("description", "")
    if not isinstance(secret, str) or not secret:
        raise _Mistake("a secret is required")
    if not isinstance(description, str):
        raise _Mistake("description: a text is needed")
    return Token(secret=secret, policy=_policy(table.get("policy", {})), description=description)


def _policy(value: object) -> Policy:
    if value == "management":
        return Policy(management=True)
    table = _table(value, 'policy: "management" or a table')
    _only(table, (*_NAMED, *_PLAIN, "service_identities"), "policy: ")
    policy = _identities(table.get("service_identities", []))
    named = {key: _rules(table[key], key) for key in _NAMED if key in table}
    plain = {key: _access(table[key], key) for key in _PLAIN if key in table}
    return replace(
        policy,
        service={**policy.service, **named.get("service", {})},
        service_prefix={**policy.service_prefix, **named.get("service_prefix", {})},
        intentions=named.get("intentions", {}),
        intentions_prefix=named.get("intentions_prefix", {}),
        node=named.get("node", {}),
        node_prefix={**policy.node_prefix, **named.get("node_prefix", {})},
        query=named.get("query", {}),
        query_prefix=named.get("query_prefix", {}),
        agent=plain.get("agent"),
        operator=plain.get("operator"),
    )


def _identities(names: object) -> Policy:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _Mistake("policy.service_identities: a list of service names is needed")
    policies = [service_identity(name) for name in names]
    return Policy(
        service={name: access for each in policies for name, access in each.service.items()},
        service_prefix={"": Access.READ} if policies else {},
        node_prefix={"": Access.READ} if policies else {},
    )


def _rules(value: object, key: str) -> dict[str, Access]:
    table = _table(value, f"policy.{key}: a table of names")
    return {name: _access(access, f"{key}.{name}") for name, access in table.items()}


def _access(value: object, key: str) -> Access:
    if not isinstance(value, str) or value not in _ACCESS:
        raise _Mistake(f"policy.{key}: deny, read or write is needed, not {value!r}")
    return _ACCESS[value]


def _table(value: object, wanted: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise _Mistake(f"{wanted} is needed")
    return value


def _only(table: Mapping[str, object], known: tuple[str, ...], where: str) -> None:
    unknown = [key for key in table if key not in known]
    if unknown:
        raise _Mistake(f"{where}unknown key {', '.join(map(repr, unknown))}")
