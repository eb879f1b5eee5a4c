"""Identities: any text is refused by name, or read into an id that prints in the one form it has."""

from __future__ import annotations

from certs.spiffe import MAX_URI_BYTES, InvalidSpiffeId, OtherId, ServiceId, parse
from tests.fuzz.target import Target


def fuzz_one(data: bytes) -> None:
    """Read, print, read again."""
    text = data.decode("latin-1")
    try:
        identity = parse(text)
    except InvalidSpiffeId as refused:
        assert str(refused).isprintable()
        return
    printed = str(identity)
    assert printed.isascii()
    assert len(text) <= MAX_URI_BYTES
    if not isinstance(identity, OtherId):
        assert parse(printed) == identity
        assert str(parse(printed)) == printed
    if isinstance(identity, ServiceId):
        names = (identity.namespace, identity.datacenter, identity.service, identity.partition)
        assert all(name and "/" not in name and name.isprintable() for name in names)


_DOMAIN = b"spiffe://11111111-2222-3333-4444-555555555555.consul"

TARGET = Target(
    fuzz_one=fuzz_one,
    seeds=(
        _DOMAIN,
        _DOMAIN + b"/ns/default/dc/dc1/svc/web",
        _DOMAIN + b"/ap/p/ns/n/dc/dc1/svc/w%C3%A9b%25",
        _DOMAIN + b"/agent/client/dc/dc1/id/node",
        _DOMAIN + b"/agent/server/dc/dc1",
        _DOMAIN + b"/gateway/mesh/dc/dc1",
        _DOMAIN + b"/ap/p/ns/n/identity/i",
        b"SPIFFE://UPPER.consul/ns/default/dc/dc1/svc/%2e%2e",
        b"spiffe://td/ns/default/dc/dc1/svc/a%2Fb",
        b"spiffe://td/" + b"a" * MAX_URI_BYTES,
        b"spiffe://user@td:80/x?q#f",
    ),
    words=(
        *(b"spiffe://", b"/ns/", b"/dc/", b"/svc/", b"/ap/", b"/agent/client/dc/", b"/agent/server/dc/"),
        *(b"/gateway/mesh/dc/", b"/identity/", b"/id/", b"%2F", b"%2e", b"%00", b"%E2%80%AE", b"%C3%A9"),
        *(b"default", b"//", b"..", b"?", b"#", b"@", b":"),
    ),
)
