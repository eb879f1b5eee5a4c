"""Reads `[[upstreams]]` of a settings file: a SPEC, and the keys of an upstream's `Config` in a registration.

    [[upstreams]]
    spec = "db@dc2:9191"
    connect_timeout_ms = 1000

    [[upstreams.failover]]
    datacenter = "dc3"

Here an unknown key is a mistake. In a registration it is not, since others may read the definition too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.config.flags import did_you_mean
from agent.config.opaque_config import ConfigReader
from agent.config.upstream_config import KEYS, TARGET_KEYS, WITHIN, configured
from upstreams.spec import InvalidUpstream, Upstream, parse_upstream_flag

_PLACE = re.compile(r"(?:upstreams\[(\d+)\]\.?)?(?:failover\[\d+\]\.?)?(\w*)")  # in the text of a mistake
_HEADER = "[[upstreams]]"


def line_of(text: str, place: str) -> int | None:
    """Return the line of a settings file that has a key, counted from 1; None if it is not found.

    `place` is a key, or begins with a place in the tables, as in `upstreams[1].spec`. A key of a nested table
    is found by its own name.
    """
    found = _PLACE.match(place)
    assert found is not None  # the pattern takes any text
    lines = [line.strip() for line in text.splitlines()]
    begin, end = 0, next((place for place, line in enumerate(lines) if line[:1] == "["), len(lines))
    if found[1] is not None:
        headers = [place for place, line in enumerate(lines) if line.startswith(_HEADER)]
        if int(found[1]) >= len(headers):
            return None  # an inline table
        begin, end = headers[int(found[1])], next(iter(headers[int(found[1]) + 1 :]), len(lines))
    key = re.compile(rf"[\"']?{found[2]}[\"']?\s*[=.]")
    matching = (place for place in range(begin, end) if found[2] and key.match(lines[place]))
    line = next(matching, begin if found[1] is not None else None)
    return None if line is None else line + 1


def read_tables(value: object) -> tuple[list[Upstream], list[str]]:
    """Return the upstreams in the tables, and the text of every mistake."""
    document = ConfigReader(where="", config={"upstreams": value})
    tables = [
        ConfigReader(where=table.where.removeprefix("."), config=table.config, problems=document.problems)
        for table in document.tables("upstreams")
    ]
    upstreams = [upstream for table in tables if (upstream := _upstream(table)) is not None]
    return upstreams, [f"{p.where.removeprefix('.')}: {p.detail}" for p in document.problems]


def _upstream(table: ConfigReader) -> Upstream | None:
    _refuse_unknown(table, KEYS | {"spec"})
    for target in table.tables("failover"):
        _refuse_unknown(target, TARGET_KEYS)
    for key, known in WITHIN.items():
        if isinstance(table.config.get(key), Mapping):
            _refuse_unknown(table.within(key), known)
    try:
        return configured(parse_upstream_flag(table.text("spec", "")), table)
    except InvalidUpstream as error:
        table.problem("spec", str(error))
        return None


def _refuse_unknown(table: ConfigReader, known: frozenset[str]) -> None:
    for key in table.config:
        if key not in known:
            table.problem(key, f"unknown key{did_you_mean(key, known)}")
