"""A process whose end hangs ends all the same, and says why."""

from __future__ import annotations

import subprocess
import sys

from agent.base.exits import ExitCode

UNCANCELLABLE = """
import sys
from functools import partial
import trio
from agent.process.end_deadline import EndDeadline

async def lingers():
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lingers)
        EndDeadline(0.2, {last_words}).begin()
        nursery.cancel_scope.cancel()

trio.run(main)
"""


def ended(last_words: str) -> subprocess.CompletedProcess[str]:
    code = UNCANCELLABLE.format(last_words=last_words)
    words = [sys.executable, "-c", code]
    return subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)


def test_it_says_its_last_words_and_ends() -> None:
    done = ended('partial(print, "too long", file=sys.stderr, flush=True)')
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "too long\n")


def test_without_last_words_it_ends_all_the_same() -> None:
    done = ended("lambda: 1 / 0")
    assert done.returncode == ExitCode.FAILED
