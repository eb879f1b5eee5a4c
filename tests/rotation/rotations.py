"""Root rotations in a row: kinds of key and provider alternate; when each sidecar switched is noted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import trio

from datacenter.ca.certificates import certificate_pem
from datacenter.ca.keys import KeyKind, generate_key, key_pem
from tests.datacenter.mint import external_root
from tests.rotation.mesh import CONFIGURATION, ROTATE, Mesh, until

STEPS = ("ec 256", "external ec 384", "rsa 2048", "ec 384", "external rsa 2048", "rsa 4096")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """One rotation: what to, how long the call took, when dc2 and each sidecar had switched. Seconds."""

    to: str
    call: float
    secondary: float
    sidecars: dict[str, float]
    root_id: str


async def rotations(
    mesh: Mesh, count: int, pause: float = 0.0, done: list[Rotated] | None = None
) -> list[Rotated]:
    """Each begins when the one before has arrived everywhere; `done` grows with each."""
    done = [] if done is None else done
    steps: Iterator[str] = cycle(STEPS)
    for _ in range(count):
        done.append(await rotate(mesh, next(steps)))
        await trio.sleep(pause)
    return done


async def rotate(mesh: Mesh, to: str) -> Rotated:
    """To a kind of key, made by dc1; or to a root from elsewhere, key and certificate handed in."""
    before = await mesh.dc1.active()
    shown = (await mesh.dc1.ask("GET", CONFIGURATION))["Config"]
    path, body = await trio.to_thread.run_sync(_request, to, shown)
    began = trio.current_time()
    assert await mesh.dc1.ask("PUT", path, body) is not None, f"dc1 refuses to rotate to {to}"
    call = trio.current_time() - began
    active = await mesh.dc1.active()
    assert active != before
    switched: dict[str, float] = {}

    async def note(name: str, holds: Any) -> None:
        await until(holds, f"{name} follows the rotation to {to}")
        switched[name] = trio.current_time() - began

    async with trio.open_nursery() as nursery:
        nursery.start_soon(note, "dc2", mesh.agreed)
        for sidecar in mesh.sidecars:
            nursery.start_soon(note, sidecar.name, _followed(mesh, sidecar))
    return Rotated(to=to, call=call, secondary=switched.pop("dc2"), sidecars=switched, root_id=active)


def _followed(mesh: Mesh, sidecar: Any) -> Any:
    async def holds() -> bool:
        return await mesh.agreed() and bool(await sidecar.follows())

    return holds


def _request(to: str, shown: dict[str, Any]) -> tuple[str, dict[str, object]]:
    *source, kind, bits = to.split()
    if not source:
        return ROTATE, {"PrivateKeyType": kind, "PrivateKeyBits": int(bits)}
    key = generate_key(KeyKind(kind, int(bits)))
    given = {"PrivateKey": key_pem(key), "RootCert": certificate_pem(external_root(key, key_id=True))}
    return CONFIGURATION, {"Provider": "consul", "Config": shown | given}


def table(done: list[Rotated]) -> str:
    """When each switched, in seconds after the call."""
    names = sorted(done[0].sidecars)
    lines = [f"{'rotation to':22}{'call':>8}{'dc2':>8}" + "".join(f"{name:>8}" for name in names)]
    for number, one in enumerate(done, start=1):
        figures = (one.call, one.secondary, *(one.sidecars[name] for name in names))
        lines.append(f"{number:2} {one.to:19}" + "".join(f"{figure:8.2f}" for figure in figures))
    return "\n".join(lines)
