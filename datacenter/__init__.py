"""One embedded datacenter: Consul's HTTP API, a certificate authority and its federation, in one process."""
