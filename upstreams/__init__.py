"""The services that the workload wants to reach, and their instances. No effects.

    endpoints  answers              the instances and their health; Consul's answers read into them
    vanished                        which instances are used though Consul offers none
    ejection                        which instances fail too often
    spec                            an upstream, its local bind, its destination
    reach                           which of an endpoint's addresses is dialled from here
    travel                          in a tunnel or a connection each, and why
    choose  route                   the order of endpoints; the candidates of a connection
    failover                        which target is active
    plan                            old upstreams against new: what to open, keep and close

A module imports only modules above it in this list.
"""
