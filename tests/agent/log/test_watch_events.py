"""What the log says of watches: one line per event, a run of failures once, no key."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from trio.testing import MockClock

from agent.base.containment import Where
from agent.base.watch_status import WatchStatus
from agent.config.options import LogLevel
from agent.consul.errors import ConsulError, ConsulReason
from agent.consul.watch import WatchCrashed
from agent.log.log import LogOptions
from agent.log.repeats import LINES
from agent.log.watch_events import WatchJournal
from certs.contexts import build_contexts
from certs.credentials import retain
from tests.certs import fitting
from tests.upstreams.test_choose import endpoint
from upstreams.endpoints import Status

SHORT = "ACLs hide some entries from the token; the visible ones are used"
START = datetime(2031, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


def journal(level: LogLevel = LogLevel.DEBUG) -> tuple[WatchJournal, io.StringIO]:
    written = io.StringIO()
    return WatchJournal(written, lambda: START, LogOptions(level=level)), written


def lines(written: io.StringIO) -> list[str]:
    return [line.partition("Z ")[2] for line in written.getvalue().splitlines()]


def test_what_consul_says() -> None:
    log, written = journal()
    log.token_changed()
    log.registration_changed("web-sidecar-proxy", ["a problem"])
    log.registration_gone("web-sidecar-proxy")
    log.self_registration_failed("no")
    log.intentions_changed(2, "deny", [])
    log.credentials_rejected("expired", "too old")
    log.renewal_failed("no", START)
    log.rejudged(3)
    assert lines(written) == [
        "[INFO]  sidecar.consul: token.changed",
        "[INFO]  sidecar.consul: registration.changed: proxy_id=web-sidecar-proxy",
        '[WARN]  sidecar.consul: registration.problem: detail="a problem"',
        "[WARN]  sidecar.consul: registration.gone: proxy_id=web-sidecar-proxy",
        "[WARN]  sidecar.consul: registration.own_failed: detail=no",
        "[INFO]  sidecar.policy: intentions.changed: rules=2 default=deny",
        '[ERROR] sidecar.trust: credentials.rejected: reason=expired detail="too old" next="sidecar doctor"',
        "[WARN]  sidecar.trust: renewal.failed: detail=no not_after=2031-05-17T12:00:00.123456+00:00",
        "[INFO]  sidecar.policy: rejudged: closed=3",
    ]


def test_published_credentials_show_no_key() -> None:
    log, written = journal()
    root = fitting.root()
    minted = root.leaf(service="web")
    log.credentials_published(build_contexts(fitting.credentials(minted, fitting.bundle(root)), 4))
    (line,) = lines(written)
    assert line.startswith("[INFO]  sidecar.trust: credentials.published: generation=4 id=spiffe://")
    assert "serial=0d" in line
    assert "KEY" not in line


def test_roots_that_do_not_vouch_for_our_leaf_are_an_error() -> None:
    log, written = journal()
    leaf, roots = fitting.leaf_of(fitting.root().leaf()), fitting.bundle(fitting.root())
    log.credentials_published(build_contexts(retain(leaf, roots, fitting.AT), 2))
    first, second = lines(written)
    assert first.startswith(
        "[ERROR] sidecar.trust: credentials.unservable: reason=credentials_untrusted detail="
    )
    assert second.startswith("[INFO]  sidecar.trust: credentials.published: generation=2 ")


def test_answers_short_for_want_of_rights_and_a_token_file_that_holds_none() -> None:
    log, written = journal()
    status = WatchStatus(name="endpoints db", filtered=True)
    log.watch_filtered(status)
    status.filtered = False
    log.watch_filtered(status)
    log.token_complaint("token file x: it is empty")
    log.token_complaint("")
    assert lines(written) == [
        f'[WARN]  sidecar.consul: watch.filtered: watch="endpoints db" detail="{SHORT}"',
        '[INFO]  sidecar.consul: watch.unfiltered: watch="endpoints db"',
        '[ERROR] sidecar.consul: token.unusable: detail="token file x: it is empty" next="sidecar doctor"',
        "[INFO]  sidecar.consul: token.usable",
    ]


def test_vanished_instances_and_their_end() -> None:
    log, written = journal()
    gone = replace(endpoint("db-1"), status=Status.VANISHED)
    log.instances_kept("db", [gone], 30.0)
    log.instances_not_kept("db", offered=True)
    log.instances_not_kept("db", offered=False)
    kept, *ends = lines(written)
    assert kept.startswith(
        '[WARN]  sidecar.upstreams: upstream.vanished: upstream=db instances="db-1 on n1 in dc1 (vanished)"'
    )
    assert f"until={(START + timedelta(seconds=30)).isoformat()}" in kept
    assert [line.partition(": ")[2] for line in ends] == [
        "upstream.returned: upstream=db",
        "upstream.given_up: upstream=db",
    ]


async def test_a_run_of_failures_is_one_warning_until_its_reason_changes() -> None:
    log, written = journal(LogLevel.INFO)
    status = WatchStatus(name="roots")
    log.watch_failed(status)  # nothing has failed
    for reason in (ConsulReason.UNAVAILABLE, ConsulReason.UNAVAILABLE, ConsulReason.DENIED):
        status.failed(ConsulError(reason, "/v1/x", "no", status=500), START)
        log.watch_failed(status)
    log.watch_recovered(status)
    failed = "[WARN]  sidecar.consul: watch.failed: watch=roots"
    assert lines(written) == [
        f'{failed} reason=unavailable detail="/v1/x answered 500: no"',
        f'{failed} reason=denied detail="/v1/x answered 500: no"',
        "[INFO]  sidecar.consul: watch.recovered: watch=roots",
    ]


def _fail() -> None:
    raise KeyError("a bug \ud800")


@pytest.mark.internal_errors
async def test_what_nobody_foresaw_is_told_with_its_traceback_and_counted(
    autojump_clock: MockClock,
) -> None:
    log, written = journal()
    with pytest.raises(KeyError) as caught:
        _fail()
    crash = caught.value
    status = WatchStatus(name="roots")
    status.failed(WatchCrashed(crash), START)
    log.watch_failed(status)
    for _ in range(2 * LINES):
        log.internal_error(Where.CONNECTION, "a caller", crash)
    first, second, *rest = lines(written)
    assert first.startswith(
        "[ERROR] sidecar.process: internal_error: where=watch name=roots error=KeyError trace="
    )
    assert "Traceback" in first
    assert "test_watch_events.py" in first
    detail = "internal_error: KeyError; the log has more"
    failed = "[WARN]  sidecar.consul: watch.failed: watch=roots reason=internal_error"
    assert second == f'{failed} detail="{detail}"'
    assert len(rest) == LINES, "a flood of them is told in part, and counted whole"
    assert log.internal_errors == {"watch": 1, "connection": 2 * LINES}
