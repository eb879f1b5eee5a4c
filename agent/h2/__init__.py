"""HTTP/2 without IO, as far as CONNECT needs it (RFC 9113 §8.5): bytes in, callbacks; calls, bytes out.

This room knows no socket and no identity. What a peer may make us hold or do is bounded, and a peer that goes
beyond a bound loses its connection by a named `FaultReason` (docs/tunnels.md#what-is-bounded).

    budget  calls  connection  control  core  faults  frames  header_blocks  requests  stream
"""
