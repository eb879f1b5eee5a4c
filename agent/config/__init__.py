"""Reads what the operator and the service definition say into frozen values, once.

All mistakes are reported together, each with field, value and remedy.

    collisions  effective  exposed_paths  flags  load  opaque_config  options  parsers
    registered_upstreams  registration  settings  upstream_config  upstream_tables
"""
