"""Whom the workload wants to reach, and where they are. No effects.

    endpoints  answers              who is there, in good health or not; Consul's answers read into that
    ejection                        who has failed too often
    spec                            an upstream, its local bind, its destination
    reach                           which of an endpoint's addresses is dialled from here
    choose  route                   whose turn it is; the next address to try
    failover                        which target is active
    plan                            old upstreams against new: what to open, keep and close

What stands lower imports what stands higher, never the other way round.
"""
