"""The calls between datacenters: joining, signing, replication.

CA keys never leave their datacenter.

    backoff  endpoints  replication  secondary
"""
