"""The log, the metrics, the status and the admin endpoint: everything an operator reads about an agent.

This room never holds up a connection, and none of its texts holds a secret.

    admin_listeners  agent  connection_log  events  explain  log  metrics  rate_limit  readiness
    routes  server  status  watch_events
"""
