"""The state as an encrypted file, for the time after a reboot; only where the operator gives a secret.

The first line is readable: whose state it is, and the format; it is authenticated with the rest. Without the
secret, which the service manager passes as a credential (systemd.exec(5), `LoadCredential=`), the rest is
noise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from agent.base.exits import NotYet
from agent.handover.state import FORMAT, StateReason, StateUnusable
from certs.sealed import LEAST_SECRET, NONCE_BYTES, SealBroken, seal, unseal

NAME = "state"
MODE = 0o600
_MAGIC = "connect-sidecar-state"
MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class SealedFile:
    """A file in a directory of the service's own."""

    directory: Path
    secret: bytes

    def __repr__(self) -> str:
        return f"<SealedFile {self.directory}>"  # the secret stays out of it

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.directory / NAME

    def write(self, text: bytes, service: str, trust_domain: str) -> None:
        """Replace the file, whole or not at all. Raises OSError."""
        header = _header(service, trust_domain)
        temporary = self.path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(header + seal(self.secret, os.urandom(NONCE_BYTES), header, text))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)

    def read(self) -> bytes | None:
        """Return the state; None if there is no file. Raises StateUnusable."""
        try:
            with self.path.open("rb") as file:
                content = file.read(MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateUnusable(StateReason.UNREADABLE, f"{self.path}: {error.strerror}") from error
        header, line, sealed = content.partition(b"\n")
        if not header.startswith(f"{_MAGIC} {FORMAT} ".encode()):
            raise StateUnusable(StateReason.UNREADABLE, f"{self.path} is no state of this format")
        try:
            return unseal(self.secret, header + line, sealed)
        except SealBroken as error:
            raise StateUnusable(StateReason.UNREADABLE, f"{self.path}: {error}") from None


def sealed_file(directory: Path | None, secret_file: Path | None) -> SealedFile | None:
    """Return the file that the settings ask for; None without a directory or a secret. Raises NotYet."""
    if directory is None or secret_file is None:
        return None
    try:
        secret = secret_file.read_bytes().strip()
    except OSError as error:
        raise NotYet(f"state_key_file: {secret_file}: {error.strerror}") from error
    if not secret:
        return None
    if len(secret) < LEAST_SECRET:
        text = (
            f"state_key_file: {secret_file} has {len(secret)} bytes; give at least {LEAST_SECRET} random ones"
        )
        raise NotYet(text)
    return SealedFile(directory, secret)


def _header(service: str, trust_domain: str) -> bytes:
    return f"{_MAGIC} {FORMAT} service={service} trust_domain={trust_domain}\n".encode()
