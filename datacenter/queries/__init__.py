"""Prepared queries: their definitions, and their execution here and in other datacenters.

A query belongs to one datacenter, as in Consul.

    definitions  endpoints  execution
"""
