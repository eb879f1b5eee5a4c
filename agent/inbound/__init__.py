"""Serves a caller from the mesh: handshake, identity, verdict, and only then the app.

A refused caller never reaches the app.

    app_connection  by_request  exchange  exposed  http_connection  inbound  local_reply
    tunnel  verdict
"""
