"""A rejection shows its reason by name and its detail, and nothing else."""

from __future__ import annotations

from certs.peer import PeerReason, PeerRejected


def test_text_is_reason_and_detail() -> None:
    rejection = PeerRejected(PeerReason.EXPIRED, "its leaf expired")
    assert str(rejection) == "expired: its leaf expired"
    assert (rejection.reason, rejection.detail) == (PeerReason.EXPIRED, "its leaf expired")
