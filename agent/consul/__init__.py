"""Calls Consul's HTTP API by typed methods, and follows blocking queries in one loop.

A failure's reason says what the caller may do next.

    agent_services  answers  api  budget  connect  errors  http  maintenance  refusal
    room  token  watch
"""
