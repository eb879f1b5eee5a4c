"""Names a lack of descriptors or memory, and reserves a few descriptors from callers.

A shortage is a fault of this process or its host: no endpoint is ejected for one
(docs/failures.md#shortages).
"""

from __future__ import annotations

import os
import resource
import sys

OUT_OF_RESOURCES = "out_of_resources"  # the same reason wherever a shortage shows

FILES_RUN_OUT = "open files run out"  # how the complaint begins
_KEPT = 32  # descriptors for the admin endpoint and for Consul
_FEW = 0.95  # of what connections may have: some come and go at each moment
_SHARE = 8  # where the limit is low, this part of it


def first_kept() -> int:
    """Return the lowest descriptor number that no connection of the mesh may have.

    The kernel gives the lowest number that is free (POSIX), so a number says how many are in use.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(_KEPT, limit // _SHARE)


def open_files() -> int:
    """Return how many descriptors are open."""
    with os.scandir("/proc/self/fd") as entries:
        return sum(1 for _ in entries)


def files_run_out(connections: int) -> str:
    """Return how few descriptors are left, for a person; empty while there are more than a few.

    `connections`: how many there are. Each has two descriptors, and they are counted only where these alone
    are half of what connections may have, since counting takes a while.
    """
    first = first_kept()
    if 4 * connections < first or (used := open_files()) < first * _FEW:
        return ""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return f"{FILES_RUN_OUT}: {used} of {limit} (LimitNOFILE), callers wait from {first} on"
