"""Intentions and the config entries that hold them, matched and decided as in Consul.

Intentions are written in the primary only.

    authorize_endpoint  config_endpoints  config_entries  endpoints  entry  model  upstream_defaults
"""
