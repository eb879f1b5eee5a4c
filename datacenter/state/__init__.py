"""The state of one embedded datacenter: the store, the registry of services, tokens and switches.

This room imports nothing of ours.

    acl  backoff  call_counts  csr_limit  durations  errors  heartbeats  inventory  settings  store
    switches  validation
"""
