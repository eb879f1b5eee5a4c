"""A few descriptors are kept from callers."""

from __future__ import annotations

import resource
import sys

import pytest

from agent.net.shortage import first_kept


@pytest.mark.parametrize(
    ("limit", "kept"), [(1024, 992), (64, 56), (20000, 19968), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_where_the_kept_ones_begin(limit: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    assert first_kept() == kept
