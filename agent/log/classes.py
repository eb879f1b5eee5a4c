"""The class of each event, by which a part of the log can be silenced, and which is the line's module."""

from __future__ import annotations

from collections.abc import Mapping

from agent.config.options import LogClass

_BY_PREFIX = {
    **dict.fromkeys(("attempt", "upstream"), LogClass.UPSTREAMS),
    **dict.fromkeys(("watch", "consul", "token", "registration", "maintenance"), LogClass.CONSUL),
    **dict.fromkeys(("credentials", "renewal", "leaf", "roots", "clock"), LogClass.TRUST),
    **dict.fromkeys(("intentions", "outgoing", "deny_list", "rejudged", "replica", "audit"), LogClass.POLICY),
    **dict.fromkeys(("listening", "admission", "socket"), LogClass.LISTENERS),
    **dict.fromkeys(("request", "exposed"), LogClass.INBOUND),
    "worker": LogClass.WORKERS,
}
_OF_DIRECTION = ("connection", "tunnel")


def class_of(event: str, fields: Mapping[str, object]) -> LogClass:
    """Return the class of an event; that of a connection is its direction."""
    prefix = event.partition(".")[0]
    if prefix in _OF_DIRECTION:
        return LogClass.OUTBOUND if fields.get("direction") == "outbound" else LogClass.INBOUND
    return _BY_PREFIX.get(prefix, LogClass.PROCESS)
