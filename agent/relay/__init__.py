"""Moves the bytes of an established connection between its two legs, both ways.

This room knows sockets and TLS objects; identities, intentions and Consul are unknown here.

    close  pump  relay  splice  streams
"""
