"""The operator's list of identities and certificate serials to refuse. No effects.

    # One entry a line; text after a # is a comment.
    spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web
    spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/*/svc/web
    serial 11111111-2222-3333-4444-555555555555.consul dc1 0a:7f:33

`*` stands for any datacenter or any service, and only for the whole name. A serial is unique for its issuer
only, and each datacenter has its own: an entry names the trust domain and the datacenter of the certificate's
SPIFFE ID.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from certs.peer import Peer
from certs.spiffe import InvalidSpiffeId, ServiceId, TrustDomain, parse

ANY = "*"
MOST_MISTAKES = 10  # named of one file

_SERIAL = re.compile(r"[0-9a-fA-F]{1,2}(:?[0-9a-fA-F]{2})*")

Serial = tuple[TrustDomain, str, str]  # the serial in hexadecimal, since 20 bytes fit no usual integer type


class InvalidDenyList(ValueError):
    """The text has lines that are no entries; the error names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyList:
    """The entries by what they deny, each with its line for a person."""

    ids: Mapping[ServiceId, str] = field(default_factory=dict)
    serials: Mapping[Serial, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids) + len(self.serials)

    def objection(self, peer: Peer) -> str:
        """Return the entry that denies this peer, for a person; empty if none does."""
        if not self.ids and not self.serials:
            return ""
        return self.entry_of(peer.id) or self.entry_of_serial(peer.id, peer.serial)

    def entry_of(self, identity: ServiceId) -> str:
        """Return the entry that denies this identity; empty if none does."""
        forms = (
            identity,
            replace(identity, datacenter=ANY),
            replace(identity, service=ANY),
            replace(identity, datacenter=ANY, service=ANY),
        )
        return next((self.ids[form] for form in forms if form in self.ids), "")

    def entry_of_serial(self, identity: ServiceId, serial: str) -> str:
        """Return the entry that denies this certificate; `serial` is hexadecimal, with or without colons."""
        return self.serials.get((identity.trust_domain, identity.datacenter, _number(serial)), "")


NO_ENTRIES = DenyList()


def parse_deny_list(text: str) -> DenyList:
    """Read a whole file.

    Raises InvalidDenyList for any wrong line, since a part of a list would admit callers.
    """
    ids: dict[ServiceId, str] = {}
    serials: dict[Serial, str] = {}
    mistakes = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        shown = f"deny list line {number}: {' '.join(words)}"
        try:
            if words[0] == "serial":
                serials[_serial(words)] = shown
            else:
                ids[_identity(words)] = shown
        except ValueError as error:
            mistakes.append(f"line {number}: {error}")
    if mistakes:
        left = f"; and {len(mistakes) - MOST_MISTAKES} more" if len(mistakes) > MOST_MISTAKES else ""
        raise InvalidDenyList("; ".join(mistakes[:MOST_MISTAKES]) + left)
    return DenyList(ids=ids, serials=serials)


def _serial(words: list[str]) -> Serial:
    if len(words) != 4 or not _SERIAL.fullmatch(words[3]):
        raise ValueError("write serial TRUST-DOMAIN DATACENTER HEX")
    if ANY in words[2]:
        raise ValueError("a serial is of one datacenter: name it, or deny the SPIFFE ID")
    issuer = ServiceId(trust_domain=TrustDomain.parse(words[1]), datacenter=words[2], service=ANY)
    return issuer.trust_domain, issuer.datacenter, _number(words[3])


def _number(serial: str) -> str:
    """Return a serial in one spelling: no colons, no leading zeros, lower case."""
    return f"{int(serial.replace(':', ''), 16):x}"


def _identity(words: list[str]) -> ServiceId:
    if len(words) != 1:
        raise ValueError(f"{' '.join(words)[:100]!r} is neither a SPIFFE ID nor a serial")
    identity = parse(words[0])
    if not isinstance(identity, ServiceId):
        raise InvalidSpiffeId("not_a_service", words[0])
    for part in (identity.datacenter, identity.service):
        if ANY in part and part != ANY:
            raise ValueError(f"{words[0]!r}: * stands for a whole datacenter or service")
    if ANY in identity.namespace + identity.partition:
        raise ValueError(f"{words[0]!r}: * stands for a datacenter or a service, and for nothing else")
    return identity
