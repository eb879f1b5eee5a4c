"""The state of one embedded datacenter: the store, the registry of services, tokens and switches.

This room imports nothing of ours.

    acl  call_counts  csr_limit  database  durations  errors  heartbeats  inventory  settings  store
    switches  validation  waiters
"""
