"""Intentions and the config entries they are stored in, matched and decided as Consul does.

Intentions are written in the primary alone.

    authorize_endpoint  config_endpoints  config_entries  endpoints  entry  model
"""
