"""A connection of our app to an upstream, top to bottom: candidate, address, identity, relay.

A failure before the first byte tries the next candidate; after that byte, never.

    candidates  listeners  outbound  upstream_state  warm_connection  warm_pool  warm_pools
    warm_serve
"""
