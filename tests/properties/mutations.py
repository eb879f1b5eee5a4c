"""Documents with one thing in them that is not as it should be."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

Step = str | int

numbers = st.integers() | st.integers(-(10**400), 10**400) | st.floats(allow_nan=False, allow_infinity=False)
scalars = (
    st.none() | st.booleans() | numbers | st.text(max_size=20) | st.sampled_from(["", "0", "9" * 5000, "\0"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@dataclass(frozen=True, slots=True)
class Mutated:
    """The document, and where it was changed."""

    document: Any
    path: tuple[Step, ...]

    @property
    def at(self) -> str:
        """The place as msgspec writes it."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)


def places(document: Any, path: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    """Of everything in the document, itself not included."""
    steps: list[Step] = []
    if isinstance(document, dict):
        steps = list(document)
    elif isinstance(document, list):
        steps = list(range(len(document)))
    for step in steps:
        yield (*path, step)
        yield from places(document[step], (*path, step))


def mutated(document: Any) -> st.SearchStrategy[Mutated]:
    """One place of it holds anything at all, or is gone."""
    where = st.sampled_from(sorted(places(document), key=str))
    return st.builds(_change, st.just(document), where, anything, st.booleans())


def _change(document: Any, path: tuple[Step, ...], value: Any, remove: bool) -> Mutated:
    changed = copy.deepcopy(document)
    holder = changed
    for step in path[:-1]:
        holder = holder[step]
    if remove:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return Mutated(changed, path)
