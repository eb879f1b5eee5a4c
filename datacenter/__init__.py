"""One embedded datacenter: Consul's HTTP API, a certificate authority and its federation, in one process.

Each room imports only rooms above it in this list; the `__init__` of a room lists its files.

    state         the store, the registry of services, tokens, switches
    http          Consul's HTTP conventions: requests, blocking reads, errors, forwarding
    config        the command line and the settings file
    services      services, checks and the catalog
    ca            the certificate authority: keys, roots, leaves, rotation, retirement
    federation    joining, signing, replication between datacenters
    queries       prepared queries
    intentions    intentions, and the config entries they are stored in
    faults        faults that are injected on purpose

`data_directory` reads what is kept before anything uses it, `assembly` puts the rooms together, `__main__` is
the command. `demo` knows a datacenter by its HTTP API alone.

`README.md` in this folder is for operators; `tests/recordings/README.md` says how this is compared with a
real Consul.
"""
