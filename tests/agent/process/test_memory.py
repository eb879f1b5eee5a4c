"""When memory is given back: after a flood of connections, once, and not for a few that come and go."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
import trio.testing

from agent.process.memory import CALM_LOOKS, WORTH_IT, AfterFlood, give_back


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
    tide = AfterFlood(lambda: seen.append(1), lambda: seen.append(1))
    for live in lives:
        tide.look(live)
    assert len(seen) == calls


def test_trimming_gives_memory_back() -> None:
    """In a process of its own: blocks between others that stay are freed, and leave with the call alone."""
    script = """
import ctypes
from agent.process.memory import trim
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


def test_what_a_flood_of_objects_took_is_given_back_when_all_is_calm() -> None:
    """As the unit starts it: thousands of small objects wait in the interpreter for their next use."""
    script = """
from agent.process.memory import tidy, trim
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
flood = [(number, [bytes(450) for _ in range(20)]) for number in range(2_000)]
del flood
trim()
trimmed = resident()
tidy()
print((trimmed - before) // 1_000_000, (resident() - before) // 1_000_000)
"""
    done = subprocess.run(
        ["env", "PYTHONMALLOC=malloc", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )
    trimmed, tidied = map(int, done.stdout.split())
    assert tidied <= 2 < trimmed


async def test_it_looks_for_as_long_as_it_runs(autojump_clock: trio.testing.MockClock) -> None:
    ebbed: list[float] = []
    calmed: list[float] = []
    begun = trio.current_time()
    with trio.move_on_after(20):
        await give_back(
            lambda: WORTH_IT if trio.current_time() - begun < 2.5 else 0,
            AfterFlood(lambda: ebbed.append(trio.current_time()), lambda: calmed.append(trio.current_time())),
        )
    assert [round(at - begun) for at in ebbed] == [3]
    assert [round(at - begun) for at in calmed] == [3 + CALM_LOOKS]


def test_a_collection_of_everything_is_rare_once_the_process_has_settled() -> None:
    """In a process of its own: a hundred thousand objects that stay cause none; cycles are still freed."""
    script = """
import gc, weakref
from agent.process.memory import settle
settle()
full = []
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
kept = [[number] for number in range(100_000)]
assert not full, full
class Node: pass
node = Node(); node.itself = node
ref = weakref.ref(node)
del node
made = [[number] for number in range(1000)]
assert ref() is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)
