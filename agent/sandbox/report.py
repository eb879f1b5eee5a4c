"""Says what a running process may not do, from what the kernel shows of it: proc_pid_status(5)."""

from __future__ import annotations

import re

SECCOMP = {"0": "no filter of system calls", "1": "read and write only", "2": "a filter of system calls"}
SAME = "4294967295"  # an identity map that covers every user: no user namespace of its own


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


def is_confined(status: str) -> bool:
    """Return whether the kernel lets the process gain no privileges and filters its system calls."""
    fields = dict(re.findall(r"(?m)^(\w+):\t(.*)$", status))
    return (fields.get("NoNewPrivs"), fields.get("Seccomp")) == ("1", "2")
