"""What tests of the agent have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.descriptor_store import Store


@pytest.fixture
def store() -> Iterator[Store]:
    """What the service manager keeps, closed at the end."""
    made = Store()
    yield made
    made.close()
