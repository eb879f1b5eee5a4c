"""The page in a real browser, beside an agent: what a person reads on it."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from agent.connections.records import Direction
from tests.support.agent_in_process import Life, public_life

BROWSER = shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="chromium is not installed"),
]


async def read_by_a_browser(url: str, directory: Path) -> str:
    """The text of the page once its script has run, a line for each element."""
    words = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory}"]
    words += ["--virtual-time-budget=3000", "--dump-dom", url]
    done = await trio.run_process(words, capture_stdout=True, capture_stderr=True)
    body = done.stdout.decode().partition("<body>")[2].partition("<script>")[0]
    return re.sub(r"\s*(?:<[^>]*>)+\s*", "\n", body)


@dataclass
class _Streams:
    streams: int = 3
    opened: int = 1234


def open_tunnel(life: Life) -> None:
    """A tunnel to db, as the ledger has it."""
    tunnel = life.bench.data.ledger.begin(Direction.OUTBOUND, "127.0.0.1:9", lambda: None, "db@dc2")
    life.bench.data.ledger.become_tunnel(tunnel, _Streams(), 1)
    tunnel.cut = lambda: life.bench.data.ledger.finish(tunnel)


async def test_tunnels_and_rotations_are_read_on_it(nursery: trio.Nursery, tmp_path: Path) -> None:
    life = public_life(nursery)
    life.bench.well()
    async with trio.open_nursery() as inner:
        inner.start_soon(life.run)
        await life.ready()
        (url,) = life.bench.agent.admin_addresses
        with trio.fail_after(60):
            before = await read_by_a_browser(url, tmp_path)
            open_tunnel(life)
            after = await read_by_a_browser(url, tmp_path)
        life.cycle.drain("the test")
    assert "\nserving · leaf " in before
    assert "\nrotations\nnone since the first leaf\n" in before
    assert "\nTunnels\nnone\n" in before
    assert "\n1 tunnel; the streams in them are among the connections\n" in after
    assert "\ndb@dc2\n" in after
    assert "\n3\n1,234\n0.0\n" in after  # open streams, those so far, and how many a second
    assert re.search(r"Z: the first, leaf \w+, root [0-9a-f:]+\n", after)
