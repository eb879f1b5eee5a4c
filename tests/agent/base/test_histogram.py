"""Fixed buckets, read by Prometheus's own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from agent.base.histogram import BOUNDS, Histogram, histogram
from agent.base.prometheus import text


def test_durations_are_counted_in_every_bucket_that_takes_them() -> None:
    counted, family = Histogram(), histogram("x_seconds", "How long.")
    for seconds in (0.0005, 0.001, 0.002, 7.0, 60.0):
        counted.observe(seconds)
    counted.add_to(family, step="connect")
    (read,) = text_string_to_metric_families(text([family]))
    assert read.type == "histogram"
    samples = {(one.name, one.labels.get("le")): one.value for one in read.samples}
    assert samples["x_seconds_bucket", "0.001"] == 2
    assert samples["x_seconds_bucket", "0.0025"] == 3
    assert samples["x_seconds_bucket", "10"] == 4
    assert samples["x_seconds_bucket", "+Inf"] == samples["x_seconds_count", None] == 5
    assert samples["x_seconds_sum", None] == 67.0035
    assert len(read.samples) == len(BOUNDS) + 3
    assert all(one.labels["step"] == "connect" for one in read.samples)
