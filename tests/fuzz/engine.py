"""One target under atheris, in a process of its own: `python -m tests.fuzz.engine NAME FINDINGS FLAG...`.

A failure does not end the search: the smallest input for each is written into the folder FINDINGS, as
`tests/fuzz/__main__.py` reads it. The flags are libFuzzer's. Where they name a seed, every
other source of chance is fixed too, so that two runs make the same inputs.
"""

from __future__ import annotations

import hashlib
import importlib
import random
import sys
from pathlib import Path
from random import Random

import trio._core._run

from tests.fuzz.findings import Finding, judged
from tests.fuzz.target import Target, load

MEASURED = ["agent", "certs", "upstreams", "datacenter"]  # whose branches guide the search


def main(name: str, folder: Path, flags: list[str]) -> None:
    """Search until the flags say it is enough; atheris ends the process."""
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=MEASURED):
        target = load(name)
    if any(flag.startswith("-seed=") for flag in flags):
        random.seed(0)
        trio._core._run._r.seed(0)  # it orders tasks; trio has no public way to fix it
    smallest: dict[str, int] = {}

    def one(data: bytes) -> None:
        found = judged(target.fuzz_one, data)
        if found is not None and len(data) < smallest.get(found.kind, sys.maxsize):
            smallest[found.kind] = len(data)
            write(folder, found)

    def change(data: bytes, most: int, seed: int) -> bytes:
        assert target.mutate is not None
        return target.mutate(data, most, Random(seed), atheris.Mutate)

    own = {} if target.mutate is None else {"custom_mutator": change}
    atheris.Setup([name, *flags], one, **own)
    atheris.Fuzz()


def write(folder: Path, found: Finding) -> None:
    """Keep a finding: what it is, the bytes, and where it came from."""
    path = folder / hashlib.sha256(found.kind.encode()).hexdigest()[:12]
    path.write_text(f"{found.kind}\n{found.data!r}\n{found.text}")


def seed_files(target: Target, entries: list[bytes], folder: Path) -> None:
    """What the search starts from, as files."""
    for entry in {*target.seeds, *entries}:
        (folder / hashlib.sha256(entry).hexdigest()[:16]).write_bytes(entry)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
