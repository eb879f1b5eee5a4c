"""A failure is told from another by where it came from, and shown by as few bytes as cause it."""

from __future__ import annotations

from tests.fuzz.findings import judged, smallest


def fails_on_two(data: bytes) -> None:
    assert data.count(b"x") < 2
    if b"y" in data:
        raise KeyError(data)


def test_what_passes_is_no_finding() -> None:
    assert judged(fails_on_two, b"abc") is None


def test_two_places_are_two_kinds() -> None:
    first, second = judged(fails_on_two, b"xx"), judged(fails_on_two, b"y")
    assert first is not None
    assert second is not None
    assert first.kind.startswith("AssertionError at tests/fuzz/test_findings.py:fails_on_two")
    assert second.kind.startswith("KeyError at tests/fuzz/test_findings.py:fails_on_two")
    assert "data.count" in first.text


def test_a_failure_is_shown_by_as_few_bytes_as_cause_it() -> None:
    found = judged(fails_on_two, b"a lot xof byytxes ybefore and behind" * 3)
    assert found is not None
    assert smallest(fails_on_two, found).data == b"xx"
