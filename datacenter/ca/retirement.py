"""Retires roots that were rotated out, once no leaf under them can be valid anywhere in the federation.

In Consul each datacenter decides by its own leaf lifetime, and a datacenter that was cut off goes on signing
under a root that the others have dropped. Here the primary decides for all. Every datacenter reports, when it
joins and whenever that changes, how long its leaves live and under which root it signs. A root stays for
twice the longest of these lives after the last datacenter stopped signing under it, and as long as one has
not stopped. A secondary keeps what the primary lists, by the primary's last answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta

from datacenter.ca.authority import CertificateAuthority
from datacenter.ca.trust import pruned
from datacenter.http.context import Datacenter
from datacenter.http.forward import DATACENTERS, signing_under
from datacenter.state.store import Document

_TABLE = "federation"
_LISTED = "primary-roots"  # in a secondary: what the primary listed last


def longest_leaf_life(dc: Datacenter) -> timedelta:
    """Return how long any leaf of the federation may live, as far as known here."""
    reported = [float(row.value.get("LeafTTL", 0)) for row in dc.store.table(DATACENTERS).rows()]
    row = dc.store.table(_TABLE).get(_LISTED)
    listed = float(row.value["LeafTTL"]) if row else 0.0
    return max(CertificateAuthority(dc).leaf_life, timedelta(seconds=max([listed, *reported])))


def retire(dc: Datacenter) -> None:
    """Drop the roots whose time is over."""
    ca = CertificateAuthority(dc)
    trust = ca.trust
    if trust is not None:
        ca.trust_more(pruned(trust, dc.clock(), 2 * longest_leaf_life(dc), _held(dc)))


def take_report(dc: Datacenter, name: str, *, address: str, leaf_ttl: float, root_id: str) -> None:
    """Take a secondary's report, in the primary."""
    table = dc.store.table(DATACENTERS)
    value = {"Address": address, "LeafTTL": leaf_ttl, "RootID": root_id, "Signed": []}
    row = table.get(name)
    if row is not None and row.value == value:
        return
    with dc.store.transaction():
        table.put(name, value)
        if row is not None:
            _left(dc, signing_under(row.value) - {root_id})


def take_request(dc: Datacenter, name: str) -> None:
    """Note, in the primary, that a secondary is about to sign under the active root.

    Until its next report it may be signing under either root.
    """
    table = dc.store.table(DATACENTERS)
    row = table.get(name)
    value: Document = {"Address": "", "LeafTTL": 0, "RootID": ""} if row is None else row.value
    active = CertificateAuthority(dc).require_trust().active.id
    if active not in signing_under(value):
        table.put(name, {**value, "Signed": [*value.get("Signed", ()), active]})


def take_listing(dc: Datacenter, root_ids: Collection[str], leaf_ttl: float) -> None:
    """Take the primary's list of roots and its longest leaf life, in a secondary."""
    table, value = dc.store.table(_TABLE), {"IDs": sorted(root_ids), "LeafTTL": leaf_ttl}
    row = table.get(_LISTED)
    if row is None or row.value != value:
        table.put(_LISTED, value)


def _left(dc: Datacenter, root_ids: Collection[str]) -> None:
    """Note that a datacenter has stopped signing under those roots: the time of their last leaves begins."""
    ca = CertificateAuthority(dc)
    trust = ca.require_trust()
    roots = tuple(
        replace(root, rotated_out_at=dc.clock()) if root.id in root_ids and not root.active else root
        for root in trust.roots
    )
    ca.trust_more(replace(trust, roots=roots))


def _held(dc: Datacenter) -> set[str]:
    """Return the roots that must stay, whatever their age."""
    row = dc.store.table(_TABLE).get(_LISTED)
    listed = {str(root_id) for root_id in row.value["IDs"]} if row else set()
    return listed.union(*(signing_under(each.value) for each in dc.store.table(DATACENTERS).rows()))
