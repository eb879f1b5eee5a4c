"""A search with a seed makes the same inputs in each run, so that a red run of CI is red again."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.fuzz.__main__ import run
from tests.fuzz.target import load

NAME = "requests_to_datacenter"  # its tasks run in an order of trio's choice

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is missing: make fuzz installs it"
)


@pytest.mark.slow
@needs_atheris
def test_a_seed_makes_the_same_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (searched(tmp_path / each, monkeypatch) for each in ("first", "second"))
    assert first
    assert first == second


def searched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the inputs that reached something new, which are hashes of them."""
    monkeypatch.setattr("tests.fuzz.__main__.WORK", folder)
    run(NAME, load(NAME), 100, seed=1, runs=3000)
    return sorted(path.name for path in (folder / NAME / "corpus").iterdir())
