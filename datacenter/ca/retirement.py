"""When a root that was rotated out may go: once no leaf under it can be alive anywhere in the federation.

Consul lets each datacenter decide by its own leaf lifetime, and a datacenter that was cut off signs on under
a root the others have long forgotten. Here the primary decides for all. Every datacenter reports, when it
joins and whenever it changes, how long its leaves live and under which root it signs. A root stays for twice
the longest of those lives after the last datacenter stopped signing under it, and as long as one has not.
A secondary keeps what the primary lists, as of the primary's last word.
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
    """How long any leaf of the federation may live, as far as is known here."""
    reported = [float(row.value.get("LeafTTL", 0)) for row in dc.store.table(DATACENTERS).rows()]
    row = dc.store.table(_TABLE).get(_LISTED)
    told = float(row.value["LeafTTL"]) if row else 0.0
    return max(CertificateAuthority(dc).leaf_life, timedelta(seconds=max([told, *reported])))


def retire(dc: Datacenter) -> None:
    """Drop the roots whose time is over."""
    ca = CertificateAuthority(dc)
    trust = ca.trust
    if trust is not None:
        ca.trust_more(pruned(trust, dc.clock(), 2 * longest_leaf_life(dc), _held(dc)))


def take_report(dc: Datacenter, name: str, *, address: str, leaf_ttl: float, root_id: str) -> None:
    """In the primary: what a secondary says of itself."""
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
    """In the primary: a secondary is about to sign under the active root, though it may die before it does.

    Until its next report it is not known whether it has got there: it may sign under either.
    """
    table = dc.store.table(DATACENTERS)
    row = table.get(name)
    value: Document = {"Address": "", "LeafTTL": 0, "RootID": ""} if row is None else row.value
    active = CertificateAuthority(dc).require_trust().active.id
    if active not in signing_under(value):
        table.put(name, {**value, "Signed": [*value.get("Signed", ()), active]})


def take_listing(dc: Datacenter, root_ids: Collection[str], leaf_ttl: float) -> None:
    """In a secondary: what the primary lists, and the longest life it knows of."""
    table, value = dc.store.table(_TABLE), {"IDs": sorted(root_ids), "LeafTTL": leaf_ttl}
    row = table.get(_LISTED)
    if row is None or row.value != value:
        table.put(_LISTED, value)


def _left(dc: Datacenter, root_ids: Collection[str]) -> None:
    """A datacenter signs under those roots no longer: the time of the last leaves under them begins now."""
    ca = CertificateAuthority(dc)
    trust = ca.require_trust()
    roots = tuple(
        replace(root, rotated_out_at=dc.clock()) if root.id in root_ids and not root.active else root
        for root in trust.roots
    )
    ca.trust_more(replace(trust, roots=roots))


def _held(dc: Datacenter) -> set[str]:
    """Roots that must stay whatever their age."""
    row = dc.store.table(_TABLE).get(_LISTED)
    listed = {str(root_id) for root_id in row.value["IDs"]} if row else set()
    return listed.union(*(signing_under(each.value) for each in dc.store.table(DATACENTERS).rows()))
