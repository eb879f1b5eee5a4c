"""What a fuzz target is: a reader under a judge, what to start from, and how to change it.

A target is one module of `tests/fuzz/readers/` and ends in `TARGET`. Its judge, `fuzz_one`, hands any bytes
to the reader: it returns if the reader read them well, or refused them with the one failure that its
documentation names, and raises for anything else.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"

Plain = Callable[[bytes, int], bytes]  # the fuzzer's own way to change bytes, up to a length
Mutate = Callable[[bytes, int, Random, Plain], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """`seeds` are made anew in each run; what is kept for good is in the corpus.

    `words` may come up anywhere. `mutate` changes an input by its structure; None leaves it to the fuzzer.
    """

    fuzz_one: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    mutate: Mutate | None = None
    longest: int = 4096  # bytes of an input


def names() -> list[str]:
    """Every target there is."""
    return sorted(path.stem for path in (HERE / "readers").glob("*.py"))


def load(name: str) -> Target:
    """The target of that name."""
    target = importlib.import_module(f"tests.fuzz.readers.{name}").TARGET
    if not isinstance(target, Target):
        raise TypeError(f"{name}.TARGET is no target")
    return target


def kept(name: str) -> list[bytes]:
    """The entries of a target's corpus: one bytes literal a line, comments after a hash."""
    path = CORPUS / f"{name}.txt"
    return list(_literals(path.read_text())) if path.exists() else []


def _literals(text: str) -> Iterator[bytes]:
    for line in text.splitlines():
        if line and not line.startswith("#"):
            value = ast.literal_eval(line)
            if not isinstance(value, bytes):
                raise TypeError(f"no bytes: {line[:80]}")
            yield value
