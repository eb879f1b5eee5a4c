"""The running sidecar, one per workload: the loud room, which fetches, listens, waits and relays."""

VERSION = "0.1.0"  # a constant: asking the package metadata for it costs the agent two megabytes
