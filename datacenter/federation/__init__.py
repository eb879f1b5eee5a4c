"""What the datacenters ask of each other: joining, signing, replication.

CA keys never leave their datacenter.

    endpoints  replication  secondary
"""
