"""The running sidecar, one per workload: the loud room, which fetches, listens, waits and relays."""
