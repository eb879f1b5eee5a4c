"""Receives unforeseen exceptions: each one fails the test, unless the test has asked for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from agent.base.containment import Where


class NoFaults:
    """agent.base.containment.FaultEvents of a test in which nothing is to go wrong: it goes wrong too."""

    @property
    def internal_errors(self) -> Mapping[str, int]:
        """None."""
        return {}

    def internal_error(self, where: Where, name: str, error: BaseException, /) -> None:
        """Let the test fail by it."""
        raise AssertionError(f"{where.value} {name}") from error


class Faults:
    """The same, where a test makes them: what was told."""

    def __init__(self) -> None:
        self.internal_errors: Counter[str] = Counter()
        self.told: list[tuple[Where, str, BaseException]] = []

    def internal_error(self, where: Where, name: str, error: BaseException, /) -> None:
        """Keep it."""
        self.internal_errors[where.value] += 1
        self.told.append((where, name, error))
