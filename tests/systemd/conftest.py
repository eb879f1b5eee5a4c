"""One private machine per test module; every test in this directory that asks for it needs root."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.systemd.boot import Machine, boot, why_not


@pytest.fixture(scope="session")
def namespaces() -> None:
    """Skip with the reason where no private systemd can be booted."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def machine(namespaces: None) -> Iterator[Machine]:
    """A booted private systemd."""
    with boot() as booted:
        yield booted
