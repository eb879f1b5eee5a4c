"""What callers notice while a sidecar is restarted, killed, reloaded or upgraded.

`python -m tests.systemd.under_load [ACT …]` tries all of it or these acts, as often as `FULL` says, with
and without socket units, and prints a table. The variables RESTARTS (how often, instead) and RATE (callers in
each second, of each of three kinds) make it shorter.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.systemd.boot import Machine, boot, until
from tests.systemd.mesh import (
    PUBLIC_PORT,
    UPSTREAM,
    WAN_HOST,
    Mesh,
    federation,
    install,
    load,
    start_load,
    workloads,
)

FULL = {"restart": 20, "kill": 10, "reload": 20, "upgrade": 10}
FULL_RATE = 200
STREAMS = 20
ACROSS = UPSTREAM.removeprefix("http")
CALLERS = {"load-public": "the public port", "load-upstream": "the upstream's port", "load-across": "across"}
STEADY = ("reload", "upgrade")  # which leave every connection as it is
SOCKETS = ("sidecar@db.socket", "sidecar@web.socket", "sidecar-web-db.socket")
SERVICES = ("sidecar@db.service", "sidecar@web.service")


def asked(name: str) -> int | None:
    """Return a number that the environment says."""
    text = os.environ.get(name, "")  # noqa: TID251 - a longer or shorter run is asked for by hand
    return int(text) if text else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noticed:
    """The reports of the callers by unit, and of the streams where they are to outlive what was done.

    `cut`: how many connections were open when their process was killed.
    """

    reports: Mapping[str, Any]
    streams: Mapping[str, Any] | None = None
    cut: int = 0

    @property
    def failures(self) -> list[list[str]]:
        """What went wrong, for each kind of callers."""
        return [report["failures"] for report in self.reports.values()]

    def refused(self, name: str) -> int:
        """How many of these callers were refused a connection."""
        return int(self.reports[name]["kinds"].get("ConnectionRefusedError", 0))

    @property
    def good(self) -> bool:
        """Whether no connect was refused, and no stream reset."""
        connects = [self.reports[name]["failed"] for name in ("load-public", "load-upstream")]
        return not any((*connects, self.refused("load-across"), self.streams and self.streams["failed"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rig:
    """The mesh with its callers."""

    mesh: Mesh
    times: Mapping[str, int]
    open_at_kill: list[int] = field(default_factory=list)

    def noticed(self, act: str, instance: str) -> Noticed:
        """Do it as often as is asked, under load."""
        do: Callable[[str], None] = getattr(self, act)
        if act in STEADY:
            start_load(self.mesh.machine, "load-streams")

        def change() -> None:
            for _ in range(self.times[act]):
                do(instance)

        reports = self.under_load(change)
        streams = load(self.mesh.machine, "load-streams") if act in STEADY else None
        cut, self.open_at_kill[:] = sum(self.open_at_kill), []
        return Noticed(reports=reports, streams=streams, cut=cut)

    def under_load(self, change: Callable[[], None]) -> dict[str, Any]:
        """Do it while callers come; return their reports."""
        for name in CALLERS:
            start_load(self.mesh.machine, name)
        change()
        return {name: load(self.mesh.machine, name) for name in CALLERS}

    def restart(self, instance: str) -> None:
        """Restart a sidecar."""
        self.mesh.machine.systemctl("restart", f"sidecar@{instance}")

    def kill(self, instance: str) -> None:
        """Kill a sidecar, and wait until it serves again."""
        machine, before = self.mesh.machine, self.mesh.pid(instance)
        self.open_at_kill.append(self.open(instance))
        machine.run("kill", "-KILL", str(before))
        until(lambda: self.mesh.pid(instance) not in (0, before) or None, "another process")
        until(lambda: machine.show(f"sidecar@{instance}", "ActiveState") == "active" or None, "it serves")
        self.mesh.get(UPSTREAM)  # after those who waited, so that the next kill finds few connections open

    def open(self, instance: str) -> int:
        """Return how many connections a sidecar has accepted that have not ended."""
        status = json.loads(self.mesh.admin(instance, "/status")[1])
        listeners = [status["public"], *(one["listener"] for one in status["upstreams"])]
        return sum(one["live"] + one["waiting"] for one in listeners)

    def reload(self, instance: str) -> None:
        """Have a sidecar read its settings anew."""
        self.mesh.machine.systemctl("reload", f"sidecar@{instance}")

    def upgrade(self, instance: str) -> None:
        """Upgrade a sidecar, and wait until the new program is its main process and serves."""
        unit, before = f"sidecar@{instance}", self.mesh.pid(instance)
        self.mesh.machine.systemctl("kill", "--signal=USR2", "--kill-who=main", unit)
        until(lambda: self.mesh.pid(instance) not in (0, before) or None, "another main process")
        until(
            lambda: self.mesh.machine.show(unit, "StatusText").startswith("serving") or None,
            "it serves",
        )

    def take_sockets(self) -> None:
        """Start the sidecars anew, with listeners of socket units."""
        machine = self.mesh.machine
        for name, place in zip(
            SOCKETS, (f"{WAN_HOST}:{PUBLIC_PORT}", f"127.0.1.10:{PUBLIC_PORT}"), strict=False
        ):
            machine.add_unit(f"{name}.d/listen.conf", f"[Socket]\nListenStream=\nListenStream={place}\n")
        held = (
            f"ListenStream={ACROSS.removeprefix('://')}\nFileDescriptorName=upstream-db@dc2\nBacklog=4096\n"
        )
        machine.add_unit(SOCKETS[-1], f"[Socket]\n{held}Service=sidecar@web.service\n")
        machine.systemctl("stop", *SERVICES)
        machine.systemctl("start", *SOCKETS)
        for name in SERVICES:
            machine.start(name)


def made(machine: Machine, times: Mapping[str, int], rate: int) -> Rig:
    """Start datacenters, workloads and both sidecars, without a socket unit, and install the callers."""
    mesh = federation(machine)
    workloads(mesh)
    for name in ("db", "web"):
        machine.start(f"sidecar@{name}")
    install(machine, "load-public", f"tcp://{WAN_HOST}:{PUBLIC_PORT}", str(rate))
    install(machine, "load-upstream", f"tcp{ACROSS}", str(rate))
    install(machine, "load-across", UPSTREAM, str(rate))
    install(machine, "load-streams", f"stream{ACROSS}", str(STREAMS))
    return Rig(mesh=mesh, times=times)


def row(held: str, act: str, instance: str, times: int, noticed: Noticed) -> str:
    """Return a line of the table: failed of all callers, for each kind."""
    cells = [f"{report['failed']} of {report['calls']:,}" for report in noticed.reports.values()]
    reset = "" if noticed.streams is None else f"{noticed.streams['failed']} of {noticed.streams['calls']}"
    if act == "kill":
        cells[-1] += f" ({noticed.cut} open)"
    longest = max(report["longest"] for report in noticed.reports.values())
    return f"| {act} × {times} | `{instance}` | {held} | {' | '.join(cells)} | {reset} | {longest:.1f} |\n"


def main() -> int:
    """Try everything; return 0 if no connect was refused and no reload or upgrade reset a stream."""
    often, rate = asked("RESTARTS"), asked("RATE") or FULL_RATE
    times = {act: often or most for act, most in FULL.items() if act in (sys.argv[1:] or FULL)}
    heads = ("", "unit", "socket units", *CALLERS.values(), "streams reset", "longest wait, s")
    sys.stdout.write(f"{rate} callers/s of each kind\n\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    good = True
    with boot() as machine:
        rig = made(machine, times, rate)
        for held in ("no", "yes"):
            if held == "yes":
                rig.take_sockets()
            for act, count in times.items():
                for instance in ("db", "web"):
                    noticed = rig.noticed(act, instance)
                    good &= noticed.good
                    sys.stdout.write(row(held, act, instance, count, noticed))
                    for name, report in noticed.reports.items():
                        if report["failed"]:
                            sys.stderr.write(f"{name}: {report['kinds']} {report['failures'][:1]}\n")
                    sys.stdout.flush()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
