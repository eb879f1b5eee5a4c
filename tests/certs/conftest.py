"""How long a call takes."""

from __future__ import annotations

import timeit
from collections.abc import Callable

import pytest


@pytest.fixture
def benchmark_seconds() -> Callable[[Callable[[], object]], float]:
    """Seconds per call, the best of several rounds: noise only ever adds."""

    def measure(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, number=50, repeat=5)) / 50

    return measure
