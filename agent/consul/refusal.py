"""What a refusal by Consul's ACLs means, and the one rule that cures it.

Three refusals are told apart: no token was sent, Consul does not know the token (deleted, expired, or not
replicated to this datacenter yet), and the token lacks a right. Since 1.12 Consul names the right; before, it
follows from the endpoint (docs/consul-api.md#rights).
"""

from __future__ import annotations

import re
from enum import StrEnum
from urllib.parse import unquote

from agent.consul.errors import ConsulError, ConsulReason

_UNKNOWN = ("ACL not found", "token does not exist", "ACL token not found")
_NAMED = re.compile(r"lacks permission '(\w+):(\w+)' on \"([^\"]+)\"")  # 1.12 and later
_MISSING = re.compile(r"[Mm]issing (\w+):(\w+) on (\S+)")  # 1.10, where a service is registered
_PROXY = re.compile(r"/v1/agent/service/([^/]+)")
_LEAF = re.compile(r"/v1/agent/connect/ca/leaf/([^/]+)")
_LIST = re.compile(r"/v1/health/connect/([^/]+)")
_QUERY = re.compile(r"/v1/query/([^/]+)/execute")

NODES = 'node_prefix "" { policy = "read" }'


class Refusal(StrEnum):
    """Why Consul refuses a token."""

    ABSENT = "token_absent"
    UNKNOWN = "token_unknown"
    INSUFFICIENT = "token_insufficient"


def refusal(error: ConsulError, *, given: bool) -> Refusal | None:
    """Return why Consul refuses; None if it does not. `given`: whether a token was sent."""
    if error.reason is not ConsulReason.DENIED:
        return None
    if not given:
        return Refusal.ABSENT
    unknown = any(text in error.text for text in _UNKNOWN)
    return Refusal.UNKNOWN if unknown else Refusal.INSUFFICIENT


def rule_for(resource: str, name: str, access: str) -> str:
    """Return one rule of a policy, as Consul writes it."""
    return f'{resource} "{name}" {{ policy = "{access}" }}'


def list_rules(name: str) -> str:
    """Return the rules for a list of instances: it has proxies, under their own name, and nodes."""
    proxies = rule_for("service", f"{name}-sidecar-proxy", "read")
    return f"{rule_for('service', name, 'read')}, {proxies} and {NODES}"


def missing_rule(error: ConsulError, service: str) -> str:
    """Return the rule that the refused question needs. `service` is the one that the sidecar stands for."""
    named = _NAMED.search(error.text) or _MISSING.search(error.text)
    if named and named[1] in ("service", "node", "query", "agent"):
        return rule_for(named[1], named[3], named[2])
    if named and named[1] == "intention":
        return f'service "{named[3]}" {{ policy = "read" intentions = "{named[2]}" }}'
    if found := _PROXY.fullmatch(error.path):
        return rule_for("service", unquote(found[1]), "read")
    if found := _LIST.fullmatch(error.path):
        return list_rules(unquote(found[1]))
    if found := _QUERY.fullmatch(error.path):
        return rule_for("query", unquote(found[1]), "read")
    if error.path.endswith("/intentions/match"):
        return f'service "{service}" {{ policy = "read" }} (which includes intentions = "read")'
    if found := _LEAF.fullmatch(error.path):
        return rule_for("service", unquote(found[1]), "write")
    return rule_for("service", service, "write")


def remedy(error: ConsulError, *, given: bool, service: str) -> str:
    """Return what an operator does about a refusal; empty if it is none."""
    match refusal(error, given=given):
        case Refusal.ABSENT:
            return f"no token is given, and the anonymous one lacks {missing_rule(error, service)}: {_GIVE}"
        case Refusal.UNKNOWN:
            return (
                "Consul does not know this token: it was deleted, has expired, or has not reached this "
                f"datacenter yet; {_GIVE}"
            )
        case Refusal.INSUFFICIENT:
            rule = missing_rule(error, service)
            return f"the token lacks {rule}; a token with the service identity of {service} has it"
        case _:
            return ""


_GIVE = "give a valid one with -token-file or CONSUL_HTTP_TOKEN"
