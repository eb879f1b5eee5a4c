"""Five rotations in a row under load, kinds of key and provider alternating: nothing fails, nothing breaks.

`python -m tests.bench.rotation` does the same with twenty, at full size, and waits for the retirement.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric import ec

from datacenter.ca.keys import load_key
from datacenter.ca.trust import trust_of_answer
from tests.datacenter.mint import MintedLeaf, refusals
from tests.rotation.load import load
from tests.rotation.mesh import TUNNELLED, Mesh, Sidecar, Site, mesh, until
from tests.rotation.rotations import rotations

KEY = re.compile(rb"PRIVATE KEY")


async def test_nobody_notices_and_no_key_crosses(tmp_path: Path) -> None:
    async with mesh(tmp_path) as whole:
        ports = [sidecar.upstream for sidecar in whole.sidecars]
        async with load(ports, per_second=40, lasting=20) as counted:
            done = await rotations(whole, 5)
        assert len({one.root_id for one in done}) == 5
        assert counted.faults == []
        assert counted.made > 100
        for sidecar in whole.sidecars:
            status = await sidecar.status()
            assert (status["credentials"]["rejected"], status["ready"]) == (None, True)
            await until(partial(_trusts, sidecar, 6), f"{sidecar.name} trusts the roots of all rotations")
        await assert_three_verifiers_agree(whole)
        crossed = [bytes(wire.recorded) for wire in (whole.to_dc1, whole.to_dc2)]
    assert_no_key_crossed(whole, crossed)


async def test_no_stream_of_a_tunnel_notices(tmp_path: Path) -> None:
    """Each rotation makes new tunnels; those of before go on with the streams that last."""
    async with mesh(tmp_path, flags=TUNNELLED) as whole:
        ports = [sidecar.upstream for sidecar in whole.sidecars]
        async with load(ports, per_second=40, lasting=20) as counted:
            await rotations(whole, 3)
            for sidecar in whole.sidecars:
                what = f"{sidecar.name} has a new tunnel, and the first one for the streams that last"
                await until(partial(_has_two_tunnels, sidecar), what)
        assert counted.faults == []
        assert counted.made > 60


async def _has_two_tunnels(sidecar: Sidecar) -> bool:
    tunnels = (await sidecar.status())["tunnels"]
    return [tunnel["direction"] for tunnel in tunnels].count("outbound") >= 2


async def _trusts(sidecar: Sidecar, roots: int) -> bool:
    """The leaf can be ahead of the roots for a moment: its cross-signatures lead to older ones too."""
    return len((await sidecar.status())["credentials"]["roots"]) == roots


async def assert_three_verifiers_agree(whole: Mesh) -> None:
    """`openssl`, Python's ssl and cryptography, on new leaves of both against the roots of both."""
    trusts = [trust_of_answer(await site.roots()) for site in (whole.dc1, whole.dc2)]
    for site in (whole.dc1, whole.dc2):
        answer = await site.ask("GET", "/v1/agent/connect/ca/leaf/verified")
        key = load_key(answer["PrivateKeyPEM"])
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        leaf = MintedLeaf(cert_pem=answer["CertPEM"], key=key)
        for trust in trusts:
            assert await trio.to_thread.run_sync(refusals, leaf, trust.roots) == {}
            assert await trio.to_thread.run_sync(refusals, leaf, [trust.active]) == {}


def assert_no_key_crossed(whole: Mesh, crossed: list[bytes]) -> None:
    """Everything between the two was recorded, in plain; each data directory holds its own key alone."""
    assert b"/v1/internal/federation/sign" in crossed[0]
    assert b"BEGIN CERTIFICATE" in crossed[0]
    keys = {site.name: _key(site, whole.directory) for site in (whole.dc1, whole.dc2)}
    for recorded in crossed:
        assert not KEY.search(recorded)
        assert not any(key in recorded for key in keys.values())
    for site, other in ((whole.dc1, whole.dc2), (whole.dc2, whole.dc1)):
        held = b"".join(
            path.read_bytes() for path in (whole.directory / site.name).rglob("*") if path.is_file()
        )
        assert keys[other.name] not in held
        assert keys[site.name] in held


def _key(site: Site, directory: Path) -> bytes:
    """A stretch of the text of its signing key that no other text has."""
    with closing(sqlite3.connect(directory / site.name / "datacenter.db")) as database:
        (text,) = database.execute("SELECT value FROM private").fetchone()
    return str(text).split("\\n")[1].encode()
