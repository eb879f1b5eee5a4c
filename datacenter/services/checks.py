"""Runs the agent's checks: TTL alarms, TCP and HTTP probes, and the removal of long critical services.

Each check has one task, started and ended as definitions come and go. Alias checks have none: they are
updated with each write (`Inventory`). After a start checks are critical but for what workloads have told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from math import inf

import httpcore2
import trio

from datacenter.http.context import Datacenter
from datacenter.http.go_errors import dial_failure
from datacenter.services.check_definitions import HEARD, set_check
from datacenter.state.inventory import DEFINITIONS
from datacenter.state.store import Document

_SHORTEST_INTERVAL = 1.0  # seconds, as in Consul
_LONGEST_STAGGER = 1.0  # Consul waits up to a whole interval; one machine needs no such spread
_DEFAULT_TIMEOUT = 10.0
_REAP_SECONDS = 30.0
_TTL_EXPIRED = "TTL expired"

Finding = tuple[str, str]  # status, output
Probe = Callable[[Document], Awaitable[Finding]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    definition: Document
    scope: trio.CancelScope


async def run(dc: Datacenter, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """Run every defined check until cancelled."""
    running: dict[str, _Running] = {}
    _doubt(dc)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_reap, dc)
        task_status.started()
        while True:
            since = dc.store.index
            wanted = {
                row.key: row.value for row in dc.inventory.definitions.rows() if row.value["Kind"] != "alias"
            }
            for identifier in [key for key, each in running.items() if wanted.get(key) != each.definition]:
                running.pop(identifier).scope.cancel()
            for identifier in wanted.keys() - running.keys():
                each = _Running(definition=wanted[identifier], scope=trio.CancelScope())
                running[identifier] = each
                nursery.start_soon(_run_one, dc, each)
            await dc.store.changed((DEFINITIONS,), since, inf)


def _doubt(dc: Datacenter) -> None:
    """Make critical what was known before a start, until it is found or heard again, as Consul does.

    What a workload has told of its TTL check holds for another TTL.
    """
    with dc.store.transaction():
        for row in dc.inventory.definitions.rows():
            check = dc.inventory.check(dc.settings.node_name, row.key)
            if row.value["Kind"] != "alias" and not (check and check.value.get(HEARD)):
                set_check(dc, row.key, "critical", "")


async def _run_one(dc: Datacenter, running: _Running) -> None:
    definition = running.definition
    with running.scope:
        if definition["Kind"] == "ttl":
            await _watch_ttl(dc, definition)
        else:
            await _poll(dc, definition, _PROBES[definition["Kind"]])


async def _watch_ttl(dc: Datacenter, definition: Document) -> None:
    """Fail a check without news for its TTL.

    What was known before a start holds for one TTL, as in Consul.
    """
    identifier = definition["CheckID"]
    patience = definition["TTL"]
    while True:
        with trio.move_on_after(patience) as waiting:
            await dc.heartbeats.next(identifier)
        if waiting.cancelled_caught:
            set_check(dc, identifier, "critical", _TTL_EXPIRED)
        patience = inf if waiting.cancelled_caught else definition["TTL"]


async def _poll(dc: Datacenter, definition: Document, probe: Probe) -> None:
    interval = max(definition["Interval"], _SHORTEST_INTERVAL)
    await trio.sleep(dc.rng.random() * min(interval, _LONGEST_STAGGER))
    good = bad = 0
    while True:
        status, output = await probe(definition)
        good, bad = (good + 1, 0) if status == "passing" else (0, bad + 1)
        row = dc.inventory.check(dc.settings.node_name, definition["CheckID"])
        before = row.value["Status"] if row else "critical"
        if good and good < definition["SuccessBeforePassing"]:
            status = before
        if status == "critical" and bad < definition["FailuresBeforeCritical"]:
            status = before
        set_check(dc, definition["CheckID"], status, output)
        await trio.sleep(interval)


async def _probe_tcp(definition: Document) -> Finding:
    address = definition["TCP"]
    host, _, port = address.rpartition(":")
    try:
        with trio.fail_after(definition["Timeout"] or _DEFAULT_TIMEOUT):
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
        await stream.aclose()
    except (OSError, ValueError, trio.TooSlowError) as error:
        return "critical", dial_failure(address, error)
    return "passing", f"TCP connect {address}: Success"


async def _probe_http(definition: Document) -> Finding:
    """Probe by HTTP: 2xx passes, 429 warns, everything else is critical."""
    url, method = definition["HTTP"], definition["Method"] or "GET"
    headers = [(name, value) for name, values in definition["Header"].items() for value in values]
    try:
        with trio.fail_after(definition["Timeout"] or _DEFAULT_TIMEOUT):
            async with httpcore2.AsyncConnectionPool() as pool:
                body = definition["Body"].encode()
                response = await pool.request(method, url, headers=headers, content=body)
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException) as error:
        return "critical", f'{method.title()} "{url}": {dial_failure(url, error)}'
    except (trio.TooSlowError, httpcore2.UnsupportedProtocol) as error:
        return "critical", f'{method.title()} "{url}": {str(error) or "context deadline exceeded"}'
    text = response.content[:4096].decode("utf-8", "replace")
    output = f"HTTP {method} {url}: {response.status} Output: {text}"
    if 200 <= response.status < 300:
        return "passing", output
    return "warning" if response.status == 429 else "critical", output


_PROBES: Mapping[str, Probe] = {"tcp": _probe_tcp, "http": _probe_http}


async def _reap(dc: Datacenter) -> None:
    """Deregister services that have been critical for longer than their check allows."""
    since: dict[str, float] = {}
    while True:
        await trio.sleep(_REAP_SECONDS)
        for row in dc.inventory.definitions.rows():
            check = dc.inventory.check(dc.settings.node_name, row.key)
            limit = row.value["DeregisterCriticalServiceAfter"]
            if not limit or check is None or check.value["Status"] != "critical":
                since.pop(row.key, None)
                continue
            critical_for = trio.current_time() - since.setdefault(row.key, trio.current_time())
            if critical_for >= limit and check.value["ServiceID"]:
                dc.inventory.remove_service(dc.settings.node_name, check.value["ServiceID"])
