"""Drives HTTP/2 over one mutual-TLS connection in the relay's loop: its streams are application connections.

This room knows sockets and streams; who may open one, and to where, is decided by those that use it.

    byte_stream  carrier  carry  ends  leg  records  refusal  sign  tunnel
"""
