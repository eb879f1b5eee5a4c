"""Serves a connection of our app to an upstream: candidate, address, identity, relay.

A failure before the first byte tries the next candidate; a failure after it ends the connection.

    at_once  candidates  identify  listeners  outbound  reasons  refusal  tunnels  upstream_state
    warm_connection  warm_pool  warm_pools  warm_serve
"""
