"""A few descriptors are kept from callers."""

from __future__ import annotations

import resource
import sys

import pytest

from agent.net import shortage
from agent.net.shortage import files_run_out, first_kept


@pytest.mark.parametrize(
    ("limit", "kept"), [(1024, 992), (64, 56), (20000, 19968), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_where_the_kept_ones_begin(limit: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    assert first_kept() == kept


@pytest.mark.parametrize(
    ("connections", "used", "said"),
    [
        (0, 88, ""),  # not counted: few connections cannot be the cause
        (40, 80, ""),
        (40, 84, "open files run out: 84 of 100 (LimitNOFILE), callers wait from 88 on"),
    ],
)
def test_files_run_out_where_connections_hold_nearly_all_that_they_may_have(
    connections: int, used: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (100, 100))
    monkeypatch.setattr(shortage, "open_files", lambda: used)
    assert files_run_out(connections) == said
