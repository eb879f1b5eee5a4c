"""Says what a running process may not do, from what the kernel shows of it: proc_pid_status(5)."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from agent.config.settings import Settings
from agent.sandbox.landlock import interface
from agent.sandbox.rules import rules

SECCOMP = {"0": "no filter of system calls", "1": "read and write only", "2": "a filter of system calls"}
VARIABLE, TRUE = "SIDECAR_LANDLOCK", ("true", "1")
CAP_NET_BIND_SERVICE = 1 << 10  # capabilities(7)
FIRST_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")  # ip_sysctl
SAME = "4294967295"  # an identity map that covers every user: no user namespace of its own


def shown(pid: int, settings: Settings) -> tuple[str, bool]:
    """Return what the agent of these settings may do, in words, and whether it is confined. Raises OSError.

    The kernel shows no Landlock rules. Those said are what the settings ask for, with what the process found
    in its environment, which has what a unit says.
    """
    process = Path(f"/proc/{pid}")
    status = (process / "status").read_text()
    said = confinement(status, (process / "uid_map").read_text())
    said += f", {network(status, int(FIRST_PORT.read_text()))}"
    environ = _environment((process / "environ").read_bytes())
    asked_for = environ.get(VARIABLE, "") in TRUE if VARIABLE in environ else settings.landlock
    version = interface() if asked_for else 0
    held = f"Landlock {version}: {rules(settings, environ, (sys.prefix,))}" if version else "no Landlock"
    return f"{said}; {held}", is_confined(status)


def is_started_by_systemd(pid: int) -> bool:
    """Return whether systemd has started the process itself ($SYSTEMD_EXEC_PID). Raises OSError."""
    environ = _environment(Path(f"/proc/{pid}/environ").read_bytes())
    return environ.get("SYSTEMD_EXEC_PID") == str(pid)


def _environment(block: bytes) -> dict[str, str]:
    """Return the variables of a block as /proc/PID/environ shows it; proc(5)."""
    entries = (entry.partition("=") for entry in block.decode("utf-8", "replace").split("\0"))
    return {name: value for name, _, value in entries if name}


def confinement(status: str, uid_map: str) -> str:
    """Return what `/proc/PID/status` and `/proc/PID/uid_map` say of the process, in words."""
    fields = dict(re.findall(r"(?m)^(\w+):\t(.*)$", status))
    user = fields.get("Uid", "?").split()[0]
    capabilities = int(fields.get("CapEff", "0"), 16)
    said = [f"user {user}"]
    said.append(f"{capabilities.bit_count()} capabilities" if capabilities else "no capabilities")
    said.append(
        "no new privileges" if fields.get("NoNewPrivs") == "1" else "may gain privileges by a program"
    )
    said.append(SECCOMP.get(fields.get("Seccomp", "?"), "system calls unknown"))
    said.append("the machine's user namespace" if SAME in uid_map.split() else "a user namespace of its own")
    return ", ".join(said)


def network(status: str, first_port: int) -> str:
    """Return what the process may do on the network by itself. `first_port` needs no capability.

    Landlock could hold ports alone, and for good, while a registration may name others; addresses it cannot.
    """
    fields = dict(re.findall(r"(?m)^(\w+):\t(.*)$", status))
    any_port = int(fields.get("CapEff", "0"), 16) & CAP_NET_BIND_SERVICE or not first_port
    ports = "any port" if any_port else f"ports from {first_port} on"
    return (
        f"listens at {ports} and connects anywhere that the unit's SocketBindDeny= and IPAddressDeny= let it"
    )


def is_confined(status: str) -> bool:
    """Return whether the kernel lets the process gain no privileges and filters its system calls."""
    fields = dict(re.findall(r"(?m)^(\w+):\t(.*)$", status))
    return (fields.get("NoNewPrivs"), fields.get("Seccomp")) == ("1", "2")
