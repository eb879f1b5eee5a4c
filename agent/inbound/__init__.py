"""Serves a caller from the mesh: handshake, identity, verdict, and only then the app.

A refused caller never reaches the app.

    app_connection  by_request  exchange  exposed  front  http_connection  http_service  inbound
    local_reply  request_judge  tunnel  usual_requests  verdict
"""
