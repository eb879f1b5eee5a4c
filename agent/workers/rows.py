"""What the control process reads of the rows in a worker's report, as a schema.

A caller may have taken the worker over: rows that cannot be added up are refused with the whole report, or
they would spoil `/status` of all workers. Fields that are only shown are not looked at.
"""

from __future__ import annotations

from typing import Any

import msgspec


class _Listener(msgspec.Struct):
    live: int
    most: int
    admitted: int
    handshakes: int
    handshakes_most: int
    overflow: int
    waiting: int
    left: int
    overflow_by_reason: dict[str, int]
    displaced: dict[str, int]
    limit: int | None
    handshakes_limit: int | None


class _Warm(msgspec.Struct, forbid_unknown_fields=True):  # added up whole
    wanted: int
    made: int
    used: int
    missed: int
    ready: list[dict[str, Any]]
    discarded: dict[str, int]
    failed: dict[str, int]


class _Endpoint(msgspec.Struct):
    instance: str
    live: int
    ejected_until: str | None


class _Target(msgspec.Struct):
    watch: str
    endpoints: list[_Endpoint]


class _Upstream(msgspec.Struct):
    bind: str
    listener: _Listener | None
    active: str
    active_since: str | None
    connections: int
    waiting: int
    warm: _Warm
    overflow: dict[str, int]
    targets: list[_Target]
    gateways: list[_Target]


class _Live(msgspec.Struct):
    since: str | None


class _Finished(msgspec.Struct):
    until: str | None


class Rows(msgspec.Struct):
    """The rows of one report."""

    public: _Listener | None
    upstreams: list[_Upstream]
    connections: list[_Live]
    recent: list[_Finished]
