"""Says in Go's words why a connection could not be opened, for outputs of checks and for errors."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import trio

_REASONS = {
    ConnectionRefusedError: "connect: connection refused",
    ConnectionResetError: "read: connection reset by peer",
    TimeoutError: "i/o timeout",
    trio.TooSlowError: "i/o timeout",
}


def dial_failure(address: str, error: BaseException) -> str:
    """Return `dial tcp 127.0.0.1:21000: connect: connection refused` or the like, from causes and groups."""
    for cause in _causes(error):
        for kind, reason in _REASONS.items():
            if isinstance(cause, kind):
                return f"dial tcp {address}: {reason}"
        if isinstance(cause, socket.gaierror):
            return f"dial tcp: lookup {address.rpartition(':')[0]}: no such host"
    text = next(
        (cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror), ""
    )
    return f"dial tcp {address}: {text or error}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    yield error
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _causes(inner)
    # The HTTP library raises its errors `from None`; the hidden cause is still the context.
    before = error.__cause__ or error.__context__
    if before is not None:
        yield from _causes(before)
