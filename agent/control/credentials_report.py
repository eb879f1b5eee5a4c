"""The rows and metrics of leaf, roots, renewal and clock, without any key."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from agent.base.prometheus import Family, counter, gauge
from agent.control.credentials import CredentialsKeeper
from agent.control.plane import ControlPlane
from certs.bundle import TrustBundle
from certs.contexts import Contexts
from certs.leaf import serial_text

Row = dict[str, object]


def row(control: ControlPlane, now: datetime) -> Row | None:
    """Return the credentials in force and the state of their renewal; None before any is known."""
    contexts, keeper = control.snapshot.credentials.value, control.credentials
    found: Row = {}
    if contexts is not None:
        found |= _in_force(contexts, now)
    if keeper is not None:
        found |= _renewal(keeper)
        if keeper.bundle is not None:
            found["roots"] = _roots(keeper.bundle)
            found["roots_unreadable"] = list(keeper.bundle.unreadable)
    if control.skew.seconds is not None:
        found["clock_skew_seconds"] = round(control.skew.seconds, 1)
        found["clock_skew_notable"] = control.skew.notable
    return found or None


def families(control: ControlPlane) -> Iterator[Family]:
    """Yield the metrics of the credentials."""
    contexts, keeper = control.snapshot.credentials.value, control.credentials
    if contexts is not None:
        yield from _in_force_families(contexts)
        unservable = gauge("sidecar_credentials_unservable", "1 if every peer would refuse our leaf.")
        yield unservable.add(contexts.credentials.fault(control.clock()) is not None)
    if keeper is not None:
        yield from _renewal_families(keeper)
    if control.skew.seconds is not None:
        yield gauge("sidecar_clock_skew_seconds", "Consul's clock minus ours, in seconds.").add(
            control.skew.seconds
        )


def _in_force(contexts: Contexts, now: datetime) -> Row:
    leaf, bundle = contexts.credentials.leaf, contexts.credentials.bundle
    fault = contexts.credentials.fault(now)
    return {
        "unservable": None if fault is None else f"{fault[0].value}: {fault[1]}",
        "id": str(leaf.id),
        "serial": leaf.serial,
        "signer": leaf.signer,
        "not_before": _time(leaf.not_before),
        "not_after": _time(leaf.not_after),
        "expires_in_seconds": round((leaf.not_after - now).total_seconds()),
        "generation": contexts.generation,
        "chain": {"certificates": 1 + len(leaf.extra), "bytes": leaf.chain_bytes},
        "intermediates": [
            _certificate(one.serial_number, one.not_valid_before_utc, one.not_valid_after_utc)
            for one in leaf.extra
        ],
        "trust_domain": str(bundle.trust_domain),
        "roots": _roots(bundle),
    }


def _roots(bundle: TrustBundle) -> list[Row]:
    return [
        {
            "id": root.id,
            "active": root.active,
            **_certificate(
                root.certificate.serial_number, root.certificate.not_valid_before_utc, root.not_after
            ),
        }
        for root in bundle.roots
    ]


def _certificate(number: int, begin: datetime, end: datetime) -> Row:
    return {"serial": serial_text(number), "not_before": _time(begin), "not_after": _time(end)}


def _renewal(keeper: CredentialsKeeper) -> Row:
    status = keeper.status
    rejected: Row | None = None
    if status.rejected_reason:
        rejected = {
            "reason": status.rejected_reason,
            "detail": status.rejected_detail,
            "at": _time(status.rejected_at),
        }
    catch_ups = keeper.roots_first.results
    return {
        "renewal_due": _time(status.renewal_due),
        "rotations": [
            {"at": _time(at), "generation": generation, "leaf": leaf, "root": root}
            for at, generation, leaf, root in status.rotations
        ],
        "rejected": rejected,
        "churning": keeper.churning or None,
        "refresh_failed": status.refresh_failed or None,
        "roots_read_for_a_leaf": {result.value: count for result, count in sorted(catch_ups.items())},
        "refreshes": {
            f"{by.value}_{result.value}": count for (by, result), count in sorted(status.refreshes.items())
        },
    }


def _in_force_families(contexts: Contexts) -> Iterator[Family]:
    leaf, bundle = contexts.credentials.leaf, contexts.credentials.bundle
    yield gauge("sidecar_leaf_info", "The leaf in force as labels; always 1.").add(
        1, serial=leaf.serial, id=str(leaf.id)
    )
    expiry = gauge("sidecar_leaf_expiry_timestamp_seconds", "When the leaf in force expires, Unix time.")
    yield expiry.add(leaf.not_after.timestamp())
    begin = gauge("sidecar_leaf_begin_timestamp_seconds", "When the leaf in force became valid, Unix time.")
    yield begin.add(leaf.not_before.timestamp())
    chain = gauge(
        "sidecar_leaf_chain_bytes", "Bytes of the leaf and its intermediates, sent in each handshake."
    )
    yield chain.add(leaf.chain_bytes)
    length = gauge("sidecar_leaf_chain_certificates", "Certificates sent in each handshake.")
    yield length.add(1 + len(leaf.extra))
    yield gauge("sidecar_roots", "Trusted roots.").add(len(bundle.roots))
    ends = gauge("sidecar_root_expiry_timestamp_seconds", "When each trusted root expires, Unix time.")
    for root in bundle.roots:
        ends.add(root.not_after.timestamp(), root=root.id)
    yield ends
    yield gauge("sidecar_credentials_generation", "The generation in force.").add(contexts.generation)
    yield counter("sidecar_credentials_total", "Credentials that were published.").add(contexts.generation)


def _renewal_families(keeper: CredentialsKeeper) -> Iterator[Family]:
    rejected = counter(
        "sidecar_credentials_rejected_total", "Pairs of leaf and roots that did not fit, by reason."
    )
    for reason, count in sorted(keeper.status.rejections.items()):
        rejected.add(count, reason=reason)
    refreshes = counter("sidecar_leaf_refreshes_total", "Answers about the leaf, by source and result.")
    for (by, result), count in sorted(keeper.status.refreshes.items()):
        refreshes.add(count, by=by.value, result=result.value)
    if keeper.bundle is not None:
        unreadable = gauge("sidecar_roots_unreadable", "Roots in Consul's list that cannot be read.")
        yield unreadable.add(len(keeper.bundle.unreadable))
    churning = gauge("sidecar_leaf_churning", "1 if the leaf is issued again and again.")
    ahead = counter(
        "sidecar_leaf_ahead_total", "Leaves that came before their roots, by the result of asking."
    )
    for caught, count in sorted(keeper.roots_first.results.items()):
        ahead.add(count, result=caught.value)
    yield from (rejected, refreshes, ahead, churning.add(bool(keeper.churning)))
    if keeper.status.renewal_due is not None:
        due = gauge("sidecar_leaf_renewal_due_timestamp_seconds", "When a new leaf is asked for, Unix time.")
        yield due.add(keeper.status.renewal_due.timestamp())


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
