"""What a weather's story changes is asked for until the agent takes it, in virtual time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trio.testing import MockClock

from tests.rotation.mesh import Site
from tests.weather.story import EXACT, REGISTER, change


@dataclass(kw_only=True)
class Refusing(Site):
    """An agent that refuses each path so often before it takes the request."""

    refusals: int
    asked: list[str] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        self.asked.append(f"{method} {path}")
        return True if self.asked.count(self.asked[-1]) > self.refusals else None


async def test_a_change_that_a_new_leader_refuses_is_asked_for_again(autojump_clock: MockClock) -> None:
    site = Refusing(command=[], log=Path(), name="dc1", port=0, refusals=2)
    await change(site, "late", "source")
    assert site.asked == [f"PUT {EXACT}source"] * 3 + [f"PUT {REGISTER}"] * 3
