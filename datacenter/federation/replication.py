"""The primary's config entries, intentions among them, copied into a secondary.

See docs/consul-api.md#secondary-datacenters.

Each answer changes the copy in one transaction, and only where it differs, so that the copy has index numbers
of its own and no watcher is woken without a change. While the primary is out of reach, or refuses the
replication token, the last copy stays: a cut wire never drops intentions.
"""

from __future__ import annotations

import logging
from typing import Any

import trio

from datacenter.federation.backoff import Backoff
from datacenter.http.context import Datacenter
from datacenter.services.central_defaults import CONFIG_ENTRIES, entry_key
from datacenter.state.errors import ApiError

WATCH_SECONDS = 60

_PATIENCE = WATCH_SECONDS * 17 / 16 + 10
_LOG = logging.getLogger(__name__)


async def replicate(dc: Datacenter) -> None:
    """Replicate until cancelled."""
    backoff, index, complaint = Backoff(dc.rng), 0, ""
    while True:
        try:
            entries, index = await _ask(dc, index)
        except (ApiError, AttributeError, KeyError, TypeError, ValueError) as error:
            text = error.text if isinstance(error, ApiError) else f"unexpected answer: {error!r}"
            if text != complaint:
                _LOG.warning("replication from %s: %s", dc.settings.primary_datacenter, text)
            complaint, index = text, 0
            await trio.sleep(backoff.next())
        else:
            complaint = ""
            backoff.reset()
            while dc.faults is not None and dc.faults.frozen:
                await dc.faults.changed()
            apply(dc, entries)


def apply(dc: Datacenter, entries: dict[str, dict[str, Any]]) -> None:
    """Make the copy equal to `entries`, under the names they have."""
    entries = {entry_key(entry["Kind"], entry["Name"]): entry for entry in entries.values()}
    table = dc.store.table(CONFIG_ENTRIES)
    with dc.store.transaction():
        for row in table.rows():
            if row.key not in entries:
                table.delete(row.key)
        for key, entry in entries.items():
            known = table.get(key)
            if known is None or known.value != entry:
                table.put(key, entry)


async def _ask(dc: Datacenter, index: int) -> tuple[dict[str, dict[str, Any]], int]:
    primary = (dc.settings.primary_addr or "").rstrip("/")
    answer = await dc.forwarder.call(
        "GET",
        f"{primary}/v1/internal/federation/config-entries?index={index}&wait={WATCH_SECONDS}s",
        token=dc.settings.replication_token,
        patience=_PATIENCE,
    )
    if not isinstance(answer.value, dict):
        raise TypeError("not an object")
    entries = {str(key): dict(entry) for key, entry in answer.value["Entries"].items()}
    return entries, max(answer.index, 1)  # 0 would not block
