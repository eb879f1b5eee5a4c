"""The data plane of one process: its listeners, its connections, and what it reports.

This room reads the newest values of the snapshot and asks Consul nothing.

    dataplane  exposed  liveness  reconcile  report  tunnelling  upstream_limits
    upstream_report
"""
