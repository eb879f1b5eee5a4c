"""The Consul agent's HTTP API as typed calls, and the one loop behind every blocking query.

Failures are classified by what the caller may do next.

    agent_services  api  connect  http  token  watch
"""
