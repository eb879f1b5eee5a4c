"""Compares a live registration here with what Consul's own proxy and Envoy make of it, for `sidecar migrate`.

    effects  migrate

`effects` is pure. It belongs to a command: a running agent loads none of it.
"""
