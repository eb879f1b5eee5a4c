"""Intentions as views of the service-intentions entries: their form, matching, order and verdict.

See docs/consul-api.md#intentions.
"""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from datacenter.intentions.entry import KIND, WILDCARD
from datacenter.services.central_defaults import CONFIG_ENTRIES, entry_key
from datacenter.state.store import Document, Row, Store

NAMESPACE = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Whether a connection is allowed, and by which rule: `/v1/agent/connect/authorize`."""

    allowed: bool
    reason: str


def entry_of(store: Store, destination: str) -> Row | None:
    """Return the service-intentions entry of a destination, whatever the case of its name."""
    return store.table(CONFIG_ENTRIES).get(entry_key(KIND, destination))


def all_intentions(store: Store) -> list[Document]:
    """Return every intention, in the order of precedence."""
    prefix = f"{KIND}/"
    rows = [row for row in store.table(CONFIG_ENTRIES).rows() if row.key.startswith(prefix)]
    return ordered(intention for row in rows for intention in intentions_of(row))


def match_destination(store: Store, name: str) -> list[Document]:
    """Return all rules for callers of a service, those for any destination included.

    The first match decides.
    """
    rows = [entry_of(store, destination) for destination in dict.fromkeys((name, WILDCARD))]
    return ordered(intention for row in rows if row for intention in intentions_of(row))


def match_source(store: Store, name: str) -> list[Document]:
    """Return all rules about what a service may call; a source is compared exactly."""
    return [each for each in all_intentions(store) if each["SourceName"] in {name, WILDCARD}]


def ordered(intentions: Iterable[Document]) -> list[Document]:
    """Return descending precedence; ties by source, then destination, and no two of them match one caller."""
    return sorted(
        intentions, key=lambda each: (-each["Precedence"], each["SourceName"], each["DestinationName"])
    )


def find_by_id(store: Store, intention_id: str) -> tuple[Row, Document] | None:
    """Return a legacy intention, and its entry."""
    for row in store.table(CONFIG_ENTRIES).rows():
        if row.value["Kind"] == KIND:
            for source in row.value["Sources"]:
                if source.get("LegacyID") == intention_id:
                    return row, source
    return None


def intentions_of(row: Row) -> list[Document]:
    """Return one document for each source of an entry."""
    return [intention_of(row, source) for source in row.value["Sources"]]


def intention_of(row: Row, source: Document) -> Document:
    """Return an intention as every endpoint shows it. Only a legacy one has ID, times and hash."""
    entry = row.value
    meta = source.get("LegacyMeta") if "LegacyID" in source else entry.get("Meta")
    shown: Document = {
        "CreatedAt": source.get("LegacyCreateTime"),
        "UpdatedAt": source.get("LegacyUpdateTime"),
        "ID": source.get("LegacyID"),
        "Description": source.get("Description"),
        "SourceNS": NAMESPACE,
        "SourceName": source["Name"],
        "DestinationNS": NAMESPACE,
        "DestinationName": entry["Name"],
        "SourceType": source["Type"],
        "Action": source.get("Action"),
        "Permissions": source.get("Permissions"),
        "Meta": meta,
        "Precedence": source["Precedence"],
        "Hash": _hash(entry, source) if "LegacyID" in source else None,
        "CreateIndex": row.create_index,
        "ModifyIndex": row.modify_index,
    }
    return {key: value for key, value in shown.items() if value not in (None, "", [], {})}


def decide(
    intentions: Iterable[Document], source: str, *, namespace: str, default_allows: bool, default_reason: str
) -> Decision:
    """Return the verdict on a caller by its destination's rules in order; HTTP permissions deny here."""
    for intention in intentions:
        if namespace == NAMESPACE and intention["SourceName"] in {source, WILDCARD}:
            return _by_rule(intention)
    return Decision(allowed=default_allows, reason=default_reason)


def _by_rule(intention: Document) -> Decision:
    legacy = f"ID: {intention['ID']}, " if "ID" in intention else ""
    who = "{SourceNS}/{SourceName} => {DestinationNS}/{DestinationName}".format_map(intention)
    rule = f"{who} ({legacy}Precedence: {intention['Precedence']}"
    if "Permissions" in intention:
        count = len(intention["Permissions"])
        return Decision(allowed=False, reason=f"Matched L7 intention: {rule}, Permissions: {count})")
    action: str = intention["Action"]
    reason = f"Matched L4 intention: {rule}, Action: {action.upper()})"
    return Decision(allowed=action == "allow", reason=reason)


def _hash(entry: Document, source: Document) -> str:
    """Return the BLAKE2b-256 that Consul computes for replication to secondaries before 1.9."""
    texts: list[Any] = [
        source["LegacyID"],
        source.get("Description", ""),
        NAMESPACE,
        source["Name"],
        NAMESPACE,
        entry["Name"],
        source["Type"],
        source.get("Action", ""),
    ]
    digest = hashlib.blake2b("".join(texts).encode(), digest_size=32)
    digest.update(struct.pack("<Q", source["Precedence"]))
    for key, value in sorted(source.get("LegacyMeta", {}).items()):
        digest.update(f"{key}{value}".encode())
    return base64.b64encode(digest.digest()).decode()
