"""What every refusal of a certificate, a bundle or a peer has in common: one named reason and a detail."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

# What cryptography raises for a certificate that it cannot read, be it at once or when a part is asked for.
UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)

R = TypeVar("R", bound=StrEnum)


class Rejection(Exception, Generic[R]):
    """Raised with `reason` (the metric label) and `detail` (one line for a person; never key material)."""

    def __init__(self, reason: R, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
