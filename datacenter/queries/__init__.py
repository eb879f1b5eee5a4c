"""Prepared queries: their definitions, and their execution here and in other datacenters.

Queries belong to one datacenter, as with Consul.

    definitions  endpoints  execution
"""
