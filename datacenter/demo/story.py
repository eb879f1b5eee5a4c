"""The demo's story: each step changes the mesh, checks the result, and says whether it held."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from datacenter.demo.http import Unanswered, call, get, put
from datacenter.demo.looking import (
    StepFailed,
    Tally,
    answered,
    ask_forever,
    ask_on,
    connect,
    hold_open,
    until,
)
from datacenter.demo.mesh import (
    LAN_PORT,
    NEAREST_QUERY,
    WAN_PORT,
    Addresses,
    Processes,
    db_registration,
    web_registration,
)

ASKERS = 4  # at each upstream, each request over a connection of its own
ENOUGH = 100  # requests before and after a rotation that is to prove something


@dataclass(slots=True)
class Story:
    """The mesh the steps act on, and what they need to remember between them."""

    addresses: Addresses
    processes: Processes
    leaves_before: dict[str, str] = field(default_factory=dict)

    # --- what a step looks at -------------------------------------------------------------------

    async def status(self, service: str, datacenter: str) -> dict[str, Any]:
        """Return the `/status` of one sidecar."""
        answer = await get(f"{self.addresses.admin(service, datacenter)}/status")
        status: dict[str, Any] = answer.json()
        return status

    async def leaves(self) -> dict[str, str]:
        """Return the serial of the leaf that each sidecar serves with now."""
        places = [("web", "dc1"), ("db", "dc1"), ("db", "dc2")]
        return {f"{s}@{dc}": (await self.status(s, dc))["credentials"]["serial"] for s, dc in places}

    async def served(self, datacenter: str) -> int:
        """Return how many requests db's app has seen, asked past the sidecar."""
        return int((await get(f"{self.addresses.app('db', datacenter)}/served")).text)

    async def connection(self, upstream: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Hold a connection through `upstream` open, and return what both sidecars say of it.

        Returns:
            web's outbound row and db's inbound row of their ledgers.
        """
        async with await connect(self.addresses.upstream(upstream)) as stream:
            line = await ask_on(stream)
            if line is None:
                raise StepFailed(f"no answer through {upstream}")
            datacenter = "dc2" if "in dc2" in line else "dc1"
            out = [
                row
                for row in (await self.status("web", "dc1"))["connections"]
                if row["direction"] == "outbound"
            ]
            into = [
                row
                for row in (await self.status("db", datacenter))["connections"]
                if row["direction"] == "inbound"
            ]
        if not out or not into:
            raise StepFailed(f"the connection is in no ledger: web {out}, db {into}")
        return out[-1], into[-1]


# --- the steps ----------------------------------------------------------------------------------


async def federate(story: Story) -> str:
    """Two datacenters, one trust domain: dc2's intermediate is signed by dc1, its key is its own."""
    roots: dict[str, dict[str, Any]] = {}
    for name in ("dc1", "dc2"):
        await story.processes.start(name)
    for name in ("dc1", "dc2"):
        url = f"{story.addresses.api(name)}/v1/agent/connect/ca/roots"

        async def served(url: str = url, name: str = name) -> bool:
            answer = await get(url)
            if answer.status == 200:
                roots[name] = answer.json()
            return answer.status == 200

        await until(f"{name} serves trust roots", 10, served)
    if roots["dc1"]["TrustDomain"] != roots["dc2"]["TrustDomain"]:
        raise StepFailed(
            f"two trust domains: {roots['dc1']['TrustDomain']} and {roots['dc2']['TrustDomain']}"
        )
    active = {name: _active(answer) for name, answer in roots.items()}
    if (
        active["dc1"]["ID"] != active["dc2"]["ID"]
        or active["dc1"]["SigningKeyID"] == active["dc2"]["SigningKeyID"]
    ):
        raise StepFailed("dc2 does not sign with an intermediate of its own under dc1's root")
    signer = active["dc2"]["SigningKeyID"][:11]
    return f"one trust domain; dc2 signs with its own intermediate {signer}…"


async def start_services(story: Story) -> str:
    """Apps, registrations, prepared query and sidecars; all sidecars ready."""
    for datacenter in ("dc1", "dc2"):
        await _put(f"{story.addresses.api(datacenter)}/v1/agent/service/register",
                   db_registration(story.addresses, datacenter))  # fmt: skip
    await _put(f"{story.addresses.api('dc1')}/v1/agent/service/register", web_registration(story.addresses))
    created = await call("POST", f"{story.addresses.api('dc1')}/v1/query", NEAREST_QUERY)
    if created.status != 200:
        raise StepFailed(f"prepared query: {created.status} {created.text}")
    await allow(story)
    for name in story.processes.commands:
        if name not in story.processes.running:
            await story.processes.start(name)
    for service, datacenter in (("db", "dc1"), ("db", "dc2"), ("web", "dc1")):
        await _ready(story, service, datacenter)
    await _passing(story, "dc1", 1)
    await _passing(story, "dc2", 1)
    story.leaves_before = await story.leaves()
    return "leaves " + ", ".join(f"{name} {serial}" for name, serial in story.leaves_before.items())


async def reach_local(story: Story) -> str:
    """web reaches db in its own datacenter over mutual TLS; each side knows the other's SPIFFE ID."""
    await _says(story, "db in dc1", "db in dc1")
    out, into = await story.connection("db in dc1")
    _expect_ids(out, into, "dc1")
    return f"{short(into['peer'])} → {short(out['peer'])}, each proven to the other by its certificate"


async def reach_other_datacenter(story: Story) -> str:
    """web reaches db in dc2 at its WAN pair; the LAN pair it is registered under is closed."""
    await _says(story, "db in dc2", "db in dc2")
    out, into = await story.connection("db in dc2")
    _expect_ids(out, into, "dc2")
    wan = f"{story.addresses.wan}:{WAN_PORT}"
    if out["address"] != wan:
        raise StepFailed(f"dialled {out['address']}, not the WAN pair {wan}")
    with socket.socket() as probe:
        if probe.connect_ex((story.addresses.dc2, LAN_PORT)) == 0:
            raise StepFailed("the LAN address of db in dc2 answers; the step would prove nothing")
    return f"{short(out['peer'])} at {out['address']} ({out['why']}); its LAN address is closed"


async def fail_over(story: Story) -> str:
    """The prepared query answers from dc1, from dc2 when dc1's db goes critical, and from dc1 again."""
    await _says(story, "query db-nearest", "db in dc1")
    await story.processes.stop("db app in dc1")
    started = trio.current_time()
    await _says(story, "query db-nearest", "db in dc2")
    took = trio.current_time() - started
    await story.processes.start("db app in dc1")
    await _passing(story, "dc1", 1)
    await _says(story, "query db-nearest", "db in dc1")
    return f"dc1 → dc2 {took:.1f} s after the app died, and back to dc1 once its check passed"


async def deny(story: Story) -> str:
    """A deny written in dc1 is enforced in dc2; the app never sees the refused caller."""
    await _intend(story, "deny")
    started = trio.current_time()

    async def refused() -> bool:
        return await answered(story.addresses.upstream("db in dc2")) is None

    await until("dc2 refuses web", 5, refused)
    took = trio.current_time() - started
    seen = await story.served("dc2")
    for _ in range(10):
        if not await refused():
            raise StepFailed("a request passed after the deny was in force")
    if await story.served("dc2") != seen:
        raise StepFailed("a refused caller reached the app")
    ends = [await _last_denial(story, service, dc) for service, dc in (("web", "dc1"), ("db", "dc2"))]
    await allow(story)
    await _says(story, "db in dc2", "db in dc2")
    return f"refused {took:.2f} s after the write; 10 more, 0 reached the app\n" + "\n".join(ends)


async def rotate(story: Story) -> str:
    """A new root in dc1 while requests run: dc2 re-keys, every leaf is re-issued, nothing fails."""
    old_root = (await _roots(story, "dc2"))["ActiveRootID"]
    tally = Tally()
    async with trio.open_nursery() as nursery:
        for upstream in ("db in dc1", "db in dc2"):
            url = story.addresses.upstream(upstream)
            nursery.start_soon(hold_open, url, tally)
            for _ in range(ASKERS):
                nursery.start_soon(ask_forever, url, tally)
        await until("requests run", 5, tally.reaches(ENOUGH))
        await _put(f"{story.addresses.api('dc1')}/v1/connect/ca/rotate", {})

        async def switched() -> bool:
            fresh = await story.leaves()
            return all(fresh[name] != serial for name, serial in story.leaves_before.items())

        await until("every sidecar has a leaf under the new root", 12, switched)
        await until("requests run on", 5, tally.reaches(tally.asked + ENOUGH))
        nursery.cancel_scope.cancel()
    new = await _roots(story, "dc2")
    if new["ActiveRootID"] == old_root or len(new["Roots"]) < 2:
        raise StepFailed("dc2 has not taken over the new root, or dropped the old one too soon")
    if tally.failed:
        raise StepFailed(f"{tally.failed} of {tally.asked} requests failed")
    after = await story.leaves()
    changes = ", ".join(f"{serial} → {after[name]}" for name, serial in story.leaves_before.items())
    return f"0 failed of {tally.asked} requests, 2 connections held; leaves {changes}"


STEPS: dict[str, Callable[[Story], Awaitable[str]]] = {
    "Two datacenters, one root of trust": federate,
    "Services registered, sidecars ready": start_services,
    "web reaches db in its own datacenter": reach_local,
    "web reaches db in the other datacenter": reach_other_datacenter,
    "A prepared query fails over and returns": fail_over,
    "A deny in dc1 holds in dc2": deny,
    "The root rotates while requests run": rotate,
}


# --- what the steps are made of -----------------------------------------------------------------


@contextmanager
def clearly(what: str) -> Iterator[None]:
    """Turn a missing answer into a failed step that says what was being done."""
    try:
        yield
    except Unanswered as error:
        raise StepFailed(f"{what}: {error}") from error


async def allow(story: Story) -> None:
    """Write web → db allow in the primary."""
    await _intend(story, "allow")


async def _intend(story: Story, action: str) -> None:
    url = f"{story.addresses.api('dc1')}/v1/connect/intentions/exact?source=web&destination=db"
    await _put(url, {"Action": action})


async def _put(url: str, body: object) -> None:
    with clearly(f"PUT {url}"):
        answer = await put(url, body)
    if answer.status != 200:
        raise StepFailed(f"PUT {url}: {answer.status} {answer.text}")


async def _says(story: Story, upstream: str, text: str) -> None:
    async def said() -> bool:
        answer = await answered(story.addresses.upstream(upstream))
        return answer is not None and answer.text == text

    await until(f"upstream {upstream} answers “{text}”", 10, said)


async def _ready(story: Story, service: str, datacenter: str) -> None:
    async def ready() -> bool:
        return (await get(f"{story.addresses.admin(service, datacenter)}/ready")).status == 200

    await until(f"the sidecar of {service} in {datacenter} is ready", 10, ready)


async def _passing(story: Story, datacenter: str, count: int) -> None:
    async def passing() -> bool:
        answer = await get(f"{story.addresses.api(datacenter)}/v1/health/connect/db?passing")
        return len(answer.json()) == count

    await until(f"{count} passing db in {datacenter}", 10, passing)


async def _roots(story: Story, datacenter: str) -> dict[str, Any]:
    with clearly("roots"):
        roots: dict[str, Any] = (
            await get(f"{story.addresses.api(datacenter)}/v1/agent/connect/ca/roots")
        ).json()
    return roots


def _active(roots: dict[str, Any]) -> dict[str, Any]:
    active: dict[str, Any] = next(root for root in roots["Roots"] if root["Active"])
    return active


async def _last_denial(story: Story, service: str, datacenter: str) -> str:
    """Return how the sidecar of one end tells of the last denied call."""
    ended = [row for row in (await story.status(service, datacenter))["recent"] if not _usual(row)]
    if not ended or "web => db (deny" not in ended[-1]["rule"]:
        raise StepFailed(f"the sidecar of {service}@{datacenter} names no rule: {ended[-1:]}")
    return f"{service}@{datacenter} says {ended[-1]['reason']}: {ended[-1]['rule']}"


def _usual(row: dict[str, Any]) -> bool:
    return bool(row["reason"] == "clean")


def short(identity: str) -> str:
    """Return `web@dc1` for a SPIFFE ID."""
    parts = identity.rpartition("/dc/")[2].split("/svc/")
    return "@".join(reversed(parts))


def _expect_ids(out: dict[str, Any], into: dict[str, Any], datacenter: str) -> None:
    if not out["peer"].endswith(f"/ns/default/dc/{datacenter}/svc/db"):
        raise StepFailed(f"web's sidecar saw {out['peer']}")
    if not into["peer"].endswith("/ns/default/dc/dc1/svc/web"):
        raise StepFailed(f"db's sidecar saw {into['peer']}")
