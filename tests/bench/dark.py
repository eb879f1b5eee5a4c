"""`python -m tests.bench.dark run …`: a sidecar of which nothing is seen, to measure what being seen costs.

It writes no line, counts no ending, times no step, keeps no record of an ended connection, and takes no
sample for the sparklines of its page. It answers nobody's scrape, for the bench asks it for none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from agent.__main__ import _one_openssl, main


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


async def no_samples(*_: object) -> None:
    """Take no sample, for ever."""
    await sleep_forever()


def finish(ledger: Any, connection: Any) -> None:
    """Let a connection go without an account of it (`Ledger.finish`)."""
    if ledger._tunnels.pop(connection.id, None) is None:
        del ledger._live[connection.id]
        ledger._departed()


if __name__ == "__main__":
    _one_openssl(os.environ)  # noqa: TID251 - the first act of each start, before any other import

    from trio import sleep_forever

    from agent.base.histogram import Histogram
    from agent.connections.ledger import Ledger
    from agent.log.log import Log
    from agent.page import routes

    OFF: tuple[tuple[object, str, Callable[..., object]], ...] = (
        (Log, "write", nothing),
        (Log, "write_each", nothing),
        (Histogram, "observe", nothing),
        (Ledger, "finish", finish),
        (Ledger, "request_passed", nothing),
        (routes, "keep", no_samples),
    )
    for owner, name, instead in OFF:
        assert hasattr(owner, name), f"{owner} has no {name} any more"
        setattr(owner, name, instead)
    sys.exit(main())
