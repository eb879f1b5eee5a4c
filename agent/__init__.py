"""The running sidecar, one per workload.

    Consul agent ──► consul/ ──► control/ ──writes──► snapshot ──read by──► proxy/ ( inbound/  outbound/ )
                     API,        keeps each value     one writer each       listeners, connections,
                     watches     newest and proven                          verdicts, the relay

The control plane never sees a caller's socket; the data plane never asks Consul. Each room imports only rooms
that stand before it in this list, and `tests/test_house.py` holds the arrows:

    base  process  relay  http1  policy  net  config  consul  connections  snapshot  inbound  outbound
    control  proxy  observe  workers  cli

Above the rooms stand `lifecycle`, `run` and `__main__`. The `__init__` of each room is its contract. Three
modules begin with a theory of operation: `relay.relay`, `net.handshake`, `consul.watch`.
"""

VERSION = "0.1.0"  # a constant: asking the package metadata for it costs the agent two megabytes
