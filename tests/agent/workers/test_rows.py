"""The schema of a worker's rows takes what a data plane says of itself."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.workers.rows import Rows
from tests.support.agent_parts import agent_bench


async def test_a_report_of_ours_is_taken(nursery: Any) -> None:
    told = agent_bench(nursery).data.reporting(rows=True).run_now()
    assert msgspec.convert(told, Rows, from_attributes=True).upstreams is not None


def test_a_row_without_its_numbers_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"public": {"live": 1}, "upstreams": [], "connections": [], "recent": []}, Rows)
