"""The calls between datacenters: joining, signing, replication.

CA keys never leave their datacenter.

    endpoints  replication  secondary
"""
