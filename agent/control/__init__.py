"""Keeps the values that the data plane reads newest and proven.

This room asks Consul and never sees a caller's socket.

    bootstrap  churn  clock_skew  credentials  default_policy  deny_file  endpoints  own_addresses
    plane  report  root_catchup  self_registration  watches
"""
