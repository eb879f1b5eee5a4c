"""Spans of connections and of judged requests, for an OTLP collector: the extra `tracing`, off by default.

`begin` loads the others, and with them the SDK of OpenTelemetry, only where the settings ask for spans. A
span is handed to a thread of the SDK by a bounded queue; what finds the queue full is dropped and counted.
No connection waits for that.

    begin  spans  tracer
"""
