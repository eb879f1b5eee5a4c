"""500 live connections from five sources of dc1 to `db` in dc2, everything in processes of its own.

What is changed is changed in dc1, but for the deny list, which is db's own. Exactly one source's connections
end, within a second of the moment dc2 itself knows better, and none other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.rotation.mesh import CONFIGURATION, ROOTS, mesh, until
from tests.rotation.rotations import rotate
from tests.scenarios.far_callers import Callers, served, told
from tests.scenarios.far_callers import until as soon

EACH = 100
SECOND = 1.0
SHORT = 12.0  # seconds, of a leaf that is to expire
MATCH = "/v1/connect/intentions/match?by=destination&name=db"


@asynccontextmanager
async def callers(directory: Path, leaf_ttl: str, *flags: str) -> AsyncIterator[Callers]:
    """A mesh, and nobody's connection yet."""
    async with mesh(directory, leaf_ttl=leaf_ttl, flags=flags) as whole, trio.open_nursery() as nursery:
        yield Callers(whole=whole, directory=directory, nursery=nursery)
        nursery.cancel_scope.cancel()


async def gone(them: Callers, source: str, reason: str, since: float) -> None:
    """All of that source, within a second of that moment, for that reason, and none besides."""
    await soon(lambda: them.live()[source] == 0)
    theirs = [one.ended - since for one in them.held if one.source == source and one.ended is not None]
    assert max(theirs) < SECOND
    left = {one.source: EACH for one in them.held if one.ended is None}
    assert them.live() == Counter(left)
    await served(them.open(*left), b"still here")
    endings = (await them.whole.sidecars[1].endings())["inbound"]
    assert endings[reason] == EACH


def ended(them: Callers) -> Counter[str]:
    """How many of each source have."""
    return Counter(one.source for one in them.held if one.ended is not None)


@pytest.mark.slow
async def test_an_intention_a_deny_list_and_a_certificate_that_ends(tmp_path: Path) -> None:
    denied = tmp_path / "denied"
    denied.write_text("")
    async with callers(tmp_path, "72h", "-deny-file", str(denied)) as them:
        dc1, dc2 = them.whole.dc1, them.whole.dc2
        for source in ("a", "b", "c", "e"):
            await served(await them.call(source, EACH))
        shorter = {"LeafCertTTL": f"{SHORT:g}s", "SkipValidate": True}
        assert await dc1.ask("PUT", CONFIGURATION, {"Provider": "consul", "Config": shorter})
        await served(await them.call("d", EACH))
        assert them.live() == Counter(dict.fromkeys("abcde", EACH))

        assert await dc1.ask(
            "PUT", "/v1/connect/intentions/exact?source=a&destination=db", {"Action": "deny"}
        )
        await gone(them, "a", "intention_withdrawn", await told(dc2, MATCH, lambda found: found["db"]))
        denied.write_text(f"spiffe://{(await dc2.roots())['TrustDomain']}/ns/default/dc/dc1/svc/b\n")
        await gone(them, "b", "deny_listed", trio.current_time())
        await gone(them, "d", "peer_expired", them.not_after["d"])
        assert min(one.ended for one in them.held if one.source == "d" and one.ended) > them.not_after["d"]
        assert ended(them) == Counter(dict.fromkeys("abd", EACH))


@pytest.mark.slow
async def test_a_root_that_goes(tmp_path: Path) -> None:
    """It goes long after every leaf under it has ended: connections may outlive their peer's here."""
    async with callers(tmp_path, "6s", "-expired-peer-grace", "never") as them:
        await served(await them.call("c", EACH))
        old = await them.whole.dc1.active()
        await rotate(them.whole, "ec 256")
        await until(them.whole.settled, "everybody has followed")
        for source in ("a", "b", "d", "e"):
            await served(await them.call(source, EACH))
        assert them.live() == Counter(dict.fromkeys("abcde", EACH))
        since = await told(
            them.whole.dc2, ROOTS, lambda answer: old not in {root["ID"] for root in answer["Roots"]}
        )
        await gone(them, "c", "root_removed", since)
        assert ended(them) == Counter(c=EACH)
