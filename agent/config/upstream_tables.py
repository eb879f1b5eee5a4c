"""Reads `[[upstreams]]` of a settings file: a SPEC, and the keys of an upstream's `Config` in a registration.

    [[upstreams]]
    spec = "db@dc2:9191"
    connect_timeout_ms = 1000

    [[upstreams.failover]]
    datacenter = "dc3"

Here an unknown key is a mistake. In a registration it is not, since others may read the definition too.
"""

from __future__ import annotations

from agent.config.flags import did_you_mean
from agent.config.opaque_config import ConfigReader
from agent.config.upstream_config import KEYS, configured
from upstreams.spec import InvalidUpstream, Upstream, parse_upstream_flag

_TARGET_KEYS = frozenset({"datacenter", "filter", "query", "service"})


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
        _refuse_unknown(target, _TARGET_KEYS)
    try:
        return configured(parse_upstream_flag(table.text("spec", "")), table)
    except InvalidUpstream as error:
        table.problem("spec", str(error))
        return None


def _refuse_unknown(table: ConfigReader, known: frozenset[str]) -> None:
    for key in table.config:
        if key not in known:
            table.problem(key, f"unknown key{did_you_mean(key, known)}")
