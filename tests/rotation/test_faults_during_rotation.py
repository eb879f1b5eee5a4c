"""The WAN cut, the secondary killed between request and installation, the primary killed in the middle.

Load runs through all of it: a rotation that stands still harms nobody. What is on disk is always legal, which
is to say that the process starts from it and signs; and it all converges.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from tests.rotation.load import load
from tests.rotation.mesh import ROTATE, Mesh, Site, mesh, until
from tests.rotation.rotations import rotate

SIGN = b"PUT /v1/internal/federation/sign"


@pytest.mark.slow
async def test_all_three_under_load(tmp_path: Path) -> None:
    async with mesh(tmp_path) as whole:
        ports = [sidecar.upstream for sidecar in whole.sidecars]
        async with load(ports, per_second=20, lasting=10) as counted:
            await cut_and_healed(whole)
            await secondary_killed(whole)
            await primary_killed(whole)
            await rotate(whole, "ec 256")
        assert counted.faults == []
        said = "".join(path.read_text() for path in tmp_path.glob("*.log"))
        assert "PRIVATE KEY" not in said
        assert "Traceback" not in said


async def cut_and_healed(whole: Mesh) -> None:
    """dc2 signs on under the old root, and follows when the wire is back."""
    before = await whole.dc2.active()
    whole.to_dc1.cut()
    whole.to_dc2.cut()
    assert await whole.dc1.ask("PUT", ROTATE, {}) is not None
    web, _ = whole.sidecars
    await until(web.follows, "web follows its own datacenter")
    assert await whole.dc2.active() == before
    assert await whole.dc2.ask("GET", "/v1/agent/connect/ca/leaf/brand-new") is not None
    whole.to_dc1.heal()
    whole.to_dc2.heal()
    await until(whole.settled, "everybody follows after the cut")


async def secondary_killed(whole: Mesh) -> None:
    """-9 while the signed intermediate is on its way back."""
    before = await whole.dc2.signing_key_id()
    whole.to_dc1.hold_answer_to(SIGN)
    assert await whole.dc1.ask("PUT", ROTATE, {}) is not None
    with trio.fail_after(30):
        await whole.to_dc1.seen.wait()
    whole.dc2.kill()
    await _come_back(whole.dc2)
    await until(whole.settled, "everybody follows after the death of dc2")
    assert await whole.dc2.signing_key_id() != before


async def primary_killed(whole: Mesh) -> None:
    """-9 while it rotates to a key that takes its time, and again right after one that does not."""
    before = await whole.dc1.active()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(whole.dc1.ask, "PUT", ROTATE, {"PrivateKeyType": "rsa", "PrivateKeyBits": 4096})
        await trio.sleep(0.05)  # the moment does not matter: any leaves a legal state
        whole.dc1.kill()
    await _come_back(whole.dc1)
    await until(whole.settled, "everybody agrees after the death of dc1")
    assert await whole.dc1.ask("PUT", ROTATE, {}) is not None
    rotated = await whole.dc1.active()
    whole.dc1.kill()
    await _come_back(whole.dc1)
    assert await whole.dc1.active() == rotated != before, "what was answered is on disk"
    await until(whole.settled, "everybody follows after the second death of dc1")


async def _come_back(site: Site) -> None:
    site.start()
    await until(lambda: site.ask("GET", "/v1/agent/self"), f"{site.name} answers again")
    # The first word after a start: whatever was on disk, there is one active root, and its key signs.
    leaf = await site.ask("GET", "/v1/agent/connect/ca/leaf/first-after-death")
    assert leaf is not None
    assert sum(root["Active"] for root in (await site.roots())["Roots"]) == 1
