"""Consul's HTTP conventions: requests, blocking reads, errors, forwarding to other datacenters.

Endpoints are written against this room and know no socket.

    connections  context  decode  filter  forward  frame  go_errors  hosts  page  server  telemetry
    weak_decode
"""
