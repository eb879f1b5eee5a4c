"""One embedded datacenter: Consul's HTTP API, a certificate authority and its federation, in one process.

How it fits together, from the socket inwards:

    __main__  options  tokens  settings  switches   the command: flags and file become Settings
    assembly                                        every module and background service, put together
    server                                          Hypercorn's listener: bytes become raw requests
    frame  api  errors  decode  durations           what all endpoints share; the words they are written in
    acl                                             what a token may do
    tally  telemetry                                who calls which endpoint, and how often
    faults  faulty  corruption                      what goes wrong here on purpose

    agent_services  agent_checks  agent_self        what runs beside this agent
    catalog  health  coordinates                    who is registered, and well
    queries  query_definitions  query_execution     prepared queries
    ca_api  ca_config  authorize                    roots, leaves, CSRs and who is let in
    intentions_api  intentions  service_intentions  permission
    config_api  config_entries                      config entries

    definitions  mistakes  registration             a definition, and what Consul finds wrong with it
    inventory  check_definitions  checks            from a definition to services and running checks
    heartbeats  dialling                            when a check is well, and the words for it if not
    views  central  filter  translate               how stored things look from outside

    ca  authority  trust  leaves  keys              the authority itself
    external  retirement  csr_limit                 roots from elsewhere, roots that go, how fast it signs
    federation  secondary  replication  forward  backoff   the other datacenters
    store                                           what survives a kill

`README.md` here is for who runs one; `tests/recordings/README.md` says how it is held to a real Consul.
"""
