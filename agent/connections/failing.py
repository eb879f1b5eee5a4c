"""Which calls fail now: an upstream whose last call was not served, and our own app while it takes none.

It is for the headline and the complaints, so it keeps one text for each upstream of the registration, and
forgets it with the next call that is served.
"""

from __future__ import annotations

from collections.abc import Collection

import trio

from agent.connections.records import Direction, Finished

SECONDS = 300.0  # for which a failure is told of, if no further call is made
MOST = 160  # characters of a text

UPSTREAM_FAILS = frozenset(
    {"no_credentials_yet", "credentials_expired", "credentials_untrusted", "no_endpoints_yet", "no_endpoints"}
    | {"no_gateways", "wrong_identity", "refused_by_peer", "denied_by_peer", "all_failed", "deny_listed"}
    | {"intention_deny", "narrowed_by_datacenter", "upstream_deadline", "upstream_overflow"}
    | {"upstream_pending_overflow"}
)
APP_FAILS = frozenset(
    {"connect_refused", "connect_timeout", "connect_unreachable", "name_unresolved", "bad_address"}
    | {"no_such_socket", "connect_not_permitted", "own_listener", "connected_to_itself", "connect_failed"}
)
_OUR_APP = "our app"


class FailingCalls:
    """The last failures, by upstream."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, str]] = {}

    def add(self, finished: Finished) -> None:
        """Note a failure, or forget it when a call was served."""
        if finished.direction is Direction.OUTBOUND:
            name, fails = finished.upstream, finished.reason in UPSTREAM_FAILS
        else:
            name, fails = _OUR_APP, finished.reason in APP_FAILS
        if fails:
            self._last[name] = (trio.current_time(), _text(name, finished))
        elif finished.opened and self._last:
            self._last.pop(name, None)

    def texts(self, upstreams: Collection[str]) -> list[str]:
        """Return one text for each of these upstreams that fails, and for our app."""
        begin, known = trio.current_time() - SECONDS, {*upstreams, _OUR_APP}
        return [text for name, (at, text) in self._last.items() if at >= begin and name in known]


def _text(name: str, finished: Finished) -> str:
    why = finished.detail.rpartition(f" {finished.reason.value}: ")[2]  # without the address, as in the log
    if finished.rule and finished.rule not in why and name != _OUR_APP:  # whose caller the rule lets in
        why = f"{finished.rule}; {why}" if why else finished.rule
    what = "our app takes no calls" if name == _OUR_APP else f"calls to {name} fail"
    text = f"{what}: {finished.reason.value}: {why}" if why else f"{what}: {finished.reason.value}"
    return text if len(text) <= MOST else f"{text[: MOST - 1]}…"
