"""Lines of the log: one per event, text or JSON, nothing that could hold a secret."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
import trio
from trio.testing import MockClock

from agent.config.options import LogClass, LogFormat, LogLevel
from agent.connections.ledger import Ledger
from agent.connections.records import Audited, Direction, FailedAttempt, RefusedRequest
from agent.log.events import Journal
from agent.log.log import LogOptions
from agent.log.repeats import LINES, SUM_SECONDS, WINDOW
from agent.net.admission import Admission, Overflow
from agent.net.dial import DialReason
from agent.outbound.reasons import OutboundReason
from agent.policy.authorize import VerdictReason
from agent.relay.splice import Ending

START = datetime(2031, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def journal(
    level: LogLevel = LogLevel.DEBUG, form: LogFormat = LogFormat.TEXT
) -> tuple[Journal, io.StringIO]:
    written = io.StringIO()
    return Journal(written, Clock(), LogOptions(level=level, form=form)), written


def lines(written: io.StringIO) -> list[str]:
    return [line.partition("Z ")[2] for line in written.getvalue().splitlines()]


def test_the_life_of_the_process() -> None:
    log, written = journal()
    log.started("0.1.0", 7, "web", "http://127.0.0.1:8500")
    log.note("odd")
    log.unverified()
    log.ready(0.12345)
    log.unready(["a", "b"])
    log.ready()
    log.draining("SIGTERM", 3, 30.0)
    log.drained(0)
    log.drained(2)
    log.crashed("trace")
    assert lines(written) == [
        "[INFO]  sidecar.process: started: version=0.1.0 pid=7 identity=web consul=http://127.0.0.1:8500",
        "[WARN]  sidecar.process: settings.note: text=odd",
        '[WARN]  sidecar.consul: consul.unverified: detail="CONSUL_HTTP_SSL_VERIFY is off"',
        "[INFO]  sidecar.process: ready: seconds=0.123",
        '[WARN]  sidecar.process: unready: missing="a, b"',
        "[INFO]  sidecar.process: ready",
        "[INFO]  sidecar.process: draining: why=SIGTERM live=3 seconds=30.0",
        "[INFO]  sidecar.process: drained: cut=0",
        "[WARN]  sidecar.process: drained: cut=2",
        '[ERROR] sidecar.process: crashed: trace=trace next="sidecar doctor"',
    ]


async def test_listeners() -> None:
    log, written = journal()
    log.listening("upstream db", "127.0.0.1:1")
    log.listening_ended("upstream db", "127.0.0.1:1")
    log.listening_failed("upstream db", "in use")
    log.overflowed(Admission(5, 3), Overflow.HANDSHAKES)
    log.exhausted(OSError(24, "Too many open files"))
    full = "reason=max_handshakes limit=5 live=0 unsettled_limit=3 unsettled=0"
    assert lines(written) == [
        '[INFO]  sidecar.listeners: listening: purpose="upstream db" address=127.0.0.1:1',
        '[INFO]  sidecar.listeners: listening.ended: purpose="upstream db" address=127.0.0.1:1',
        '[ERROR] sidecar.listeners: listening.failed: purpose="upstream db" detail="in use" next="ss -ltnp"',
        f"[WARN]  sidecar.listeners: admission.full: {full}",
        '[ERROR] sidecar.listeners: admission.exhausted: detail="Too many open files" next="sidecar status"',
    ]


async def test_connections() -> None:
    log, written = journal()
    ledger = Ledger(Clock(), log)
    await trio.lowlevel.checkpoint()
    with ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
        attempt = FailedAttempt(endpoint="db1", address="a:1", reason=DialReason.REFUSED, detail="a:1: no")
        ledger.attempt_failed(connection, attempt)
        connection.relaying()
        connection.progress.to_plain = 5
        connection.progress.plain_since = connection.began + 0.25
        connection.end(Ending.CLEAN)
    with ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        connection.relaying()
        connection.end(Ending.TLS_TRUNCATED, "gone")
    with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
        connection.end(OutboundReason.NO_ENDPOINTS, "none")
    assert [line.split()[:3] for line in lines(written)] == [
        ["[INFO]", "sidecar.upstreams:", "attempt.failed:"],
        ["[DEBUG]", "sidecar.outbound:", "connection.opened:"],
        ["[DEBUG]", "sidecar.outbound:", "connection.closed:"],
        ["[DEBUG]", "sidecar.inbound:", "connection.opened:"],
        ["[INFO]", "sidecar.inbound:", "connection.closed:"],
        ["[WARN]", "sidecar.outbound:", "connection.refused:"],
    ]
    assert lines(written)[2] == (
        "[DEBUG] sidecar.outbound: connection.closed: id=1 direction=outbound reason=clean caller=unix"
        " upstream=db@dc2 to_plain=5 seconds=0.0 first_byte_seconds=0.25"
    )
    assert "reason=no_endpoints detail=none" in lines(written)[5]


@pytest.mark.parametrize("kind", ["refused", "attempt"])
async def test_a_flood_of_one_reason_is_told_in_part(kind: str, autojump_clock: MockClock) -> None:
    written = io.StringIO()
    log = Journal(written, Clock())
    ledger = Ledger(Clock(), log)

    def one() -> None:
        with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
            if kind == "refused":
                connection.end(OutboundReason.NO_ENDPOINTS)
            else:
                attempt = FailedAttempt(endpoint="e", address="a", reason=DialReason.REFUSED, detail="d")
                ledger.attempt_failed(connection, attempt)
                connection.end(Ending.CLEAN)

    event = "connection.refused" if kind == "refused" else "attempt.failed"
    for _ in range(LINES + 5):
        one()
    told = [line for line in lines(written) if event in line]
    assert len(told) == LINES
    log.write_sums()
    summed = [line for line in lines(written) if event in line][LINES:]
    assert [line.endswith("hidden=4") for line in summed] == [True], "the last of them, and how many others"
    one()
    await trio.sleep(WINDOW)
    one()
    last = [line for line in lines(written) if event in line][-1]
    assert last.endswith("hidden=1")


async def test_a_refused_request_is_told() -> None:
    log, written = journal()
    ledger = Ledger(Clock(), log)
    await trio.lowlevel.checkpoint()
    with ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        reason = VerdictReason.PERMISSION_DENY
        refused = RefusedRequest(
            method="GET", target="/admin", status=403, reason=reason, detail="", rule="r 1", intention="5b1"
        )
        ledger.request_refused(connection, refused)
        (line,) = lines(written)
        assert line.startswith("[WARN]  sidecar.inbound: request.refused: ")
        assert line.endswith(
            'method=GET target=/admin status=403 reason=permission_deny rule="r 1" intention_id=5b1'
        )
        for _ in range(50):
            ledger.request_refused(connection, refused)
    assert len(lines(written)) < 40
    assert ledger.requests() == {"permission_deny": 51}


async def test_what_audit_and_the_deny_list_have_to_say() -> None:
    log, written = journal()
    ledger = Ledger(Clock(), log)
    log.audit_mode()
    log.deny_list_changed(3)
    log.deny_list_unusable("gone")
    with ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        told = Audited(reason=VerdictReason.INTENTION_DENY, rule="a => b", intention="5b1", request="GET /x")
        for _ in range(LINES + 1):
            ledger.audit(connection, told)
        connection.end(Ending.CLEAN)
    said = lines(written)
    assert said[:3] == [
        '[WARN]  sidecar.policy: audit.on: detail="calls that intentions deny are logged, and allowed"',
        "[WARN]  sidecar.policy: deny_list.changed: entries=3",
        '[ERROR] sidecar.policy: deny_list.unusable: detail=gone next="sidecar check"',
    ]
    expected = (
        "[WARN]  sidecar.policy: audit.would_deny: id=1 reason=intention_deny"
        ' rule="a => b" intention_id=5b1 request="GET /x"'
    )
    assert said[3:-1] == [expected] * LINES


async def test_every_connection_is_told_where_that_is_wanted(autojump_clock: MockClock) -> None:
    written = io.StringIO()
    ledger = Ledger(Clock(), Journal(written, Clock(), LogOptions(connections=True)))
    for _ in range(2 * LINES):
        with ledger.open(Direction.OUTBOUND, "unix", "db") as connection:
            connection.end(OutboundReason.NO_ENDPOINTS)
    with ledger.open(Direction.INBOUND, "10.0.0.1:5") as connection:
        connection.rule = "web => db (allow, precedence 9)"
        connection.relaying()
        connection.end(Ending.CLEAN)
    said = lines(written)
    assert len(said) == 2 * LINES + 1
    assert said[-1] == (
        "[INFO]  sidecar.inbound: connection.closed: id=21 direction=inbound reason=clean caller=10.0.0.1:5"
        ' rule="web => db (allow, precedence 9)" seconds=0.0'
    )


async def test_a_flood_of_denied_calls_is_a_few_lines_and_their_number(autojump_clock: MockClock) -> None:
    """199 of them, ten a second, and then silence."""
    written = io.StringIO()
    log = Journal(written, Clock())
    ledger = Ledger(Clock(), log)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log.keep_up)
        for _ in range(199):
            with ledger.open(Direction.OUTBOUND, "unix", "db@dc2") as connection:
                connection.rule = "web => db (deny, precedence 9)"
                connection.end(OutboundReason.DENIED_BY_PEER, "web => db (deny, precedence 9)")
            await trio.sleep(0.1)
        await trio.sleep(SUM_SECONDS)
        nursery.cancel_scope.cancel()
    said = lines(written)
    hidden = [int(line.partition(" hidden=")[2] or 0) for line in said]
    assert len(said) + sum(hidden) == 199
    assert len(said) <= LINES + 4
    assert len(written.getvalue()) < 8192


async def test_one_upstreams_flood_hides_no_line_about_another() -> None:
    log, written = journal(LogLevel.INFO)
    ledger = Ledger(Clock(), log)
    for upstream in (*["db"] * (2 * LINES), "cache"):
        with ledger.open(Direction.OUTBOUND, "unix", upstream) as connection:
            connection.end(OutboundReason.NO_ENDPOINTS)
    assert "upstream=cache" in lines(written)[-1]


async def test_a_class_can_be_silenced_and_its_errors_cannot() -> None:
    written = io.StringIO()
    log = Journal(written, Clock(), LogOptions(silent=(LogClass.INBOUND, LogClass.LISTENERS)))
    ledger = Ledger(Clock(), log)
    for direction in Direction:
        with ledger.open(direction, "unix", "db") as connection:
            connection.end(OutboundReason.NO_ENDPOINTS)
    log.listening("public", "127.0.0.1:1")
    log.listening_failed("public", "in use")
    assert [line.split()[1] for line in lines(written)] == ["sidecar.outbound:", "sidecar.listeners:"]
