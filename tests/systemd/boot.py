"""A machine of its own for the units: a real systemd in namespaces, which leaves nothing behind.

    with boot() as machine:
        machine.write("/etc/connect-sidecar/web.toml", "...")
        machine.systemctl("start", "sidecar@web")
        machine.run("curl", "http://127.0.0.1:9191/")

It has its own processes, mounts (`/tmp`, `/dev/shm`, `/run`, `/etc`, `/var`, `/opt`), control groups, host
name and loopback network: ports can be fixed, and whatever runs in it ends with it. The sidecar it finds
under /opt/connect-sidecar is this checkout. `init.sh` is the inner half.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CHECKOUT = Path(__file__).resolve().parents[2]
INIT = Path(__file__).with_name("init.sh")
TOOLS = ("unshare", "nsenter", "setpriv", "mount", "ip", "systemctl", "journalctl", "curl")
NEW_NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--net")
BOOT_SECONDS = 30.0
RUN_SECONDS = 60.0
POLL_SECONDS = 0.05


class BootFailed(Exception):
    """The private systemd did not come up; the text is what it said."""


def why_not() -> str | None:
    """What is missing here for a private systemd; None if nothing."""
    if os.geteuid() != 0:
        return "a private systemd needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not Path("/lib/systemd/systemd").exists():
        missing.append("systemd")
    if missing:
        return f"a private systemd needs {', '.join(missing)}"
    probe = "mount --make-rprivate / && mount -t tmpfs probe /run && mount -t cgroup2 probe /run"
    tried = subprocess.run(
        ["unshare", "--fork", "--mount-proc", *NEW_NAMESPACES, "bash", "-c", probe],
        capture_output=True,
        text=True,
        check=False,
        timeout=BOOT_SECONDS,
    )
    return f"no namespaces or mounts here: {tried.stderr.strip()}" if tried.returncode else None


def until(ask: Callable[[], T | None], what: str, seconds: float = BOOT_SECONDS) -> T:
    """Ask again and again until the answer is not None; AssertionError names `what` when time is up."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) is None:
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A running private systemd; `pid` is its process 1, as seen from outside."""

    pid: int

    def outside(self, path: str) -> Path:
        """Where a file of the machine is seen from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Make a file in the machine, with its directories."""
        file = self.outside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def command(self, *argv: str, online: bool = False) -> list[str]:
        """Return the words that run a program in the machine. `online`: with the network of the real one."""
        kept = [name for name in NEW_NAMESPACES if not (online and name == "--net")]
        return ["nsenter", f"--target={self.pid}", "--cgroup", "--root", "--wd", *kept, "--", *argv]

    def run(self, *argv: str, check: bool = True, seconds: float = RUN_SECONDS, online: bool = False) -> str:
        """Run a program in the machine and return its standard output; with `check`, fail if it failed."""
        command = self.command(*argv, online=online)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def systemctl(self, *words: str, check: bool = True, seconds: float = RUN_SECONDS) -> str:
        """Run systemctl; a job is waited for, unless the words say --no-block."""
        return self.run("systemctl", "--no-pager", *words, check=check, seconds=seconds)

    def start(self, unit: str) -> None:
        """Start a unit; if that fails, say what its journal says."""
        try:
            self.systemctl("start", unit)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal(unit)}") from None

    def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def age(self, unit: str) -> float:
        """Seconds since its main process was begun."""
        began = int(self.show(unit, "ExecMainStartTimestampMonotonic"))
        return time.monotonic() - began / 1e6 if began else 0.0

    def journal(self, unit: str) -> str:
        """What a unit has written."""
        return self.run("journalctl", "--no-pager", "--quiet", "--output=cat", f"--unit={unit}")

    def journal_of_run(self, invocation: str) -> str:
        """What a unit has written in one of its runs, by the InvocationID of it."""
        only = f"_SYSTEMD_INVOCATION_ID={invocation}"
        return self.run("journalctl", "--no-pager", "--quiet", "--output=cat", only)

    def at_priority(self, unit: str, priority: str) -> list[str]:
        """Return the lines of a unit that the journal has at this priority (journalctl(1), `-p`)."""
        only = f"--priority={priority}..{priority}"
        shown = self.run("journalctl", "--no-pager", "--quiet", "--output=cat", f"_SYSTEMD_UNIT={unit}", only)
        return shown.splitlines()

    def add_unit(self, name: str, text: str) -> None:
        """Install a unit, or a drop-in (`NAME.service.d/x.conf`), and make systemd read it."""
        self.write(f"/run/systemd/system/{name}", text)
        self.systemctl("daemon-reload")


def boot() -> AbstractContextManager[Machine]:
    """Boot a private systemd on this machine's own files, with this checkout installed."""
    environment = {
        "CHECKOUT": str(CHECKOUT),
        "SITE_PACKAGES": sysconfig.get_path("purelib"),
        "PYTHON_PREFIX": sys.base_prefix,
        "PYTHON_NAME": f"python{sys.version_info.major}.{sys.version_info.minor}",
    }
    return boot_by(INIT, environment)


@contextmanager
def boot_by(init: Path, environment: dict[str, str]) -> Iterator[Machine]:
    """Boot what the script makes; at the end, kill its process 1 and wait until everything is gone."""
    scratch = Path(tempfile.mkdtemp(prefix="sidecar-systemd-"))
    cgroup = scratch.name
    output = scratch.with_suffix(".log")
    common = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SCRATCH": str(scratch), "CGROUP": cgroup}
    # If the tests are killed, --pdeathsig ends unshare, and --kill-child with it the machine.
    outer = ["setpriv", "--pdeathsig=KILL", "unshare", "--fork", "--kill-child", "--mount-proc"]
    with output.open("wb") as log:
        unshare = subprocess.Popen(
            [*outer, *NEW_NAMESPACES, "bash", str(init)],
            env={**common, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        pid = until(lambda: _systemd_below(unshare, output), "a process 1")
        machine = Machine(pid=pid)
        until(lambda: _booted(machine) or None, "a running systemd")
        yield machine
    finally:
        _end(unshare)
        _remove_cgroup(cgroup)
        scratch.rmdir()
        output.unlink()


def _systemd_below(unshare: subprocess.Popen[bytes], output: Path) -> int | None:
    """The process id of process 1, once init.sh has become systemd."""
    if unshare.poll() is not None:
        raise BootFailed(output.read_text())
    pid = _child(unshare.pid)
    name = Path(f"/proc/{pid}/comm").read_text().strip() if pid is not None else ""
    return pid if name == "systemd" else None


def _child(pid: int) -> int | None:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else None


def _booted(machine: Machine) -> bool:
    return machine.systemctl("is-system-running", check=False).strip() == "running"


def _end(unshare: subprocess.Popen[bytes]) -> None:
    """Kill process 1: the kernel kills what is left in its namespace, and its mounts go with it."""
    pid = _child(unshare.pid) if unshare.poll() is None else None
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
    elif unshare.poll() is None:
        unshare.kill()
    unshare.wait(timeout=BOOT_SECONDS)


def _remove_cgroup(name: str) -> None:
    """Remove the machine's control groups, through a mount that nobody else sees."""
    script = (
        'mount -t cgroup2 cgroup2 "$1" && cd "$1" && [ -d "$2" ] && find "$2" -depth -type d -exec rmdir {} +'
    )
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            ["unshare", "--mount", "bash", "-c", script, "bash", place, name],
            check=False,
            timeout=BOOT_SECONDS,
        )
