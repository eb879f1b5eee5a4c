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
    """In a process of its own: a million objects that go again cause none; cycles are still freed."""
    script = """
import gc, weakref
from agent.process.memory import settle
settle()
full = []
gc.callbacks.append(lambda phase, info: full.append(phase) if info["generation"] == 2 else None)
for _ in range(1000):
    gone = [[number] for number in range(1000)]
assert not full, full
class Node: pass
node = Node(); node.itself = node
ref = weakref.ref(node)
del node
made = [[number] for number in range(4000)]  # 700 make a collection due, and 2,000 do since 3.13
assert ref() is None
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def alone(script: str) -> None:
    """Run a script in a process of its own, after the agent's `settle`; `seconds` is its clock."""
    lines = """
import gc
from agent.process import memory
from agent.process.memory import ALL_SECONDS, GROWTH, Exemption, settle
seconds = 0.0
memory.Exemption = lambda: Exemption(lambda: seconds)
settle()
start = gc.get_freeze_count()
"""
    subprocess.run([sys.executable, "-c", lines + script], check=True)


# Makes rings of 5,000 objects and leaves each one once it is exempt; `most` objects were exempt.
RINGS = """
most = 0
for _ in range(50):
    ring = [[number] for number in range(5_000)]
    ring.append(ring)
    gc.collect()
    del ring
    seconds += ALL_SECONDS
    most = max(most, gc.get_freeze_count())
assert most < start * GROWTH + 10_000, (start, most)
"""


def test_what_a_full_collection_has_left_is_not_walked_by_the_next_one() -> None:
    alone("""
kept = [[number] for number in range(20_000)]
gc.collect()
assert len(gc.get_objects()) < 1000, len(gc.get_objects())
before = gc.get_freeze_count()
del kept
assert before - gc.get_freeze_count() >= 20_000  # they leave with their last reference
""")


def test_many_objects_that_come_at_once_are_walked_a_part_at_a_time() -> None:
    alone("""
walked = []
def note(phase, info):
    if phase == "start" and info["generation"] == 2:
        walked.append(len(gc.get_objects()))
gc.callbacks.append(note)
kept = [[number] for number in range(300_000)]
assert len(walked) > 5, walked
assert max(walked) < 1.5 * memory.PART, walked
""")


def test_cycles_that_were_exempt_are_collected_before_they_are_half_as_many_as_all() -> None:
    alone(RINGS)


def test_a_flood_that_was_exempt_leaves_no_room_for_more_cycles() -> None:
    alone(f"""
flood = [[number] for number in range(10 * start)]
for _ in range(3):
    gc.collect()  # one of them walks all, so that the flood counts as all there is
    seconds += ALL_SECONDS
del flood
gc.collect()
{RINGS}""")


def test_all_objects_are_not_walked_again_soon() -> None:
    alone("""
seconds = ALL_SECONDS - 1
kept = [[number] for number in range(2 * start)]
gc.collect()
gc.collect()
gc.callbacks.append(lambda phase, info: walked.append(gc.get_freeze_count()) if phase == "start" else None)
walked = []
gc.collect()
seconds += memory.COUNT_SECONDS
gc.collect()
seconds += ALL_SECONDS
gc.collect()  # what is kept is known by now
assert [count > 0 for count in walked] == [True, False, True], walked
""")
