"""One embedded datacenter: Consul's HTTP API, a certificate authority and its federation, in one process.

How it fits together, from the socket inwards:

    __main__  options  tokens  settings     the command: flags and file become Settings
    assembly                                every module and background service, put together
    server                                  Hypercorn's listener: bytes become raw requests
    frame  api  errors  decode              what all endpoints share; the words they are written in
    agent_services  agent_checks  agent_self         what runs beside this agent
    catalog  health  coordinates                     who is registered, and well
    queries  query_definitions  query_execution      prepared queries
    ca_api  intentions_api  authorize  config_api    trust and permission
    registration  inventory  check_definitions  checks   from a definition to services and running checks
    views  central  filter  translate                how stored things look from outside
    ca  authority  trust  leaves  keys               the authority itself
    federation  secondary  replication  forward      the other datacenters
    store                                            what survives a kill

`README.md` here is for who runs one; `tests/recordings/README.md` says how it is held to a real Consul.
"""
