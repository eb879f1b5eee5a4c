"""`make hostile`: every crafted request at every backend that is here, through a sidecar and past it.

Through the sidecar no app may be told of what the rules forbid: exit 1 if one is. Past it, a sample shows
that the set means something: how often the same backend, asked directly, is told of the forbidden.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import trio

from agent.http1.head import FieldNames
from tests.hostile.attempt import Attempt, kinds
from tests.hostile.backends import BACKENDS, Backend, NotStarted, Running, serving
from tests.hostile.run import Result, decided, directly, through
from tests.hostile.spellings import attempts

EACH = 10  # of a kind with many attempts, one of so many is asked directly
MANY = 1000
SHOWN = 20  # breaches that are printed in full
FOLDED = ("names of headers", "lists in headers", "trailers")  # asked again where underscores are let through

HEAD = """
# Hostile requests

Crafted requests against servers that people run behind a sidecar: every spelling of a header's name, of a
target, of a length, and requests in the bodies of others (`tests/hostile/`). The rules deny the prefix
`/admin/`, the method `DELETE` and the role `root`; the identity header must be the sidecar's own. No app may
be told of any of these. `make hostile` repeats it.
"""
DECISIONS = """
## What the sidecar does with them

The last column: what it passes on where underscores are let through.

| kind | requests | refused | denied | passed on | with underscores |
|---|---|---|---|---|---|
"""
REACHED = """
## What reached the apps

Directly: a sample of the same requests without a sidecar, and how often the app was told of something
forbidden. Through the sidecar: all that it passes on.

| backend | version | asked directly | told of the forbidden | through the sidecar | told of the forbidden |
|---|---|---|---|---|---|
"""


@dataclass(slots=True, kw_only=True)
class Row:
    """What came of one backend."""

    backend: Backend
    version: str
    asked: int = 0
    told: int = 0
    results: list[Result] = field(default_factory=list)
    ended_by: list[str] = field(default_factory=list)

    @property
    def breaches(self) -> int:
        """How often its app was told of the forbidden, through the sidecar."""
        return sum(len(result.breaches) for result in self.results)


def main() -> int:
    """Run, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(prog="make hostile", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="backends whose names begin so")
    parser.add_argument("--write", type=Path, help="write the page there")
    options = parser.parse_args()
    made = attempts()
    rows, absent = [], []
    for backend in BACKENDS:
        if options.only and not backend.name.startswith(tuple(options.only)):
            continue
        if backend.missing:
            absent.append(f"{backend.name} (no {', '.join(backend.missing)})")
            print(f"absent: {absent[-1]}", flush=True)
            continue
        rows.append(_row(backend, made))
    page = _page(made, rows, absent)
    print(page)
    if options.write:
        options.write.write_text(page)
    return 1 if not rows or any(row.breaches for row in rows) else 0


def _row(backend: Backend, made: Sequence[Attempt]) -> Row:
    """Ask one backend all; it is started anew when an attempt has ended it."""
    row = Row(backend=backend, version=backend.said_version())
    sample = list(_sample(made))
    for running in _kept_serving(backend, row):
        past = directly(running, sample)
        row.asked, row.told = len(sample), len(past.breaches)
        break
    left = [(kind, underscores) for kind in kinds(made) for underscores in (False, True)]
    left = [(kind, underscores) for kind, underscores in left if not underscores or kind in FOLDED]
    for running in _kept_serving(backend, row):
        while left:
            kind, underscores = left.pop(0)
            result = trio.run(_through, running, made, kind, underscores)
            row.results.append(result)
            _tell(backend, kind, result)
            if not result.alive:
                row.ended_by.append(kind)
                break
        if not left:
            break
    return row


def _kept_serving(backend: Backend, row: Row) -> Iterator[Running]:
    while True:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o755)
            try:
                with serving(backend, Path(directory)) as running:
                    yield running
            except NotStarted as error:
                sys.exit(f"{backend.name} did not start: {error}")


async def _through(running: Running, made: Sequence[Attempt], kind: str, underscores: bool) -> Result:
    names = FieldNames.UNDERSCORES if underscores else FieldNames.PLAIN
    passing = [one for one in made if one.kind == kind and decided(one, names) == "passed"]
    return await through(running, passing, underscores=underscores)


def _sample(made: Sequence[Attempt]) -> Iterator[Attempt]:
    for kind in kinds(made):
        of_kind = [one for one in made if one.kind == kind]
        yield from of_kind[:: EACH if len(of_kind) > MANY else 1]


def _tell(backend: Backend, kind: str, result: Result) -> None:
    answered = ", ".join(f"{status}: {count}" for status, count in sorted(result.statuses.items()))
    print(f"{backend.name}: {kind}: {answered}; reached {result.reached}", flush=True)
    for attempt, seen in result.breaches[:SHOWN]:
        print(f"  FORBIDDEN {seen}\n  by {attempt}", flush=True)


def _page(made: Sequence[Attempt], rows: Iterable[Row], absent: Sequence[str]) -> str:
    lines = [
        *(HEAD.strip(), "", f"Run on {datetime.now(UTC):%Y-%m-%d}.", ""),
        *(DECISIONS.strip(), *_decisions(made), ""),
        *(REACHED.strip(), *map(_line, rows)),
        *(["", f"Absent on this machine: {'; '.join(absent)}."] if absent else []),
    ]
    return "\n".join(lines) + "\n"


def _decisions(made: Sequence[Attempt]) -> Iterator[str]:
    for kind in kinds(made):
        of_kind = [one for one in made if one.kind == kind]
        tally = Counter(map(_outcome, of_kind))
        folded = sum(decided(one, FieldNames.UNDERSCORES) == "passed" for one in of_kind)
        again = str(folded) if kind in FOLDED else ""
        counts = f"{tally['refused']} | {tally['denied']} | {tally['passed']} | {again}"
        yield f"| {kind} | {len(of_kind)} | {counts} |"


def _outcome(attempt: Attempt) -> str:
    said = decided(attempt)
    return (
        said if said == "passed" else "denied" if said.endswith(("_deny", "overriding_header")) else "refused"
    )


def _line(row: Row) -> str:
    asked = sum(sum(result.statuses.values()) for result in row.results)
    ended = f"; ended by {', '.join(row.ended_by)}" if row.ended_by else ""
    return (
        f"| {row.backend.name} | {row.version} | {row.asked} | {row.told} | {asked} | {row.breaches}{ended} |"
    )


if __name__ == "__main__":
    sys.exit(main())
