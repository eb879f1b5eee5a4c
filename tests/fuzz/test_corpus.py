"""What the fuzzer ever found goes through its reader again, and so do entries with a few bytes spoilt."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.target import CORPUS, Target, kept, load, names

# What the fuzzer makes of certificates, cryptography warns of; that is nothing to stop at.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")


@cache
def target(name: str) -> Target:
    return load(name)


@pytest.mark.parametrize("name", names())
def test_the_corpus_passes(name: str) -> None:
    for entry in (b"", *target(name).seeds, *kept(name)):
        judge(name, entry)


@pytest.mark.parametrize("name", names())
@settings(max_examples=30, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_spoilt_entries_pass(name: str, data: st.DataObject) -> None:
    entry = data.draw(st.sampled_from([*target(name).seeds, *kept(name)]).filter(short))
    at = data.draw(st.integers(0, len(entry)))
    instead, taken = data.draw(st.binary(max_size=4)), data.draw(st.integers(0, 4))
    judge(name, entry[:at] + instead + entry[at + taken :])


def test_no_entry_is_kept_for_a_target_that_is_none() -> None:
    assert {path.stem for path in CORPUS.glob("*.txt")} <= set(names())


def short(entry: bytes) -> bool:
    return len(entry) < 2000


def judge(name: str, entry: bytes) -> None:
    try:
        target(name).fuzz_one(entry)
    except Exception as error:
        error.add_note(f"by {name} of {entry[:2000]!r}")
        raise
