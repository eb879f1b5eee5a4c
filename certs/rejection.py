"""The common form of all refusals of certificates, bundles and peers: a named reason and a detail."""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

# What cryptography raises for a certificate it cannot read, at once or when a part of it is used.
UNREADABLE = (
    *(ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)

R = TypeVar("R", bound=StrEnum)


class Rejection(Exception, Generic[R]):
    """Raised with `reason` (the metric label) and `detail` (a line for a person, without key material)."""

    def __init__(self, reason: R, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail
