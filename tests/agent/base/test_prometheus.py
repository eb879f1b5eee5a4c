"""Our text against the parser of Prometheus's own client library."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from agent.base.prometheus import Family, Kind, counter, gauge, text

VALUES = st.one_of(st.integers(-(10**15), 10**15), st.floats(allow_nan=False, allow_infinity=False, width=32))


def test_a_page() -> None:
    page = text(
        [
            gauge("sidecar_ready", "Whether it\nserves.").add(True),
            counter("sidecar_bytes_total", "Bytes.").add(5, leg="plain").add(2.5, leg="tls"),
            gauge("sidecar_nothing", "Left out."),
        ]
    )
    assert page == (
        "# HELP sidecar_ready Whether it\\nserves.\n"
        "# TYPE sidecar_ready gauge\n"
        "sidecar_ready 1\n"
        "# HELP sidecar_bytes_total Bytes.\n"
        "# TYPE sidecar_bytes_total counter\n"
        'sidecar_bytes_total{leg="plain"} 5\n'
        'sidecar_bytes_total{leg="tls"} 2.5\n'
    )


@given(st.text(), st.text(), VALUES)
def test_the_library_reads_what_we_write(one: str, two: str, value: float) -> None:
    page = text([gauge("x", "says").add(value, one=one, two=two), counter("y_total", "says").add(1)])
    first, second = text_string_to_metric_families(page)
    (sample,) = first.samples
    assert (sample.name, sample.labels, sample.value) == ("x", {"one": one, "two": two}, value)
    assert (first.type, second.type, second.samples[0].name) == ("gauge", "counter", "y_total")


def test_the_sum_of_a_part_is_over_the_labels_that_are_not_asked_for() -> None:
    family = Family("a_seconds", Kind.HISTOGRAM, "")
    for direction, value in (("in", 1.0), ("out", 2.0)):
        family.add_part("_sum", value, direction=direction, step="dial")
    family.add_part("_count", 8.0, direction="in", step="dial")
    family.add_part("_sum", 16.0, direction="in", step="queue")
    assert family.sum_of("_sum", step="dial") == 3.0
    assert family.sum_of("_sum", direction="out") == 2.0
    assert family.sum_of("_count", step="queue") == 0
