"""Traces a process if the settings ask for it; loads the SDK only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

from agent.config.settings import Settings
from agent.connections.ledger import Ledger


@asynccontextmanager
async def traced(ledger: Ledger, settings: Settings) -> AsyncIterator[None]:
    """Make spans of the ledger's connections within the block, and export the last ones at its end."""
    if settings.tracing_endpoint is None:
        yield
        return
    who = settings.identity
    service = "sidecar" if who is None else str(getattr(settings, who.value))
    otlp_tracer = import_module("agent.tracing.tracer").otlp_tracer  # 14.6 MB, which most agents never need
    ledger.tracing = tracer = otlp_tracer(settings.tracing_endpoint, settings.tracing_sample, service)
    try:
        yield
    finally:
        await tracer.close()
