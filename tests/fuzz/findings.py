"""What a judge raises: one finding for each place in the code, with the smallest input seen to cause it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Finding:
    """`kind`: what was raised, and the innermost place of ours it came through."""

    kind: str
    data: bytes
    text: str  # the traceback


def finding(error: Exception, data: bytes) -> Finding:
    """What a judge raised, as a finding."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)]
    place = f" at {Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].name}" if frames else ""
    text = "".join(traceback.format_exception(error, limit=-12))
    return Finding(f"{type(error).__name__}{place}", data, text)


def judged(fuzz_one: Callable[[bytes], None], data: bytes) -> Finding | None:
    """What the judge has against these bytes."""
    try:
        fuzz_one(data)
    except Exception as error:  # noqa: BLE001 - whatever is raised is what is sought
        return finding(error, data)
    return None


def smallest(fuzz_one: Callable[[bytes], None], found: Finding) -> Finding:
    """The same failure by fewer bytes: halves, quarters, ... single bytes are left out while it stays."""
    size = len(found.data) // 2
    while size:
        place = 0
        while place < len(found.data):
            again = judged(fuzz_one, found.data[:place] + found.data[place + size :])
            if again is not None and again.kind == found.kind:
                found = again
            else:
                place += size
        size //= 2
    return found


def _is_ours(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(ROOT) and ".venv" not in path.parts
