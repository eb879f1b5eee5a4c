"""An operator's deny list: any text is refused whole, by name, or read so that each of its entries denies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from agent.policy.deny_list import ANY, InvalidDenyList, parse_deny_list
from certs.peer import Peer
from certs.spiffe import ServiceId
from tests.fuzz.target import Target

_NEVER = datetime(9999, 1, 1, tzinfo=UTC)


def fuzz_one(data: bytes) -> None:
    """Read it, and meet everybody it names."""
    text = data.decode("utf-8", "replace")
    try:
        denied = parse_deny_list(text)
    except InvalidDenyList:
        return
    lines = sum(1 for line in text.splitlines() if line.partition("#")[0].split())
    assert len(denied) <= lines
    assert bool(len(denied)) is bool(lines)
    for entry in denied.ids:
        datacenter = "x" if entry.datacenter == ANY else entry.datacenter
        service = "x" if entry.service == ANY else entry.service
        identity = replace(entry, datacenter=datacenter, service=service)
        assert denied.objection(Peer(id=identity, serial="01", not_after=_NEVER, root=""))
    for domain, datacenter, number in denied.serials:
        identity = ServiceId(trust_domain=domain, datacenter=datacenter, service="x")
        assert denied.objection(Peer(id=identity, serial=number, not_after=_NEVER, root=""))


TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        b"# nobody\n\n",
        b"spiffe://td.consul/ns/default/dc/dc1/svc/web # him\n",
        b"spiffe://td.consul/ns/default/dc/*/svc/*\r\nserial td.consul dc1 0a:7f:33\n",
        b"serial TD.consul dc1 0A7F33\nserial td dc1 0\n",
        b"spiffe://td.consul\n",
        b"serial td.consul dc1 zz\nspiffe://td.consul/ns/default/dc/d*/svc/web\n",
    ),
    words=(
        b"serial ",
        b"spiffe://",
        b"/ns/default/dc/",
        b"/svc/",
        b"*",
        b"#",
        b"\n",
        b"\x0c",
        b"\xe2\x80\xa8",
        b":",
    ),
)
