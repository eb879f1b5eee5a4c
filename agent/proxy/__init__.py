"""The data plane of one process: listeners, handlers, and what they report.

This room reads the newest values and asks nothing of Consul.

    dataplane  reconcile  report  upstream_limits  upstream_report
"""
