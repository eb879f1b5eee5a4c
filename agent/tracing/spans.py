"""The queue of ended spans: bounded, counted, and emptied by a thread of the SDK, so that no caller waits."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

MOST_QUEUED = 2048  # spans, of some 2 KB each
BATCH = 256  # spans of one request to the collector
DELAY_SECONDS = 2.0  # until a span that is alone is sent


class CountedExporter(SpanExporter):
    """Passes spans on to the exporter of a collector. Used by the SDK's thread alone; its counts are read."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.exported = 0
        self.failed = 0
        self.taken = 0  # out of the queue

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See SpanExporter. An exporter that raises has failed."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        """See SpanExporter."""
        self._inner.shutdown()


class SpanQueue(BatchSpanProcessor):
    """The SDK's queue and thread, with a count of what finds the queue full."""

    def __init__(self, exporter: SpanExporter, *, most: int = MOST_QUEUED) -> None:
        # What the SDK logs (a collector that is away, for each try) is counted here instead.
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())
        logging.getLogger("opentelemetry").propagate = False
        self._counted = CountedExporter(exporter)
        self._most = most
        self._queued = 0  # since the start
        self.dropped = 0
        super().__init__(
            self._counted,
            max_queue_size=most,
            max_export_batch_size=min(BATCH, most),
            schedule_delay_millis=DELAY_SECONDS * 1000,
        )

    def on_end(self, span: ReadableSpan) -> None:
        """Queue an ended span, or drop it; never wait."""
        if not span.context.trace_flags.sampled:
            return
        if self._queued - self._counted.taken >= self._most:
            self.dropped += 1
            return
        self._queued += 1
        super().on_end(span)

    def counts(self) -> dict[str, int]:
        """Return how many spans were exported, could not be exported, and were dropped."""
        return {
            "exported": self._counted.exported,
            "failed": self._counted.failed,
            "dropped": self.dropped,
        }
