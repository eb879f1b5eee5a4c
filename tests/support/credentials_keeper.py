"""A rotation beside a scripted agent; virtual time ages the certificates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random

import trio

from agent.base.latest import Latest
from agent.control.credentials import CredentialsKeeper
from certs.contexts import Contexts
from tests.certs.authority import Issuer, Minted, roots_answer
from tests.support.fake_consul import FakeConsul
from tests.support.faults import NoFaults

START = datetime(2031, 5, 17, 12, tzinfo=UTC)
ROOTS = "/v1/agent/connect/ca/roots"
LEAF = "/v1/agent/connect/ca/leaf/web"
HOUR = 3600.0


def clock() -> datetime:
    return START + timedelta(seconds=trio.current_time())


class Heard(NoFaults):
    """What was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def credentials_published(self, contexts: Contexts) -> None:
        word = "unservable" if contexts.credentials.unfit else "published"
        self.told.append(f"{word} {contexts.generation} {contexts.credentials.leaf.serial}")

    def credentials_rejected(self, reason: str, detail: str) -> None:
        assert detail
        self.told.append(f"rejected {reason}")

    def renewal_failed(self, detail: str, not_after: datetime) -> None:
        assert detail
        assert not_after > START
        self.told.append("renewal failed")

    def leaf_churning(self, detail: str) -> None:
        self.told.append(f"churning: {detail}")

    def roots_unreadable(self, detail: str) -> None:
        assert detail
        self.told.append("roots unreadable")

    def roots_behind(self, reason: str, detail: str) -> None:
        assert "no root announces" in detail
        self.told.append(f"roots {reason}")


class Bench:
    """A rotation beside a scripted agent."""

    def __init__(
        self,
        nursery: trio.Nursery,
        datacenter: str | None = "dc1",
        clock: Callable[[], datetime] = clock,
    ) -> None:
        self.consul = FakeConsul()
        self.heard = Heard()
        self.root = Issuer.root(now=START)
        self.contexts: Latest[Contexts] = Latest()
        self.rotation = CredentialsKeeper(
            self.consul.client(nursery),
            service="web",
            datacenter=datacenter,
            contexts=self.contexts,
            events=self.heard,
            clock=clock,
            rng=Random(7),
        )
        self.index = 10

    def roots(self, active: Issuer, *retiring: Issuer) -> None:
        self.index += 1
        self.consul.answer(ROOTS, roots_answer(active, *retiring), index=self.index)

    def leaf(self, minted: Minted) -> None:
        self.index += 1
        self.consul.answer(LEAF, minted.answer(), index=self.index)

    @property
    def current(self) -> Contexts:
        """What is in force."""
        assert self.contexts.value is not None
        return self.contexts.value

    @property
    def serial(self) -> str:
        return self.current.credentials.leaf.serial


async def begin(bench: Bench, nursery: trio.Nursery) -> None:
    nursery.start_soon(bench.rotation.run)
    await trio.sleep(1)
