"""Who is let in by nobody any more: an operator's list of identities and certificate serials (pure).

    # One entry a line; what follows a # is for people.
    spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/dc1/svc/web
    spiffe://11111111-2222-3333-4444-555555555555.consul/ns/default/dc/*/svc/web
    serial 11111111-2222-3333-4444-555555555555.consul dc1 0a:7f:33

`*` stands for any datacenter or any service, whole. A serial is one of its issuer, of which each datacenter
has its own: so it is given with its trust domain and the datacenter in the certificate's SPIFFE ID.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from certs.peer import Peer
from certs.spiffe import InvalidSpiffeId, ServiceId, TrustDomain, parse

ANY = "*"
MOST_MISTAKES = 10  # told of one file

_SERIAL = re.compile(r"[0-9a-fA-F]{1,2}(:?[0-9a-fA-F]{2})*")

Serial = tuple[TrustDomain, str, str]  # the number in hexadecimal: 20 bytes are no integer to most formats


class InvalidDenyList(ValueError):
    """A text with lines that are no entries; it names them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenyList:
    """Entries by what they deny, each with its line for a person."""

    ids: Mapping[ServiceId, str] = field(default_factory=dict)
    serials: Mapping[Serial, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids) + len(self.serials)

    def objection(self, peer: Peer) -> str:
        """The entry that denies this peer, for a person; empty if none does."""
        if not self.ids and not self.serials:
            return ""
        return self.entry_of(peer.id) or self.entry_of_serial(peer.id, peer.serial)

    def entry_of(self, identity: ServiceId) -> str:
        """The entry that denies this identity."""
        forms = (
            identity,
            replace(identity, datacenter=ANY),
            replace(identity, service=ANY),
            replace(identity, datacenter=ANY, service=ANY),
        )
        return next((self.ids[form] for form in forms if form in self.ids), "")

    def entry_of_serial(self, identity: ServiceId, serial: str) -> str:
        """The entry that denies this certificate; `serial` is hexadecimal, with colons or without."""
        return self.serials.get((identity.trust_domain, identity.datacenter, _number(serial)), "")


NO_ENTRIES = DenyList()


def parse_deny_list(text: str) -> DenyList:
    """Read a whole file; raise InvalidDenyList, for half a list would let somebody in."""
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
    """One spelling of a serial: no colons, no leading zeros, small letters."""
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
