"""Names a lack of descriptors or memory, and reserves a few descriptors from callers.

A shortage is a fault of this process or its host: no endpoint is ejected for one
(docs/failures.md#shortages).
"""

from __future__ import annotations

import resource
import sys

OUT_OF_RESOURCES = "out_of_resources"  # the same reason wherever a shortage shows

_KEPT = 32  # descriptors for the admin endpoint and for Consul
_SHARE = 8  # where the limit is low, this part of it


def first_kept() -> int:
    """Return the lowest descriptor number that no connection of the mesh may have.

    The kernel gives the lowest number that is free (POSIX), so a number says how many are in use.
    """
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    return limit - min(_KEPT, limit // _SHARE)
