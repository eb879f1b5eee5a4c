"""Binds, accepts, dials and handshakes sockets, each under a limit and a deadline.

Every failure in this room is a named reason.

    accept  admission  bind  dial  handshake  inherited  kept  line  listeners
    own_listeners  proxy_protocol  shortage  tls_records
"""
