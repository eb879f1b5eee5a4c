"""What a newer Consul answers where 1.10 answered otherwise: one table, and the answers that follow from it.

The cases of this suite are written in the words of 1.10.12, which are the embedded datacenter's. The newer
ones were seen on 1.18. Of a version between the two it is not known which words it has, and either will do.
docs/consul-api.md#versions has the same for readers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tests.contract.client import Api

Version = tuple[int, int]
Told = tuple[int, str]  # a status and a bare text

OLD: Version = (1, 10)
NEW: Version = (1, 18)

# "STATUS TEXT" of 1.10, as a pattern over its whole, and what NEW answers instead.
_CHANGES = (
    (r"(?:400|500) Bad request: (.*)", r"400 \1"),
    (r"400 (1 error occurred:.*)", r"400 Validation failed: \1"),
    (r"400 (.*)HTTP, H2PING, or TCP checks", r"400 \1HTTP, H2PING, TCP, UDP or OSService checks"),
    (r"400 (.*)must be set for a Connect proxy(.*)", r"400 \1must be set for a connect-proxy\2"),
    (r'500 (ServiceID "\w+" does not exist)', r"404 \1"),
    (
        r'404 No service registered with ID "(\w+)"',
        r'404 Unknown service ID "\1". Ensure that the service ID is passed, not the service name.',
    ),
    (
        r'500 CheckID "(\w+)" does not have associated TTL',
        r'404 Unknown check ID "\1". Ensure that the check ID is passed, not the check name.',
    ),
    (r"500 (.*error in upstream override for) : (.*)", r"500 \1 :: \2"),
    (
        r"500 URI must be either service or agent",
        r"500 URI must be either workload identity, service, agent, server, or kind",
    ),
)

# What the same question is answered with, by its path: where 1.10 takes it and NEW refuses it, and a text.
_BY_PATH: dict[str, Told] = {
    "/v1/agent/service/deregister/nope": (
        404,
        'Unknown service ID "nope". Ensure that the service ID is passed, not the service name.',
    ),
    "/v1/agent/check/deregister/nope": (
        404,
        'Unknown check ID "nope". Ensure that the check ID is passed, not the check name.',
    ),
    "/v1/nope": (404, "Invalid URL path: not a recognized HTTP API endpoint\n"),
    "/v1/config proxy-defaults": (500, 'invalid name ("another"), only "global" is supported'),
} | {
    f"upstream of a sidecar: {mistake}": (400, f"Failed Validation: 1 error occurred:\n\t* {mistake}\n\n")
    for mistake in (
        "upstream destination name cannot be empty",
        "upstream local bind port or local socket path must be defined and nonzero",
        'unknown upstream destination type: "zip"',
        (
            "upstreams cannot contain duplicates by local bind address and port or unix path; "
            '"127.0.0.1:7" is specified twice'
        ),
    )
}

VIRTUAL = "consul-virtual"

# Keys that NEW adds to a prepared query, with the value of a query that says nothing of them.
QUERY_KEYS: dict[str, Any] = {"SamenessGroup": "", "Peer": ""}
FAILOVER_KEYS: dict[str, Any] = {"Targets": None}

ACLS_OFF = {
    OLD: "ACLs disabled, access is allowed by default",
    NEW: "Default behavior configured by ACLs",
}


def version_of(api: Api) -> Version:
    """The version of the agent: 1.10 is the embedded datacenter's."""
    major, minor = api.get("/v1/agent/self").json["Config"]["Version"].split(".")[:2]
    return int(major), int(minor)


def answers(api: Api, status: int, text: str, *, path: str = "") -> set[Told]:
    """What this agent may answer where 1.10 answers with this status and text."""
    return {told for told, of in _both(status, text, path) if of in _held_to(api)}


def _both(status: int, text: str, path: str) -> Iterator[tuple[Told, Version]]:
    yield (status, text), OLD
    yield _BY_PATH.get(path) or _changed(status, text), NEW


def _changed(status: int, text: str) -> Told:
    told = f"{status} {text}"
    for was, now in _CHANGES:
        match = re.fullmatch(was, told, re.DOTALL)
        told = match.expand(now) if match else told
    code, _, words = told.partition(" ")
    return int(code), words


def _held_to(api: Api) -> set[Version]:
    """The versions whose words this one may have: the other one's too if it stands between them."""
    version = version_of(api)
    return {OLD} if version <= OLD else {NEW} if version >= NEW else {OLD, NEW}


def is_new(api: Api) -> bool:
    """Whether it is no older than NEW, for what a newer one has beside."""
    return version_of(api) >= NEW


def reasons(api: Api) -> set[str]:
    """Why a caller is let in where ACLs are off and no rule matches."""
    return {ACLS_OFF[each] for each in _held_to(api)}


def lasting(api: Api, registration: dict[str, Any]) -> dict[str, Any]:
    """A registration without what a newer Consul adds later: a virtual address, which is in its hash."""
    if not is_new(api):
        return registration
    tagged = {tag: it for tag, it in registration.get("TaggedAddresses", {}).items() if tag != VIRTUAL}
    return {**registration, "TaggedAddresses": tagged, "ContentHash": ""}
