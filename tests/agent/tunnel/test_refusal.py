"""How a refused stream says why."""

from __future__ import annotations

from agent.tunnel.refusal import reason_of, refusal_fields


def test_a_reason_travels_by_its_name_alone() -> None:
    fields = refusal_fields(403, "intention_deny")
    assert fields == [(b"proxy-status", b'sidecar; error=http_request_denied; details="intention_deny"')]
    assert reason_of(403, [(b":status", b"403"), *fields]) == "403 intention_deny"


def test_another_method_is_told_what_is_allowed() -> None:
    assert (b"allow", b"CONNECT") in refusal_fields(405, "not_connect")


def test_what_no_sidecar_has_said_is_left_out() -> None:
    assert reason_of(503, [(b"proxy-status", b"envoy; error=x"), (b"server", b"envoy")]) == "503"
    assert reason_of(403, [(b"proxy-status", b'sidecar; error=x; details="<script>"')]) == "403"
