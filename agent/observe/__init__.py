"""The metrics, the status and the admin endpoint: what an operator reads about an agent beside its log.

This room never holds up a connection, and none of its texts holds a secret.

    admin_listeners  agent  announcement  explain  metrics  readiness  routes  server  status
"""
