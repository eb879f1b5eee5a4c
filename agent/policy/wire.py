"""One intention as Consul answers it, before anything is made of it (docs/consul-api.md#intentions)."""

from __future__ import annotations

import msgspec

from certs.spiffe import DEFAULT

WILDCARD = "*"


class IntentionAnswer(msgspec.Struct, frozen=True, rename="pascal"):
    """What is looked at of it."""

    source_name: str
    destination_name: str
    source_ns: str = msgspec.field(name="SourceNS", default=DEFAULT)
    destination_ns: str = msgspec.field(name="DestinationNS", default=DEFAULT)
    source_partition: str = ""
    destination_partition: str = ""
    source_peer: str = ""
    source_sameness_group: str = ""
    action: str = ""
    permissions: list[object] | None = None
    meta: dict[str, object] | None = None
    jwt: object = msgspec.field(name="JWT", default=None)


_decoder = msgspec.json.Decoder(IntentionAnswer)


def read_item(raw: object) -> IntentionAnswer:
    """Read one that is decoded, or still JSON (msgspec.Raw); raise msgspec.DecodeError."""
    return _decoder.decode(raw) if isinstance(raw, msgspec.Raw) else msgspec.convert(raw, IntentionAnswer)


def can_decide(item: IntentionAnswer, destination: str) -> bool:
    """Whether it can ever decide about that destination, here."""
    return (
        not item.source_peer
        and not item.source_sameness_group
        and item.source_partition in {"", DEFAULT}
        and item.destination_partition in {"", DEFAULT}
        and item.source_ns in {"", DEFAULT, WILDCARD}
        and item.destination_ns in {"", DEFAULT, WILDCARD}
        and item.destination_name in {destination, WILDCARD}
    )
