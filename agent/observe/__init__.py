"""What an operator is told: the log, the metrics, the status, and the admin endpoint.

Nothing here holds up a connection, and no text here holds a secret.

    agent  connection_log  events  explain  log  metrics  rate_limit  readiness  routes  server
    status  watch_events
"""
