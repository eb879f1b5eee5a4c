"""The queue of spans: a collector that does not answer holds up no caller, and what is lost is counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from agent.tracing.spans import CountedExporter, SpanQueue


class Stuck(SpanExporter):
    """A collector that answers once it is told to."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        assert self.answers.wait(60)
        return SpanExportResult.SUCCESS


class Failing(SpanExporter):
    """A collector that refuses, and one that breaks."""

    def __init__(self, *, raises: bool) -> None:
        self.raises = raises

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.raises:
            raise ConnectionError("no")
        return SpanExportResult.FAILURE


def provider(queue: SpanQueue) -> TracerProvider:
    made = TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(queue)
    return made


def test_a_collector_that_hangs_holds_up_no_caller_and_what_is_too_much_is_dropped() -> None:
    stuck = Stuck()
    queue = SpanQueue(stuck, most=4)
    made = provider(queue)
    tracer = made.get_tracer("test")
    for _ in range(4):
        tracer.start_span("x").end()  # a full batch wakes the thread
    assert stuck.asked.wait(60)
    for _ in range(10):
        tracer.start_span("x").end()
    assert queue.counts() == {"exported": 0, "failed": 0, "dropped": 6}
    stuck.answers.set()
    made.shutdown()
    assert queue.counts() == {"exported": 8, "failed": 0, "dropped": 6}


@pytest.mark.parametrize("raises", [False, True])
def test_what_cannot_be_exported_is_counted_and_not_logged(
    raises: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = SpanQueue(Failing(raises=raises))
    made = provider(queue)
    made.get_tracer("test").start_span("x").end()
    made.shutdown()
    assert queue.counts() == {"exported": 0, "failed": 1, "dropped": 0}
    assert capfd.readouterr() == ("", "")


def test_an_exporter_that_raises_has_taken_its_spans_out_of_the_queue() -> None:
    counted = CountedExporter(Failing(raises=True))
    with pytest.raises(ConnectionError):
        counted.export(())
    assert (counted.taken, counted.exported) == (0, 0)
