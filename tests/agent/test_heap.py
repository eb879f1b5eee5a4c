"""When memory is given back: after a flood of connections, once, and not for a few that come and go."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
import trio.testing

from agent.heap import CALM_LOOKS, WORTH_IT, Tide, give_back


@pytest.mark.parametrize(
    ("lives", "calls"),
    [
        ([0, 10, 0, 10, 0], 0),
        ([WORTH_IT - 1, 0], 0),
        ([WORTH_IT, 0], 1),
        ([WORTH_IT, 0, 0, 0], 1),
        ([WORTH_IT, 0, WORTH_IT, 0], 2),
        ([5000, 4000, 3000], 0),  # the most of it is in use
        ([5000, 4000, 2500], 1),
        ([5000, 2500, 2500, 1250, 1200], 2),
        ([WORTH_IT, *[0] * 20], 2),  # once more when calm, and then no more
        ([5000, 400, *[300] * 20], 1),  # it is not calm yet
    ],
)
def test_when_a_flood_has_gone(lives: list[int], calls: int) -> None:
    seen: list[int] = []
    tide = Tide(lambda: seen.append(1))
    for live in lives:
        tide.look(live)
    assert len(seen) == calls


def test_trimming_gives_memory_back() -> None:
    """In a process of its own: blocks between others that stay are freed, and leave with the call alone."""
    script = """
import ctypes
from agent.heap import trim
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
blocks = [libc.malloc(60_000) for _ in range(1000)]
for block in blocks:
    ctypes.memset(block, 1, 60_000)
for number, block in enumerate(blocks):
    if number % 8:
        libc.free(block)
before = resident()
trim()
print((before - resident()) // 1_000_000)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 40


async def test_it_looks_for_as_long_as_it_runs(autojump_clock: trio.testing.MockClock) -> None:
    trimmed: list[float] = []
    begun = trio.current_time()
    with trio.move_on_after(20):
        await give_back(
            lambda: WORTH_IT if trio.current_time() - begun < 2.5 else 0,
            lambda: trimmed.append(trio.current_time()),
        )
    assert [round(at - begun) for at in trimmed] == [3, 3 + CALM_LOOKS]
