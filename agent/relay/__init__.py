"""Moves the bytes of an established connection between its two legs, in both directions.

This room knows sockets and TLS objects; it knows no identity, no intention and no Consul.

    close  idle  pump  relay  shared_wait  splice  streams
"""
